"""A store of MLflow has the run as it was written, and its end."""

import os
import sys

import numpy as np
import pytest

from gradtx.telemetry import Histogram, bin_edges
from gradtx.telemetry._mlflow import mlflow

# Before mlflow is imported: it would tell its makers.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
#: A way of SQLAlchemy's that 2.1 wants to drop, and MLflow 3.17 still goes.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")

STEPS = 1500
ODD = {
    "params['a']": 1.0,
    "params[!a!]": 2.0,  # is the same once it is cleaned
    "/etc//passwd/../x": 3.0,
    "long/" + 300 * "x": 4.0,
    "long/" + 300 * "x" + "y": 5.0,
    "é: 1": 6.0,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the store's client and a run that was written and closed."""
    folder = tmp_path_factory.mktemp("mlflow")
    store = f"sqlite:///{folder / 'mlflow.db'}"
    counts = np.zeros(514, np.int64)
    counts[100] = 4
    with mlflow("bench", "first", store, capacity=4000) as sink:
        for step in range(STEPS):
            sink.write(step, {"loss": 1 / (1 + step)}, time=1000.25 + step)
        sink.write(STEPS, {"first_nonfinite": "encoder", "note": 9000 * "x"})
        sink.write(STEPS, {**ODD, "loss": float("nan"), "norm": float("inf")})
        sink.write(STEPS, {"gradient_histogram": Histogram(counts, bin_edges())})
    assert (sink.dropped, sink.last_error) == (0, None)
    from mlflow.tracking import MlflowClient

    return MlflowClient(store), sink.address, store


def test_run_is_finished_under_its_names(run):
    client, address, _ = run
    info = client.get_run(address).info
    assert (info.status, info.run_name) == ("FINISHED", "first")
    assert client.get_experiment(info.experiment_id).name == "bench"


def test_numbers_come_back_by_step(run):
    client, address, _ = run
    history = client.get_metric_history(address, "loss")
    assert [m.step for m in history] == [*range(STEPS + 1)]
    assert [m.value for m in history[:-1]] == [1 / (1 + n) for n in range(STEPS)]
    assert history[1].timestamp == 1001250
    assert np.isnan(history[-1].value)
    assert client.get_metric_history(address, "norm")[0].value > 1e308


def test_more_numbers_than_a_request_takes_go_in_several(run, monkeypatch):
    client, _, store = run
    original, sizes = type(client).log_batch, []

    def log_batch(self, run_id, metrics=(), params=(), tags=()):
        sizes.append((len(metrics), len(tags)))
        return original(self, run_id, metrics, params, tags)

    monkeypatch.setattr(type(client), "log_batch", log_batch)
    with mlflow("bench", tracking_uri=store) as sink:
        texts = {f"text/{i}": "x" for i in range(120)}
        sink.write(1, {f"wide/{i}": i for i in range(2500)} | texts)
    assert sizes == [(1000, 0), (1000, 0), (500, 0), (0, 100), (0, 20)]
    data = client.get_run(sink.address).data
    assert [data.metrics[f"wide/{i}"] for i in range(2500)] == [*range(2500)]
    assert {name for name in data.tags if name.startswith("text/")} == {*texts}


def test_names_that_mlflow_refuses_are_cleaned_without_a_clash(run):
    client, address, _ = run
    metrics = client.get_run(address).data.metrics
    assert metrics["params__a__"] == 1.0
    assert metrics["_/etc/_/passwd/_/x"] == 3.0
    assert metrics["__ 1"] == 6.0
    assert {*ODD.values()} <= {*metrics.values()}


def test_texts_and_histograms_have_a_place(run):
    client, address, _ = run
    data = client.get_run(address).data
    assert data.tags["first_nonfinite"] == "encoder"
    assert data.tags["note"] == 8000 * "x"
    low, high = bin_edges()[100:102]
    quantiles = [data.metrics[f"gradient_histogram/p{q}"] for q in (10, 50, 90)]
    assert quantiles == pytest.approx([low + q * (high - low) for q in (0.1, 0.5, 0.9)])


def test_run_of_a_training_that_failed_is_marked_so(run):
    client, _, store = run
    with pytest.raises(ZeroDivisionError), mlflow("bench", tracking_uri=store) as sink:
        sink.write(1, {"loss": 1 / 0})
    info = client.get_run(sink.address).info
    assert (info.status, sink.dropped) == ("FAILED", 0)


def test_run_goes_on(run):
    client, address, store = run
    with mlflow("bench", tracking_uri=store, run_id=address) as sink:
        assert client.get_run(address).info.status == "RUNNING"
        sink.write(2000, {"later": 1.0})
        sink.write(STEPS - 1, {"loss": 7.0})  # a step that is there already
    assert sink.address == address
    assert client.get_run(address).data.metrics["later"] == 1.0
    history = client.get_metric_history(address, "loss")
    assert [m.value for m in history if m.step == STEPS - 1] == [1 / STEPS, 7.0]
    assert client.get_run(address).info.status == "FINISHED"


def test_store_that_fails_costs_only_counted_drops(run, monkeypatch):
    client, _, store = run

    def fail(*args, **kwargs):
        raise OSError("no route to host")

    with mlflow("bench", tracking_uri=store, interval=0) as sink:
        monkeypatch.setattr(type(client), "log_batch", fail)
        for step in range(3):
            sink.write(step, {"loss": 1.0})
            assert sink.flush()
        monkeypatch.undo()
        sink.write(3, {"loss": 1.0})
    assert (sink.dropped, sink.errors) == (3, {"OSError": 3})
    assert [m.step for m in client.get_metric_history(sink.address, "loss")] == [3]


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with pytest.raises(ImportError, match=r"pip install 'gradtx\[mlflow\]'"):
        mlflow("bench")
