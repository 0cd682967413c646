"""A recorder times steps, smooths losses, counts checkpoints, and never gets in the way."""

import math
import pickle
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import ArgumentError
from gradtx.telemetry import (
    METRICS,
    Histogram,
    Recorder,
    Sink,
    bin_edges,
    read_jsonl,
)


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Kept:
    """A sink's records, as step and values."""

    def __init__(self):
        self.records = []
        self.sink = Sink(self.records.extend)

    @property
    def steps(self):
        return [record.step for record in self.records]

    def of(self, name):
        return [r.values[name] for r in self.records if name in r.values]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def kept():
    kept = Kept()
    yield kept
    kept.sink.close()


def test_every_sink_gets_every_record(kept):
    other = Kept()
    with Recorder([kept.sink, other.sink]) as recorder:
        for step in range(5):
            recorder.record(step, {"gradient_norm": jnp.float32(step)}, loss=1.0)
        assert recorder.flush()
        assert kept.steps == [0, 1, 2, 3, 4]
    assert kept.of("gradient_norm") == [0, 1, 2, 3, 4]
    assert kept.records == other.records
    assert kept.records[0].time == pytest.approx(time.time(), abs=60)
    assert recorder.dropped == 0
    kept.sink.write(6, {})
    assert kept.sink.dropped == 1, "it was closed with the recorder"


def test_names_are_those_of_the_table(kept, clock):
    recorder = Recorder(
        [kept.sink],
        clock=clock,
        target=("loss", 2.0),
        optimizer_seconds=0.1,
        state_bytes=64,
    )
    with recorder:
        recorder.record(1, loss=1.0)
        with recorder.checkpoint():
            clock.now += 1
        clock.now += 1
        recorder.record(2, loss=1.0, validation_loss=1.0)
    names = {name for record in kept.records for name in record.values}
    assert names <= {*METRICS}
    first = list(METRICS).index("loss")
    assert names == {*[*METRICS][first:]}, "all that are of the host"


def test_step_time_is_the_mean_since_the_last_record(kept, clock):
    with Recorder([kept.sink], every=3, clock=clock, optimizer_seconds=0.5) as recorder:
        for step in range(1, 10):
            recorder.record(step)
            clock.now += 1.0 if step < 6 else 4.0
    assert kept.steps == [3, 6, 9]
    assert kept.of("step_seconds") == [1.0, 1.0, 4.0]
    assert kept.of("steps_per_second") == [1.0, 1.0, 0.25]
    assert kept.of("optimizer_share") == [0.5, 0.5, 0.125]


def test_first_record_has_no_step_time(kept, clock):
    with Recorder([kept.sink], clock=clock) as recorder:
        recorder.record(0)
        clock.now += 2
        recorder.record(1)
        recorder.record(2)  # within the same tick: no time, no division by zero
    assert kept.of("step_seconds") == [2.0]
    assert kept.steps == [0, 1, 2]


def test_smoothed_loss_is_the_weighted_mean_of_all_losses(kept):
    rng = np.random.default_rng(0)
    losses = rng.normal(size=1000)
    with Recorder([kept.sink], every=500, smoothing=0.9) as recorder:
        for step, loss in enumerate(losses):
            recorder.record(step, loss=jnp.float32(loss))
    weights = 0.9 ** np.arange(1000)[::-1]
    for count, smoothed in zip((500, 1000), kept.of("loss_smoothed"), strict=True):
        used = weights[1000 - count :]
        mean = (used * np.float32(losses[:count])).sum() / used.sum()
        assert smoothed == pytest.approx(mean, rel=1e-12)


def test_constant_loss_is_its_own_mean_and_nonfinite_ones_do_no_harm(kept):
    losses = [math.nan, 2.0, math.nan, math.inf, 2.0, -math.inf, 2.0]
    with Recorder([kept.sink]) as recorder:
        for step, loss in enumerate(losses):
            recorder.record(step, loss=loss)
    assert "loss_smoothed" not in kept.records[0].values
    assert kept.of("loss_smoothed") == pytest.approx([2.0] * 6)
    np.testing.assert_array_equal(kept.of("loss"), losses)


@pytest.mark.parametrize(
    ("target", "direction", "met"),
    [
        (("loss", 0.5), "below", 103.0),
        (("accuracy", 0.5), "above", 104.0),
        (("loss", 0.0), "below", None),
    ],
)
def test_time_to_the_target(target, direction, met, kept, clock):
    recorder = Recorder(
        [kept.sink], every=2, target=target, direction=direction, clock=clock
    )
    with recorder:
        clock.now = 101.0
        for loss in (math.nan, 0.9, 0.5, 0.4, 0.9, 0.1):  # at 101, 102, …
            recorder.record(0, loss=loss, accuracy=1 - loss)
            clock.now += 1
    expected = [] if met is None else [met - 100.0] * 2
    assert kept.of("seconds_to_target") == expected


#: What a checkpoint is of, and how long it takes here.
CHECKPOINTS: list[tuple[Any, int]] = [
    ("save", 3),
    ("save", 5),
    ("restore", 7),
    ("verify", 9),
]


def test_checkpoints_are_timed_counted_and_written_at_once(kept, clock):
    with Recorder([kept.sink], every=1000, clock=clock) as recorder:
        recorder.record(1, loss=1.0)
        assert not kept.records
        for what, seconds in CHECKPOINTS:
            with recorder.checkpoint(what):
                clock.now += seconds
            assert recorder.flush()
        assert kept.of("checkpoint_saves") == [1, 2, 2, 2]
        assert kept.of("checkpoint_restores") == [0, 0, 1, 1]
        assert kept.of("checkpoint_seconds") == [3.0, 5.0, 5.0, 5.0]
        assert kept.of("checkpoint_age_seconds") == [0.0, 0.0, 7.0, 16.0]
        assert kept.of("checkpoint_failures") == [0, 0, 0, 0]
        assert kept.steps == [1, 1, 1, 1]


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_failed_save_raises_and_is_written(error, kept, clock):
    with Recorder([kept.sink], clock=clock) as recorder:
        with recorder.checkpoint("save"):
            pass
        clock.now += 60
        with pytest.raises(type(error)), recorder.checkpoint("save"):
            raise error
    assert kept.of("checkpoint_failures") == [0, 1]
    assert kept.of("checkpoint_saves") == [1, 1]
    assert kept.of("checkpoint_age_seconds") == [0.0, 60.0]


def test_time_in_checkpoints_is_no_step_time(kept, clock):
    with Recorder([kept.sink], clock=clock) as recorder:
        recorder.record(1)
        clock.now += 1
        with recorder.checkpoint():
            clock.now += 30

        def elsewhere():
            with recorder.checkpoint():
                clock.now += 1  # a save in another thread, beside the step

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        recorder.record(2)
    assert kept.of("step_seconds") == [2.0]


def test_unknown_checkpoint_is_refused(kept):
    with (
        Recorder([kept.sink]) as recorder,
        pytest.raises(ArgumentError, match=r"expected one of .*got 'load'"),
        recorder.checkpoint("load"),  # pyright: ignore[reportArgumentType]
    ):
        pass


def test_write_does_not_wait_for_its_turn(kept):
    with Recorder([kept.sink], every=100, state_bytes=12) as recorder:
        recorder.record(7)
        recorder.write(7, validation_loss=0.25)
    assert kept.of("validation_loss") == [0.25]
    assert kept.of("state_bytes") == [12]


def test_state_is_read_and_may_be_donated_at_once(kept):
    @jax.jit
    def made():
        return {"count": jnp.int32(0), "counts": jnp.zeros(514, jnp.int32)}

    def update(state):
        return jax.tree.map(lambda x: x + 1, state)

    def read(state):
        return {"updates": state["count"], "gradient_histogram": state["counts"]}

    def finish(raw):
        return {
            **raw,
            "gradient_histogram": Histogram(raw["gradient_histogram"], edges),
        }

    edges = bin_edges()
    state, step = made(), jax.jit(update, donate_argnums=0)
    with Recorder([kept.sink], read=read, finish=finish) as recorder:
        for _ in range(20):
            old = state
            recorder.record(state["count"], state, loss=state["count"])
            state = step(state)
            assert old["count"].is_deleted()
    assert recorder.dropped == 0, recorder.last_error
    assert kept.of("updates") == kept.steps == [*range(20)]
    assert [h.counts.sum() for h in kept.of("gradient_histogram")] == [
        514 * n for n in range(20)
    ]


def test_arrays_on_several_devices_are_copied(kept):
    first, *_, last = jax.devices()
    mesh = jax.make_mesh((8,), ("data",))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    values = {
        "a": jax.device_put(1.0, first),
        "b": jax.device_put(2.0, last),
        "c": jax.device_put(3.0, everywhere),
    }
    with Recorder([kept.sink]) as recorder:
        recorder.record(1, values)
        for value in values.values():
            value.delete()
    assert [kept.of(name) for name in "abc"] == [[1.0], [2.0], [3.0]]


@jax.jit
def slow(x):
    """Return x once some tenths of a second of work are done."""
    work = jax.lax.fori_loop(0, 150, lambda _, m: jnp.sin(m @ m), jnp.ones((400, 400)))
    return x + 0 * work[0, 0]


def test_recording_does_not_wait_for_the_device(kept):
    slow(jnp.float32(1)).block_until_ready()
    with Recorder([kept.sink]) as recorder:
        recorder.record(0, {"norm": jnp.float32(1)}, loss=jnp.float32(1))
        value = slow(jnp.float32(2))
        assert not value.is_ready()
        recorder.record(1, {"norm": value}, loss=value)
        assert not value.is_ready()
    assert kept.of("norm") == [1.0, 2.0]


def test_nothing_raises_into_the_training(kept):
    def read(state):
        raise RuntimeError("no such state")

    with Recorder([kept.sink], read=read) as recorder:
        recorder.record(1, object(), loss=1.0)
        assert "no such state" in str(recorder.last_error)
        recorder.record(2, loss=2.0)
    assert recorder.dropped == 1
    assert kept.steps == [2]
    kept = Kept()
    with Recorder([kept.sink]) as recorder:
        recorder.record(1, 3)
        recorder.record(2, loss=object(), good=1.0)
        jax.jit(lambda x: recorder.record(3, loss=x))(jnp.float32(1))
        jax.jit(lambda x: recorder.write(3, loss=x))(jnp.float32(1))
        recorder.record(4, loss=1.0)
    assert kept.steps == [2, 4]
    assert kept.of("good") == [1.0]
    assert recorder.dropped >= 4
    kept = Kept()
    finish: Any = lambda raw: 1 / 0
    with Recorder([kept.sink], finish=finish) as recorder:
        recorder.record(1, gradtx.sgd(0.1).init(jnp.zeros(1)), good=1.0)
    assert (kept.of("good"), recorder.dropped) == ([1.0], 1)
    assert "division" in str(recorder.last_error)


def test_handler_of_a_signal_may_record_wherever_the_loop_is(kept):
    with Recorder([kept.sink]) as recorder:
        recorder.record(1, loss=1.0)

        def interrupted():
            with recorder._lock, recorder.checkpoint("save"):
                recorder.record(2, loss=2.0)

        thread = threading.Thread(target=interrupted, daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive(), "it waits for a lock that it holds itself"
    assert kept.steps == [1, 2, 2]


def test_values_keep_their_order_and_each_sink_has_its_own(kept):
    other = Kept()

    def spoil(records):
        for record in records:
            record.values.clear()

    with Recorder([Sink(spoil), kept.sink, other.sink]) as recorder:
        recorder.record(1, {"z": jnp.float32(1), "b": 2, 3: "x"}, a=4.0)
    assert [*kept.records[0].values][:4] == ["z", "b", "3", "a"]
    assert kept.records == other.records
    assert recorder.dropped == 0


def test_sinks_are_told_that_the_training_failed(kept):
    with pytest.raises(ZeroDivisionError), Recorder([kept.sink]) as recorder:
        recorder.record(1, loss=1 / 0)
    assert kept.sink.failed
    assert not Kept().sink.failed


def test_drops_of_sinks_are_reported_in_the_records_of_others(kept):
    def fail(records):
        raise OSError("disk full")

    bad = Sink(fail)
    with Recorder([bad, kept.sink]) as recorder:
        for step in range(4):
            recorder.record(step)
            assert recorder.flush()
    assert kept.of("dropped_writes") == [0, 1, 2, 3]
    assert recorder.dropped == 4


def test_hanging_sink_delays_neither_steps_nor_other_sinks(kept):
    release = threading.Event()
    hanging = Sink(lambda records: release.wait(), capacity=5)
    recorder = Recorder([hanging, kept.sink])
    try:
        spent = []
        for step in range(200):
            start = time.perf_counter()
            recorder.record(step, loss=1.0)
            spent.append(time.perf_counter() - start)
        assert np.quantile(spent, 0.9) < 1e-3
        start = time.perf_counter()
        recorder.close(timeout=0.5)
        assert time.perf_counter() - start < 3
        assert kept.steps == [*range(200)]
        assert recorder.dropped == hanging.dropped == 200
    finally:
        release.set()


def test_losses_between_rare_records_do_not_pile_up(kept):
    with Recorder([kept.sink], every=10_000) as recorder:
        for step in range(9_999):
            recorder.record(step, loss=1.0)
        assert len(recorder._losses) < 256
        recorder.record(9_999, loss=3.0)
    assert kept.of("loss_smoothed") == pytest.approx([1.04], rel=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [{"every": 0}, {"smoothing": 1.0}, {"direction": "down"}, {"sinks": [print]}],
)
def test_argument_out_of_range_is_refused(arguments):
    with pytest.raises(ArgumentError):
        Recorder(**{"sinks": [], **arguments})


def test_one_sink_outside_of_a_list_is_refused(kept):
    with pytest.raises(ArgumentError, match="expected a sequence of sinks"):
        Recorder(kept.sink)


def test_recorder_refuses_to_be_pickled():
    with Recorder([]) as recorder, pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(recorder)


TWO = """
import sys, jax
rank, port, path = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank)
import numpy as np
from gradtx.telemetry import Recorder, jsonl
everywhere = jax.NamedSharding(jax.make_mesh((4,), ("data",)), jax.P())
state = jax.device_put(np.float32(0), everywhere)
step = jax.jit(lambda state: state + 1, donate_argnums=0)
with Recorder([jsonl(path)]) as recorder:
    for number in range(3):
        recorder.record(number, loss=state)
        state = step(state)
    if not rank:
        recorder.record(3, loss=state)  # the other process takes no part
assert recorder.dropped == 0, recorder.last_error
"""


def test_first_of_two_processes_writes_what_both_hold(tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    path = tmp_path / "run.jsonl"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, str(rank), port, path],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [worker.communicate(timeout=60)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], said
    lines = read_jsonl(path)
    assert [(line["step"], line["loss"]) for line in lines] == [
        (number, float(number)) for number in range(4)
    ]
