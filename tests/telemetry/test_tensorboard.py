"""TensorBoard's own reader finds what was written."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator

from gradtx.telemetry import Histogram, bin_edges
from gradtx.telemetry._tensorboard import tensorboard


def _read(folder):
    reader = event_accumulator.EventAccumulator(
        str(folder),
        size_guidance=dict.fromkeys(["scalars", "histograms", "tensors"], 0),
    )
    reader.Reload()
    return reader


def test_scalars_come_back_by_name(tmp_path):
    with tensorboard(tmp_path / "deep" / "run") as sink:
        for step in range(300):
            sink.write(step, {"loss": 1 / (1 + step)}, time=100.0 + step)
        sink.write(300, {"norm/leaf/params['a'] (x)": np.nan, "updates": 2**20})
        sink.write(2**40, {"loss": np.inf})
    reader = _read(sink.address)
    loss = reader.Scalars("loss")
    assert [event.step for event in loss] == [*range(300), 2**40]
    assert loss[7].wall_time == 107.0
    expected = [np.float32(1 / (1 + step)) for step in range(300)]
    assert [event.value for event in loss] == [*expected, np.inf]
    assert np.isnan(reader.Scalars("norm/leaf/params['a'] (x)")[0].value)
    assert reader.Scalars("updates")[0].value == 2**20
    assert (sink.dropped, sink.last_error) == (0, None)


def test_histogram_comes_back_by_bin(tmp_path):
    counts = np.zeros(514, np.int64)
    counts[[100, 103, 300]] = 3, 1, 2
    empty = np.zeros(514, np.int64)
    with tensorboard(tmp_path) as sink:
        sink.write(5, {"gradient_histogram": Histogram(counts, bin_edges())})
        sink.write(6, {"update_histogram": Histogram(empty, bin_edges())})
    reader = _read(tmp_path)
    (event,) = reader.Histograms("gradient_histogram")
    value = event.histogram_value
    assert (event.step, value.num) == (5, 6)
    assert value.bucket == counts[100:301].tolist()
    assert value.bucket_limit == bin_edges()[101:302].tolist()
    assert (value.min, value.max) == (bin_edges()[100], bin_edges()[301])
    middle = [(bin_edges()[i] + bin_edges()[i + 1]) / 2 for i in (100, 103, 300)]
    assert value.sum == pytest.approx(3 * middle[0] + middle[1] + 2 * middle[2])
    squares = 3 * middle[0] ** 2 + middle[1] ** 2 + 2 * middle[2] ** 2
    assert value.sum_squares == pytest.approx(squares)
    assert reader.Histograms("update_histogram")[0].histogram_value.num == 0
    assert sink.dropped == 0


def test_text_comes_back_and_an_empty_one_is_left_out(tmp_path):
    with tensorboard(tmp_path) as sink:
        sink.write(1, {"first_nonfinite": ""})
        sink.write(2, {"first_nonfinite": "encoder/kernel"})
    (event,) = _read(tmp_path).Tensors("first_nonfinite/text_summary")
    assert event.step == 2
    assert event.tensor_proto.string_val[0] == b"encoder/kernel"


def test_run_that_goes_on_writes_another_file(tmp_path):
    for step in range(3):
        with tensorboard(tmp_path) as sink:
            sink.write(step, {"loss": 1.0})
    assert len([*tmp_path.iterdir()]) == 3
    steps = [event.step for event in _read(tmp_path).Scalars("loss")]
    assert sorted(steps) == [0, 1, 2]


def test_steps_that_come_again_are_kept_twice(tmp_path):
    for first, value in ((0, 1.0), (2, 5.0)):
        with tensorboard(tmp_path) as sink:
            for step in range(first, first + 4):
                sink.write(step, {"loss": value})
    found = [(event.step, event.value) for event in _read(tmp_path).Scalars("loss")]
    expected = [(step, 1.0) for step in range(4)] + [(s, 5.0) for s in range(2, 6)]
    assert sorted(found) == sorted(expected)


def test_folder_that_is_removed_costs_only_counted_drops(tmp_path):
    folder = tmp_path / "run"
    with tensorboard(folder, interval=0) as sink:
        sink.write(1, {"loss": 1.0})
        assert sink.flush()
        shutil.rmtree(folder)
        sink.write(2, {"loss": 2.0})
        assert sink.flush()
        assert (sink.dropped, sink.errors) == (1, {"FileNotFoundError": 1})
        folder.mkdir()
        for step in (3, 4):
            sink.write(step, {"loss": 3.0})
            assert sink.flush()
    assert [event.step for event in _read(folder).Scalars("loss")] == [3, 4]
    assert sink.dropped == 1


def test_full_disk_costs_only_counted_drops(tmp_path):
    code = """
import resource, sys, time, warnings
from gradtx.telemetry._tensorboard import tensorboard
sink = tensorboard(sys.argv[1], interval=0)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
for step in range(40):
    sink.write(step, {f"metric{i}": 1.0 for i in range(20)})
    assert sink.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
for step in range(40, 45):
    sink.write(step, {"loss": 1.0})
    assert sink.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
for step in range(45, 50):
    sink.write(step, {"loss": 1.0})
    assert sink.flush()
assert set(sink.errors) == {"OSError"}, sink.errors
print(sink.dropped)
start = time.perf_counter()
sink.close()
assert time.perf_counter() - start < 5
"""
    done = subprocess.run(
        [sys.executable, "-Werror", "-c", code, tmp_path],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,  # nor does Python hang at its end
    )
    lost = int(done.stdout)
    assert 5 < lost < 45
    reader = _read(tmp_path)
    early = [event.step for event in reader.Scalars("metric3")]
    late = [event.step for event in reader.Scalars("loss")]
    assert late == [*range(45, 50)]
    assert len({*early}) + len(late) == 50 - lost


def test_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
    with pytest.raises(ImportError, match=r"pip install 'gradtx\[telemetry\]'"):
        tensorboard(tmp_path)
