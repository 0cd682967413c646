"""Files are read back exactly, and stay good whatever breaks off a write."""

import csv as rows
import json
import math
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from gradtx.core import ArgumentError
from gradtx.telemetry import Histogram, _jsonl, bin_edges
from gradtx.telemetry._jsonl import csv, jsonl, read_jsonl

#: What a number may be: extremes, and what JSON has no number for.
NUMBERS = [0.1, -0.0, 5e-324, 1.7976931348623157e308, math.nan, math.inf, -math.inf]


def _histogram():
    counts = np.zeros(514, np.int64)
    counts[[100, 103, 513]] = 3, 1, 2
    return Histogram(counts, bin_edges())


def _strict(line):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(line, parse_constant=refuse)


def test_lines_are_strict_json_and_come_back(tmp_path):
    path = tmp_path / "deep" / "run.jsonl"
    values = {f"user/{i}": number for i, number in enumerate(NUMBERS)}
    values |= {"updates": 2**60, "first_nonfinite": "NaN", "note": "é\n", "step": 7}
    with jsonl(path) as sink:
        sink.write(3, {**values, "gradient_histogram": _histogram()}, time=1.5)
        sink.write(4, {}, time=2.5)
    first, second = map(_strict, path.read_text().splitlines())
    assert first["user/4"] == "NaN"
    assert (first["user/5"], first["user/6"]) == ("Infinity", "-Infinity")
    assert second == {"step": 4, "time": 2.5}
    back = read_jsonl(path)[0]
    assert (back["step"], back["time"], back["metric/step"]) == (3, 1.5, 7)
    for i, number in enumerate(NUMBERS):
        np.testing.assert_array_equal(back[f"user/{i}"], number)
        assert math.copysign(1, back[f"user/{i}"]) == math.copysign(1, number)
    assert back["updates"] == 2**60
    assert (back["first_nonfinite"], back["note"]) == ("NaN", "é\n")
    counts, edges = back["gradient_histogram"]
    assert counts.tolist() == [4, *51 * [0], 2]  # by octaves
    np.testing.assert_array_equal(edges, bin_edges(1)[13:])
    assert sink.address == str(path)
    assert sink.dropped == 0


def test_empty_histogram_comes_back_empty(tmp_path):
    with jsonl(tmp_path / "run.jsonl") as sink:
        sink.write(1, {"h": Histogram(np.zeros(514, np.int64), bin_edges())})
    (line,) = read_jsonl(tmp_path / "run.jsonl")
    assert line["h"].counts.size == 0


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        (b'{"step": 1}\n{"step": 2, "lo', b'{"step": 1}\n'),
        (b'{"step": 1}\n{"step": 2}', b'{"step": 1}\n{"step": 2}\n'),
        (b'{"st', b""),
        (b'{"step": 10}', b'{"step": 10}\n'),
        (b'{"step": 1}\n', b'{"step": 1}\n'),
    ],
)
@pytest.mark.parametrize("block", [1, 7, 1 << 16])
def test_torn_last_line_swallows_no_record(tmp_path, monkeypatch, block, before, kept):
    monkeypatch.setattr(_jsonl, "_BLOCK", block)
    path = tmp_path / "run.jsonl"
    path.write_bytes(before)
    with jsonl(path) as sink:
        sink.write(9, {"loss": 1.0}, time=0.0)
    after = b'{"step": 9, "time": 0.0, "loss": 1.0}\n'
    assert path.read_bytes() == kept + after


def test_reader_leaves_out_a_torn_line(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_bytes('{"step": 1}\n{"step": 2, "note": "é'.encode()[:-1])
    assert read_jsonl(path) == [{"step": 1}]


@pytest.mark.parametrize("factory", [jsonl, csv])
def test_full_disk_costs_only_counted_drops(factory):
    with factory("/dev/full") as sink:
        for step in range(5):
            sink.write(step, {"loss": 1.0})
            assert sink.flush()
    assert sink.dropped == 5
    assert sink.errors == {"OSError": 5}
    assert "No space left" in str(sink.last_error)


@pytest.mark.parametrize("factory", ["jsonl", "csv"])
def test_disk_that_is_freed_is_written_again(factory, tmp_path):
    code = """
import resource, sys
from gradtx.telemetry import _jsonl
sink = getattr(_jsonl, sys.argv[1])(sys.argv[2])
def run(steps):
    for step in steps:
        sink.write(step, {"loss": 1.0})
        assert sink.flush()
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
run(range(20))
full = sink.dropped
assert 0 < full < 20, full
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
run(range(20, 25))
assert sink.dropped == full and set(sink.errors) == {"OSError"}, sink.errors
print(full)
"""
    path = tmp_path / "file"
    lost = subprocess.run(
        [sys.executable, "-c", code, factory, path],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    lines = path.read_text().splitlines()[factory == "csv" :]
    if factory == "jsonl":
        steps = [_strict(line)["step"] for line in lines]
    else:
        assert all(line.count(",") == 3 for line in lines)
        steps = [int(line.split(",")[0]) for line in lines]
    assert steps[-5:] == [*range(20, 25)]
    assert steps == sorted({*steps})
    assert len(steps) == 25 - int(lost)


def test_killed_writer_leaves_whole_lines(tmp_path):
    code = """
import itertools, sys
from gradtx.telemetry._jsonl import jsonl
sink = jsonl(sys.argv[1], capacity=2000)
for step in itertools.count():
    sink.write(step, {"loss": 1 / 3, "first_nonfinite": 300 * "x"})
    sink.flush()
"""
    path = tmp_path / "run.jsonl"
    with subprocess.Popen([sys.executable, "-c", code, path]) as child:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            if path.exists() and path.stat().st_size > 100_000:
                break
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    data = path.read_bytes()
    *whole, _ = data.split(b"\n")
    steps = [_strict(line)["step"] for line in whole]
    assert steps == [*range(len(steps))]
    assert len(steps) > 100
    path.write_bytes(data + b'{"step": 5, "ti')  # a kernel that wrote half of it
    with jsonl(path) as sink:
        sink.write(10**6, {"loss": 0.0})
    again = [_strict(line)["step"] for line in path.read_text().splitlines()]
    assert again[-1] == 10**6
    assert len(again) == len(whole) + 1  # what was torn before is cut off with it


def test_file_that_is_moved_away_is_made_anew(tmp_path):
    path = tmp_path / "run.jsonl"
    with jsonl(path) as sink:
        sink.write(1, {})
        sink.flush()
        path.rename(tmp_path / "old.jsonl")
        sink.write(2, {})
    assert [line["step"] for line in read_jsonl(path)] == [2]
    assert [line["step"] for line in read_jsonl(tmp_path / "old.jsonl")] == [1]


def test_two_writers_of_one_file_tear_no_line(tmp_path):
    path = tmp_path / "run.jsonl"
    sinks = [jsonl(path, capacity=4000) for _ in range(2)]
    texts = {"note": 300 * "x"}
    for step in range(2000):
        sinks[step % 2].write(step, texts)
    for sink in sinks:
        sink.close()
    steps = [_strict(line)["step"] for line in path.read_text().splitlines()]
    assert sorted(steps) == [*range(2000)]


def test_path_that_cannot_be_written_is_told_at_once(tmp_path):
    with pytest.raises(IsADirectoryError):
        jsonl(tmp_path)


def _table(path):
    with open(path, newline="") as file:
        return [*rows.DictReader(file, strict=True)]


def test_table_keeps_everything(tmp_path):
    path = tmp_path / "run.csv"
    note = 'a "quoted", note\nin two lines'
    with csv(path) as sink:
        sink.write(1, {"loss": 0.1, "first_nonfinite": note, "time": 8}, time=1.5)
        sink.write(2, {"loss": math.nan, "late": -math.inf, "h": _histogram()})
        sink.write(3, {})
    first, second, third = _table(path)
    assert [*first] == [
        "step",
        "time",
        "loss",
        "first_nonfinite",
        "metric/time",
        "more",
    ]
    assert first["first_nonfinite"] == 'a "quoted", note in two lines'
    assert (first["time"], first["metric/time"], first["more"]) == ("1.5", "8", "")
    assert math.isnan(float(second["loss"]))
    more = json.loads(second["more"])
    assert more["late"] == "-Infinity"
    assert sum(more["h"]["counts"]) == 6
    assert [third[name] for name in [*third][2:]] == ["", "", "", ""]
    assert sink.dropped == 0


def test_names_of_several_lines_are_one_in_a_table(tmp_path):
    path = tmp_path / "run.csv"
    for step in range(2):  # a table with such a header is one to go on with
        with csv(path) as sink:
            sink.write(step, {"a\nb": 1.5, "c\r": 2.5})
    assert path.read_text().splitlines()[0] == "step,time,a b,c,more"
    assert [(row["a b"], row["c"]) for row in _table(path)] == [("1.5", "2.5")] * 2


def test_table_of_numbers_is_read_by_numpy_exactly(tmp_path):
    path = tmp_path / "run.csv"
    with csv(path, columns=["b", "a"]) as sink:
        for step, number in enumerate(NUMBERS):
            sink.write(step, {"a": number, "b": -number})
    with open(path) as file:
        assert file.readline() == "step,time,b,a,more\n"
    table = np.loadtxt(path, delimiter=",", skiprows=1, usecols=(0, 2, 3))
    np.testing.assert_array_equal(table[:, 0], range(len(NUMBERS)))
    np.testing.assert_array_equal(table[:, 2], NUMBERS)
    np.testing.assert_array_equal(table[:, 1], -np.array(NUMBERS))


def test_table_goes_on_in_its_own_columns(tmp_path):
    path = tmp_path / "run.csv"
    with csv(path) as sink:
        sink.write(1, {"loss": 1.0, "norm": 2.0})
    with open(path, "a") as file:
        file.write('2,0.0,"tor')
    with csv(path) as sink:
        sink.write(3, {"norm": 4.0, "loss": 3.0, "other": 5.0})
    table = _table(path)
    assert [row["step"] for row in table] == ["1", "3"]
    assert (table[1]["loss"], table[1]["norm"]) == ("3.0", "4.0")
    assert json.loads(table[1]["more"]) == {"other": 5.0}


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        ("step,time,loss,more\n", ["norm"], "has the columns"),
        ("some,other,table\n", None, "expected a table of gradtx"),
        ("step,time,lo", None, "expected a table of gradtx"),
    ],
)
def test_other_table_is_refused_and_left_alone(tmp_path, content, columns, message):
    path = tmp_path / "run.csv"
    path.write_text(content)
    with pytest.raises(ArgumentError, match=message):
        csv(path, columns)
    assert path.read_text() == content
