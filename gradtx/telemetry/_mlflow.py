"""Log what was measured to a run of MLflow."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gradtx.core import imported
from gradtx.telemetry._histogram import Histogram
from gradtx.telemetry._programs import renamer, writes_here
from gradtx.telemetry._record import Record, Value
from gradtx.telemetry._sink import Sink

#: The most that MLflow takes: metrics and tags of a request, characters of a tag.
_METRICS, _TAGS, _TEXT = 1000, 100, 8000
#: A histogram is logged as these quantiles.
_QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}


def mlflow(
    experiment: str,
    run_name: str | None = None,
    tracking_uri: str | None = None,
    *,
    run_id: str | None = None,
    interval: float = 1.0,
    capacity: int = 1024,
    every_process: bool = False,
) -> Sink:
    """Log to a run of MLflow: numbers as metrics, texts as tags.

    The run is apart from `mlflow.start_run` and what is active there. When the sink is
    closed it is finished, or failed, where an error ended the `with` block of the sink
    or its recorder. Steps that come again after a restart are kept twice. In names,
    what MLflow does not take becomes `_`. A tag holds the last text only. MLflow has no
    histograms: one is logged as its quantiles, `<name>/p10`, `/p50` and `/p90`. A store
    in a database keeps infinities as the largest numbers.

    Args:
      experiment: the name of the experiment; it is made where it is missing.
      run_name: what the run is called; by default MLflow picks a name.
      tracking_uri: a server, or a database as `sqlite:///mlflow.db`; by default the
        environment's (`MLFLOW_TRACKING_URI`), else that file.
      run_id: a run to go on with, in place of a new one.
      interval: least time between requests, in seconds.
      capacity: writes that the buffer holds.
      every_process: whether processes other than the first log too, each a run.

    Raises:
      ImportError: if mlflow is not installed.
      Exception: those of MLflow, where it cannot start the run.
    """
    if not writes_here(every_process):
        return Sink(None, name="mlflow")
    client = imported("mlflow.tracking", "mlflow").MlflowClient(tracking_uri)
    entities = imported("mlflow.entities", "mlflow")
    if run_id is None:
        found = client.get_experiment_by_name(experiment)
        parent = found.experiment_id if found else client.create_experiment(experiment)
        run = client.create_run(parent, run_name=run_name).info.run_id
    else:
        run = run_id
        client.update_run(run, status="RUNNING")
    renamed = renamer(_clean)
    tags: dict[str, str] = {}

    def write(records: Sequence[Record]):
        metrics, texts = [], {}
        for record in records:
            when = int(1000 * record.time)
            for name, value in record.values.items():
                if isinstance(value, str):
                    texts[renamed(name)] = value[:_TEXT]
                metrics += [
                    entities.Metric(renamed(n), number, when, record.step)
                    for n, number in _numbers(name, value)
                ]
        new = {name: text for name, text in texts.items() if tags.get(name, "") != text}
        changed = [entities.RunTag(*item) for item in new.items()]
        for start in range(0, len(metrics), _METRICS):
            client.log_batch(run, metrics=metrics[start : start + _METRICS])
        for start in range(0, len(changed), _TAGS):
            client.log_batch(run, tags=changed[start : start + _TAGS])
        tags.update(new)

    def close():
        client.set_terminated(run, "FAILED" if sink.failed else "FINISHED")

    sink = Sink(
        write,
        close=close,
        name="mlflow",
        capacity=capacity,
        interval=interval,
        address=run,
    )
    return sink


def _numbers(name: str, value: Value) -> list[tuple[str, float]]:
    if isinstance(value, Histogram):
        return [
            (f"{name}/{key}", float(value.quantile(share)))
            for key, share in _QUANTILES.items()
        ]
    return [] if isinstance(value, str) else [(name, float(value))]


def _clean(name: str) -> str:
    """Return a name that is no path in disguise, of the characters MLflow takes."""
    parts = re.sub(r"[^\w. /-]", "_", name, flags=re.A).split("/")
    return "/".join("_" if part in ("", ".", "..") else part for part in parts)
