"""An offline run of W&B holds the records, in the files that `wandb sync` takes."""

import importlib
import json
import pathlib
import struct
import sys
import time
from typing import Any

import numpy as np
import pytest

from gradtx.telemetry import Histogram, bin_edges
from gradtx.telemetry._wandb import wandb


def _records(data):
    """Yield the records of a run's file: a log of LevelDB, in blocks of 32 KiB."""
    protos: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    position, parts = 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, position)
        parts += data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = protos.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the sink of a run that is closed, and its records by kind."""
    folder = tmp_path_factory.mktemp("wandb")
    counts = np.zeros(514, np.int64)
    counts[100] = 4
    with wandb("bench", dir=str(folder), name="first", config={"b1": 0.9}) as sink:
        for step in (1, 2, 3, 2):
            sink.write(step, {"loss": 1 / step}, time=1000.0 + step)
        odd = {"norm": float("nan"), "first_nonfinite": "a/b", "step": 7}
        histogram = Histogram(counts, bin_edges())
        sink.write(4, {**odd, "gradient_histogram": histogram})
    return sink, _found(sink)


def _found(sink):
    """Return the records of a run that is closed, by kind."""
    (path,) = pathlib.Path(sink.address).glob("*.wandb")
    found, until = {}, time.monotonic() + 10
    while "exit" not in found and time.monotonic() < until:
        time.sleep(0.02)  # another process writes it, shortly after `finish` returns
        found = {}
        for record in _records(path.read_bytes()):
            kind = record.WhichOneof("record_type")
            found.setdefault(kind, []).append(getattr(record, kind))
    return found


def _rows(found):
    return [
        {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in h.item}
        for h in found["history"]
    ]


def test_run_is_offline_and_ends_well(run):
    sink, found = run
    assert (sink.dropped, sink.last_error) == (0, None)
    assert pathlib.Path(sink.address).name.startswith("offline-run-")
    assert found["exit"][0].exit_code == 0
    assert (found["run"][0].project, found["run"][0].display_name) == ("bench", "first")
    config = {i.key: i.value_json for i in found["run"][0].config.update}
    assert config["b1"] == "0.9"


def test_run_of_a_training_that_failed_is_marked_so(tmp_path):
    with pytest.raises(ZeroDivisionError), wandb("bench", dir=str(tmp_path)) as sink:
        sink.write(1, {"loss": 1 / 0})
    assert [record.exit_code for record in _found(sink)["exit"]] == [1]
    assert sink.dropped == 0


def test_rows_come_back_though_steps_go_back(run):
    rows = [row for row in _rows(run[1]) if "loss" in row]
    assert [row["step"] for row in rows] == [1, 2, 3, 2]
    assert [row["loss"] for row in rows] == [1.0, 0.5, 1 / 3, 0.5]
    assert [row["_timestamp"] for row in rows] == [1001.0, 1002.0, 1003.0, 1002.0]
    assert any(m.step_metric == "step" for m in run[1]["metric"])


def test_all_kinds_of_values_have_a_place(run):
    row = _rows(run[1])[-1]
    assert row["first_nonfinite"] == "a/b"
    assert np.isnan(float(row["norm"]))
    assert (row["step"], row["metric/step"]) == (4, 7)
    histogram = {k.rpartition("/")[2]: v for k, v in row.items() if "histogram" in k}
    values = histogram.get("gradient_histogram", histogram)
    assert sum(values["values"]) == 4
    assert len(values["bins"]) == len(values["values"]) + 1


def test_run_of_the_user_is_left_alone(run):
    import wandb as package

    assert package.run is None
    assert run[0].name == "wandb"


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r"pip install 'gradtx\[wandb\]'"):
        wandb("bench")
