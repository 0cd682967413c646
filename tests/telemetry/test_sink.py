"""A sink costs the training nothing, and counts what it loses."""

import contextlib
import copy
import logging
import pickle
import random
import subprocess
import sys
import threading
import time
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.core import ArgumentError
from gradtx.telemetry import Histogram, bin_edges
from gradtx.telemetry._jsonl import csv, jsonl, read_jsonl
from gradtx.telemetry._sink import Sink, close_all
from gradtx.telemetry._worker import Lost


class Gate:
    """A backend that keeps what it gets, and waits until it is opened."""

    def __init__(self, is_open=False):
        self.open, self.entered = threading.Event(), threading.Event()
        self.records = []
        if is_open:
            self.open.set()

    def __call__(self, records):
        self.entered.set()
        self.open.wait()
        self.records += records

    @property
    def steps(self):
        return [record.step for record in self.records]


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.open.set()


def test_values_arrive_as_plain_ones_in_order():
    kept = Gate(is_open=True)
    counts: Any = jnp.arange(514)
    with Sink(kept) as sink:
        for step in range(50):
            sink.write(step, {"loss": jnp.float32(step) / 4})
        sink.write(
            jnp.int32(50),
            {
                "python": 1.5,
                "count": np.int64(3),
                "flag": True,
                "half": jnp.bfloat16(0.5),
                "text": "a/b",
                "nothing": None,
                "histogram": Histogram(counts, bin_edges()),
            },
            time=12.0,
        )
    assert kept.steps == list(range(51))
    assert [r.values["loss"] for r in kept.records[:50]] == [n / 4 for n in range(50)]
    assert kept.records[0].time == pytest.approx(time.time(), abs=60)
    last = kept.records[-1]
    values = dict(last.values)
    histogram = values.pop("histogram")
    assert values == {
        "python": 1.5,
        "count": 3,
        "flag": 1,
        "half": 0.5,
        "text": "a/b",
        "nothing": "",
    }
    assert [*map(type, values.values())] == [float, int, int, float, str, str]
    assert isinstance(histogram, Histogram)
    assert isinstance(histogram.counts, np.ndarray)
    np.testing.assert_array_equal(histogram.counts, np.arange(514))
    assert last.time == 12.0
    assert (sink.dropped, sink.errors, sink.last_error) == (0, {}, None)


@jax.jit
def slow(x):
    """Return x once some tenths of a second of work are done."""
    work = jax.lax.fori_loop(0, 150, lambda _, m: jnp.sin(m @ m), jnp.ones((400, 400)))
    return x + 0 * work[0, 0]


def test_what_is_not_computed_yet_is_awaited_elsewhere():
    slow(jnp.float32(1)).block_until_ready()
    kept = Gate(is_open=True)
    with Sink(kept) as sink:
        value = slow(jnp.float32(2))
        assert not value.is_ready()
        sink.write(1, {"loss": value})
        assert not value.is_ready()
    assert kept.records[0].values == {"loss": 2.0}


def test_backend_that_hangs_costs_nothing_but_counted_drops(gate):
    def backend(records):
        gate(records)
        raise OSError("too late")  # is counted already when this happens

    sink = Sink(backend, capacity=100)
    sink.write(0, {"loss": 1.0})
    assert gate.entered.wait(5)
    spent = []
    for step in range(1, 1001):
        start = time.perf_counter()
        sink.write(step, {"loss": 1.0, "gradient_norm": 2.0})
        spent.append(time.perf_counter() - start)
    assert np.quantile(spent, 0.9) < 1e-3
    assert sink.dropped == 900  # all but the one that hangs and the newest 100
    assert not sink.flush(timeout=0.01)
    start = time.perf_counter()
    sink.close(timeout=0.1)
    assert time.perf_counter() - start < 2
    assert sink.dropped == 1001
    assert sink.errors == {"Overflow": 900, "Timeout": 1}
    gate.open.set()
    sink._worker._thread.join(5)  # pyright: ignore[reportOptionalMemberAccess]
    assert not sink._worker._thread.is_alive()  # pyright: ignore[reportOptionalMemberAccess]
    sink.close()
    assert sink.dropped == 1001
    assert gate.steps == [0], "nothing is written after what was given up"


def test_full_buffer_loses_the_oldest(gate):
    with Sink(gate, capacity=3) as sink:
        sink.write(0, {})
        assert gate.entered.wait(5)
        assert not sink.flush(timeout=0.01), "the backend has it, and is not done"
        for step in range(1, 11):
            sink.write(step, {})
        gate.open.set()
        assert sink.flush()
        assert gate.steps == [0, 8, 9, 10]
        assert sink.dropped == 7
    assert sink.errors == {"Overflow": 7}


@pytest.mark.parametrize("error", [OSError("disk full"), SystemExit(1), ValueError()])
def test_backend_that_fails_is_tried_again(error):
    kept = Gate(is_open=True)

    def backend(records):
        if records[0].step % 2:
            raise error
        kept(records)

    with Sink(backend) as sink:
        for step in range(10):
            sink.write(step, {"loss": 1.0})
            assert sink.flush()
    assert kept.steps == [0, 2, 4, 6, 8]
    assert sink.dropped == 5
    assert sink.errors == {type(error).__name__: 5}
    assert str(sink.last_error).startswith(type(error).__name__)


def test_failure_of_a_batch_loses_each_of_its_writes(gate):
    def backend(records):
        gate(records)
        raise RuntimeError("no")

    with Sink(backend) as sink:
        sink.write(0, {"loss": object()})  # counts once, though all of it goes wrong
        sink.write(1, {"loss": 1.0})
        assert gate.entered.wait(5)
        for step in range(2, 6):
            sink.write(step, {"loss": object(), "other": 1})
        gate.open.set()
    assert sink.dropped == 6


def test_backend_may_lose_some_of_a_batch(gate):
    def backend(records):
        gate(records)
        raise Lost("one too many", 1)

    with Sink(backend) as sink:
        sink.write(0, {})
        assert gate.entered.wait(5)
        sink.write(1, {"loss": object(), "other": 1})
        sink.write(2, {})
        sink.write(3, {})
        gate.open.set()
    assert sink.dropped == 1 + 2


def test_failing_close_of_a_backend_is_kept_not_raised():
    def close():
        raise OSError("gone")

    sink = Sink(lambda records: None, close=close)
    sink.write(1, {})
    sink.close()
    assert sink.errors == {"OSError": 1}
    assert sink.dropped == 0


def test_value_that_cannot_be_written_leaves_the_others():
    kept = Gate(is_open=True)
    deleted = jnp.float32(1) + 1
    deleted.delete()
    bad = {
        "object": object(),
        "vector": jnp.ones(3),
        "complex": 1j,
        "unsorted": {1: 1.0, "a": 2.0},
        "deleted": deleted,
        "histogram": Histogram(np.ones((2, 3)), np.arange(4.0)),
    }
    with Sink(kept) as sink:
        for name, value in bad.items():
            sink.write(1, {name: value, "good": 1.0})
            assert sink.flush()
            assert name in str(sink.last_error)
        assert sink.dropped == len(bad)
        sink.write(2, {"only": object()})
    assert [r.values for r in kept.records] == len(bad) * [{"good": 1.0}]
    assert sink.dropped == len(bad) + 1


def test_text_that_utf8_cannot_carry_is_escaped():
    kept = Gate(is_open=True)
    with Sink(kept) as sink:
        sink.write(1, {"a\udcffé": 1.0, "note": "x\udcff\n"})
    assert kept.records[0].values == {"a\\udcffé": 1.0, "note": "x\\udcff\n"}
    assert sink.dropped == 0


def test_arrays_are_let_go_of_once_they_are_written():
    with Sink(Gate(is_open=True)) as sink:
        value = jnp.arange(3.0)[1]
        gone = weakref.ref(value)
        sink.write(1, {"loss": value})
        assert sink.flush()
        del value
        until = time.monotonic() + 5
        while gone() is not None and time.monotonic() < until:
            time.sleep(0.001)
        assert gone() is None


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        (None, False),
        (ValueError(), True),
        (SystemExit(0), False),
        (SystemExit(1), True),
    ],
)
def test_backend_is_told_whether_the_training_failed(error, failed):
    seen = []
    sink = Sink(lambda records: None, close=lambda: seen.append(sink.failed))
    with contextlib.suppress(BaseException), sink:
        if error is not None:
            raise error
    assert seen == [failed]


def test_write_that_is_lost_in_several_values_counts_once(gate):
    with Sink(gate) as sink:
        sink.write(0, {})
        assert gate.entered.wait(5)
        sink.write(1, {"a": object(), "b": object(), "good": 1.0})
        for step in range(2, 5):
            sink.write(step, {})
        gate.open.set()
    assert (gate.steps, sink.dropped) == ([0, 1, 2, 3, 4], 1)


def test_nonsense_neither_raises_nor_goes_uncounted():
    kept = Gate(is_open=True)
    with Sink(kept) as sink:
        sink.write(1, 3)  # pyright: ignore[reportArgumentType]
        sink.write("one", {"loss": 1.0})
        jax.jit(lambda x: sink.write(1, {"loss": x}))(jnp.float32(1))
        jax.jit(lambda x: sink.write(x, {"loss": 1.0}))(jnp.int32(1))
        assert sink.flush()
    assert sink.dropped == 4
    assert not kept.records


def test_write_after_close_counts_as_lost():
    kept = Gate(is_open=True)
    sink = Sink(kept)
    sink.write(1, {})
    sink.close()
    sink.close()
    sink.write(2, {})
    assert (kept.steps, sink.dropped) == ([1], 1)
    assert sink.flush()


def test_every_write_is_either_had_or_counted():
    lots = random.Random(0)
    kept = Gate(is_open=True)

    def backend(records):
        if lots.random() < 0.3:
            raise OSError("sometimes")
        kept(records)

    sink = Sink(backend, capacity=40)

    def writer():
        for step in range(500):
            sink.write(step, {"loss": 1.0})
            if step % 50 == 0:
                time.sleep(1e-4)

    threads = [threading.Thread(target=writer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.close()
    assert sink.dropped > 0
    assert kept.records
    assert len(kept.records) + sink.dropped == 2000


def test_failures_are_logged_once_a_kind(caplog):
    def backend(records):
        raise OSError("disk full")

    with caplog.at_level(logging.WARNING, "gradtx.telemetry"), Sink(backend) as sink:
        for step in range(5):
            sink.write(step, {})
            sink.flush()
    assert len(caplog.records) == 1
    assert "disk full" in caplog.text


def test_log_handler_that_raises_does_not_reach_the_training(gate):
    class Handler(logging.Handler):
        def emit(self, record):
            raise RuntimeError("handler")

    handler = Handler()
    logger = logging.getLogger("gradtx.telemetry")
    logger.addHandler(handler)
    try:
        with Sink(gate, capacity=1) as sink:
            for step in range(5):
                sink.write(step, {})
            gate.open.set()
    finally:
        logger.removeHandler(handler)
    assert sink.errors["Overflow"] == sink.dropped


def test_interval_gathers_writes_but_not_when_in_haste():
    batches = []
    sink = Sink(lambda records: batches.append(len(records)), interval=30, capacity=8)
    sink.write(0, {})
    assert sink.flush(5)
    sink.write(1, {})
    sink.write(2, {})
    time.sleep(0.05)
    assert batches == [1]
    assert sink.flush(5)
    assert batches == [1, 2]
    for step in range(4):
        sink.write(step, {})
    until = time.monotonic() + 5
    while batches != [1, 2, 4] and time.monotonic() < until:
        time.sleep(0.005)
    assert batches == [1, 2, 4], "a buffer that is half full does not wait"
    sink.write(9, {})
    start = time.perf_counter()
    sink.close()
    assert batches == [1, 2, 4, 1]
    assert time.perf_counter() - start < 5


def test_sinks_close_within_one_timeout(gate):
    kept = Gate(is_open=True)
    ended = threading.Event()
    sinks = [Sink(gate), Sink(gate), Sink(kept, close=ended.set)]
    for sink in sinks:
        sink.write(1, {})
    start = time.perf_counter()
    close_all(sinks, 0.2)
    assert time.perf_counter() - start < 2
    assert ended.is_set()
    assert [sink.dropped for sink in sinks] == [1, 1, 0]


@pytest.mark.parametrize("work", [pickle.dumps, copy.copy, copy.deepcopy])
def test_sink_refuses_to_be_pickled(work):
    with (
        Sink(lambda records: None, name="mine") as sink,
        pytest.raises(TypeError, match=r"mine: .*cannot be pickled"),
    ):
        work(sink)


@pytest.mark.parametrize("arguments", [{"capacity": 0}, {"interval": -1}])
def test_argument_out_of_range_is_refused(arguments):
    with pytest.raises(ArgumentError, match="expected a capacity"):
        Sink(lambda records: None, **arguments)


@pytest.mark.parametrize("factory", [jsonl, csv])
def test_only_the_first_process_writes(factory, tmp_path, monkeypatch):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with factory(tmp_path / "here") as sink:
        sink.write(1, {"loss": 1.0})
        assert sink.flush()
    assert (sink.dropped, sink.errors, sink.last_error) == (0, {}, None)
    assert not [*tmp_path.iterdir()]
    with factory(tmp_path / "here", every_process=True) as sink:
        sink.write(1, {"loss": 1.0})
    assert [*tmp_path.iterdir()]


def test_program_that_forgets_to_close_or_forks_loses_nothing(tmp_path):
    code = """
import os, sys
from gradtx.telemetry._jsonl import jsonl
sink = jsonl(sys.argv[1])
for step in range(300):
    sink.write(step, {"loss": 1.0})
child = os.fork()
if not child:
    sink.write(1000, {"loss": 2.0})
    sink.flush(); sink.close()
    os._exit(sink.dropped)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == sink.dropped + 1
"""
    path = tmp_path / "run.jsonl"
    subprocess.run(
        [sys.executable, "-Wignore", "-c", code, path], check=True, timeout=60
    )
    assert [line["step"] for line in read_jsonl(path)] == [*range(300)]


def test_backends_that_hang_delay_the_exit_of_python_once():
    code = """
import threading, time
from gradtx.telemetry import Sink, _worker
assert (_worker._AT_EXIT, _worker._EACH_AT_EXIT) == (10.0, 1.0)
_worker._AT_EXIT, _worker._EACH_AT_EXIT = 2.0, 0.01
kept = Sink(lambda records: print(records[0].step))
sinks = [Sink(lambda records: threading.Event().wait()) for _ in range(5)]
import atexit
for sink in [kept, *sinks]:
    sink.write(1, {})
begin = time.monotonic()
atexit._run_exitfuncs()
spent = time.monotonic() - begin
assert 1.9 < spent < 4, spent
assert [sink.dropped for sink in sinks] == [1] * 5
"""
    done = subprocess.run(
        [sys.executable, "-Wignore", "-c", code],
        check=True,
        timeout=60,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.stdout == "1\n", "the one that does not hang has it all the same"
