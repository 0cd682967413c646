"""Log what was measured to a run of Weights & Biases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from gradtx.core import imported
from gradtx.telemetry._histogram import Histogram
from gradtx.telemetry._programs import writes_here
from gradtx.telemetry._record import Record, octaves
from gradtx.telemetry._sink import Sink


def wandb(
    project: str,
    mode: Literal["offline", "online", "disabled", "shared"] = "offline",
    *,
    interval: float = 1.0,
    capacity: int = 1024,
    every_process: bool = False,
    **options: Any,
) -> Sink:
    """Log to a run of Weights & Biases, by default to files that nobody sends.

    The run is a new one beside `wandb.run`. It ends when the sink is closed, as failed
    where an error ended the `with` block of the sink or its recorder;
    `wandb sync <sink.address>` uploads an offline run. The x axis is `step`, which may
    go back, as after a rollback; a metric that is called so becomes `metric/step`.
    Histograms are of magnitudes, by octave.

    Args:
      project: the project's name.
      mode: `"offline"` writes files, `"online"` sends too.
      interval: least time between writes, in seconds.
      capacity: writes that the buffer holds.
      every_process: whether processes other than the first log too, each a run.
      **options: those of `wandb.init`, as `name`, `config`, `dir`, `id` and `resume`.

    Raises:
      ImportError: if wandb is not installed.
      Exception: those of wandb, where it cannot start the run.
    """
    if not writes_here(every_process):
        return Sink(None, name="wandb")
    package = imported("wandb", "wandb")
    options = {"reinit": "create_new", **options}
    if "settings" not in options:  # what the training prints stays its own affair
        options["settings"] = package.Settings(console="off", silent=True)
    run = package.init(project=project, mode=mode, **options)
    run.define_metric("*", step_metric="step")

    def write(records: Sequence[Record]):
        for record in records:
            row = {"step": record.step, "_timestamp": record.time}
            for name, value in record.values.items():
                if isinstance(value, Histogram):
                    binned = tuple(octaves(value))
                    value = package.Histogram(np_histogram=binned)
                row[f"metric/{name}" if name in row else name] = value
            run.log(row)

    sink = Sink(
        write,
        close=lambda: run.finish(exit_code=int(sink.failed)),
        name="wandb",
        capacity=capacity,
        interval=interval,
        address=str(run.settings.sync_dir),
    )
    return sink
