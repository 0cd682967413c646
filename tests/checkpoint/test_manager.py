"""A manager saves beside the training, keeps what it should, and tells what went wrong."""

import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import checkpoint, telemetry
from gradtx.checkpoint import _manager, _save, _steps
from tests.checkpoint._sides import assert_same_bits

TX = gradtx.adam(1e-2)
PARAMS = {"w": jnp.arange(4, dtype=jnp.float32)}


def update(params, state):
    grads = jax.tree.map(lambda p: p - 1, params)
    updates, state = TX.update(grads, state, params)
    return gradtx.apply_updates(params, updates), state


donating = jax.jit(update, donate_argnums=(0, 1))


@pytest.fixture
def manager(tmp_path):
    with checkpoint.Manager(tmp_path, keep=2) as manager:
        yield manager


@pytest.fixture
def no_arrays(monkeypatch):
    """Write an empty directory in place of arrays, where only steps matter."""
    monkeypatch.setattr(_save, "write_arrays", lambda path, _: path.mkdir(mode=0o700))
    monkeypatch.setattr(_save, "read_back", lambda *_: None)
    monkeypatch.setattr("gradtx.checkpoint._verify._check_sizes", lambda *_: None)


def test_the_newest_stay_and_some_for_good(tmp_path, no_arrays):
    with checkpoint.Manager(tmp_path, keep=2, keep_every=10) as manager:
        for step in (0, 4, 8, 10, 14, 18, 22):
            manager.save(step, params=PARAMS)
        manager.wait()
        assert manager.steps() == [22, 18, 10, 0]
    assert sorted(os.listdir(tmp_path)) == [f"step_{n:08d}" for n in (0, 10, 18, 22)]


def test_only_its_turn_is_saved_unless_it_is_forced(tmp_path, no_arrays):
    with checkpoint.Manager(tmp_path, every=5) as manager:
        assert manager.save(3, params=PARAMS) is None
        future = manager.save(5, params=PARAMS)
        assert future is not None
        assert future.result() == tmp_path / "step_00000005"
        assert manager.save(7, force=True, params=PARAMS) is not None
        manager.wait()
        assert manager.steps() == [7, 5]


def test_buffers_may_be_given_away_right_after_save(tmp_path):
    params = {"w": jnp.arange(1 << 16, dtype=jnp.float32)}
    state = TX.init(params)
    begin = params["w"].unsafe_buffer_pointer()
    params, state = donating(params, state)
    assert params["w"].unsafe_buffer_pointer() == begin  # or nothing is tested here
    wanted = jax.tree.map(lambda x: x.copy(), (params, state))
    go = threading.Event()

    def held(path, values):
        go.wait(30)
        write(path, values)

    write = _save.write_arrays
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_save, "write_arrays", held)
        with checkpoint.Manager(tmp_path, tx=TX) as manager:
            manager.save(1, updates=1, params=params, opt_state=state)
            for _ in range(3):  # overwrites the buffers that are being saved
                params, state = donating(params, state)
            go.set()
            manager.wait()
            back = manager.restore(params=params, opt_state=state)
    assert_same_bits((back["params"], back["opt_state"]), wanted)
    assert back.counts["states"]["opt_state.scale_by_adam.count"] == 1


def test_arrays_of_numpy_may_be_changed_right_after_save(tmp_path):
    numbers = np.arange(3.0)
    with checkpoint.Manager(tmp_path) as manager:
        manager.save(1, params=numbers)
        numbers[:] = -1
        back = manager.restore(params=numbers)
    assert back["params"].tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("call", ["save", "wait", "close", "restore", "latest_good"])
def test_what_went_wrong_in_the_thread_is_raised_by_the_next_call(
    call, tmp_path, monkeypatch
):
    manager = checkpoint.Manager(tmp_path)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_save, "write_arrays", fail)
    manager.save(1, params=PARAMS)
    arguments = {"save": (2,)}.get(call, ())
    trees: Any = {"params": PARAMS} if call in ("save", "restore") else {}
    with pytest.raises(OSError, match="No space left"):
        getattr(manager, call)(*arguments, **trees)
    assert manager.steps() == []
    manager.close()  # it was told once


def test_the_first_error_in_the_block_is_the_one_to_see(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("of the thread")

    monkeypatch.setattr(_save, "write_arrays", fail)

    def train():
        with checkpoint.Manager(tmp_path) as manager:
            manager.save(1, params=PARAMS)
            raise KeyError("of the loop")

    with pytest.raises(KeyError, match="of the loop"):
        train()


def test_errors_of_arguments_are_raised_at_once(manager):
    with pytest.raises(gradtx.ArgumentError, match="expected an array"):
        manager.save(1, params="text")
    with pytest.raises(gradtx.ArgumentError, match="nothing to save"):
        manager.save(1)
    make: Any = checkpoint.Manager
    for arguments in ({"keep": 0}, {"every": 0}, {"keep_every": 0}, {"key": b"x"}):
        with pytest.raises(gradtx.ArgumentError):
            make(manager.directory, **arguments)


def test_a_damaged_step_of_the_same_number_is_moved_aside(manager, tmp_path):
    manager.save(1, params=PARAMS)
    manager.wait()
    with pytest.raises(gradtx.CheckpointError, match="is there already"):
        manager.save(1, params=PARAMS)
    (tmp_path / "step_00000001" / "manifest.json").write_bytes(b"damaged")
    other = {"w": PARAMS["w"] + 1}
    manager.save(1, params=other)
    manager.wait()
    assert_same_bits(manager.restore(params=PARAMS)["params"], other)
    assert manager.steps() == [1]
    (aside,) = tmp_path.glob("step_00000001.*.damaged")
    assert (aside / "manifest.json").read_bytes() == b"damaged"


def test_a_newer_damaged_step_is_skipped_and_told(manager, tmp_path):
    for step in (1, 2):
        manager.save(step, params=PARAMS)
    manager.wait()
    (tmp_path / "step_00000002" / "manifest.json").write_bytes(b"damaged")
    good = manager.latest_good()
    assert good is not None
    assert good.step == 1
    back = manager.restore(params=PARAMS)
    assert back.step == 1
    ((path, why),) = back.skipped
    assert path.name == "step_00000002"
    assert "expected two lines" in why
    with pytest.raises(gradtx.DamagedError):
        manager.restore(step=2, params=PARAMS)


def test_a_run_that_goes_back_leaves_newer_steps_beside(tmp_path):
    manager = checkpoint.Manager(tmp_path, keep=3)
    for step in (1, 2, 3):
        manager.save(step, params=PARAMS)
    manager.wait()
    (tmp_path / "step_00000003" / "manifest.json").write_bytes(b"damaged")
    assert manager.restore(step=1, params=PARAMS).step == 1
    assert manager.steps() == [3, 2, 1]  # reading changes nothing
    manager.save(2, params=PARAMS)
    manager.wait()
    assert manager.steps() == [2, 1]
    (damaged,) = tmp_path.glob("*.damaged")
    (abandoned,) = tmp_path.glob("*.abandoned")
    assert damaged.name.startswith("step_00000003.")
    assert abandoned.name.startswith("step_00000002.")
    checkpoint.verify(abandoned)
    manager.close()


def test_damaged_newer_steps_do_not_cost_the_good_ones(tmp_path, no_arrays):
    with checkpoint.Manager(tmp_path, keep=1, background=False) as manager:
        manager.save(5, params=PARAMS)
        manager.save(9, params=PARAMS)
        (tmp_path / "step_00000009" / "manifest.json").write_bytes(b"damaged")
        with pytest.raises(gradtx.NoCheckpointError):
            manager.restore(params=PARAMS)
    with checkpoint.Manager(tmp_path, keep=1, background=False) as manager:
        with pytest.raises(gradtx.CheckpointError, match="Restore with this manager"):
            manager.save(6, params=PARAMS)
        assert manager.steps() == [9]


def test_a_new_run_among_the_steps_of_another_is_refused(tmp_path):
    with checkpoint.Manager(tmp_path, background=False) as manager:
        manager.save(7, params=PARAMS)
    with checkpoint.Manager(tmp_path, background=False) as manager:
        with pytest.raises(gradtx.CheckpointError, match="step_00000007 is there"):
            manager.save(1, params=PARAMS)
        manager.restore(params=PARAMS)
        manager.save(8, params=PARAMS)
        assert manager.steps() == [8, 7]


def test_a_run_without_steps_has_none(manager):
    assert manager.latest_good() is None
    assert manager.steps() == []
    with pytest.raises(gradtx.NoCheckpointError, match="there are no steps"):
        manager.restore(params=PARAMS)


def test_leftovers_go_unless_their_process_lives_or_is_elsewhere(tmp_path, monkeypatch):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    final = tmp_path / "step_00000003"
    made = {
        "gone": _steps.hidden_path(final, "writing", 1),
        "removing": _steps.hidden_path(final, "removing", 2),
        "living": _steps.hidden_path(final, "writing", 3),
        "mine": _steps.hidden_path(final, "writing", 5),
        "of my number": _steps.hidden_path(final, "writing", 6),
        "elsewhere": _steps.hidden_path(final, "writing", 4),
        "other": final.with_name(".step_00000003.other"),
    }
    # the number of a process comes again in each container
    monkeypatch.setattr(_steps, "WRITING", {made["mine"].name})
    for name, process in (
        ("gone", gone.pid),
        ("removing", gone.pid),
        ("living", os.getppid()),
    ):
        text = made[name].name.replace(f".{os.getpid()}.", f".{process}.")
        made[name] = made[name].with_name(text)
    host = made["elsewhere"].name.split(".")[3]
    text = made["elsewhere"].name.replace(f".{host}.", ".elsewhere.")
    made["elsewhere"] = made["elsewhere"].with_name(
        text.replace(f".{os.getpid()}.", f".{gone.pid}.")
    )
    for path in made.values():
        (path / "arrays").mkdir(parents=True)
    checkpoint.Manager(tmp_path).close()
    assert {name for name, path in made.items() if path.exists()} == {
        "living",
        "mine",
        "elsewhere",
        "other",
    }
    assert checkpoint.steps(tmp_path) == {}


def test_a_signal_sets_stopping_and_a_second_does_what_it_did(tmp_path, no_arrays):
    got = []
    before = signal.signal(signal.SIGUSR1, lambda *_: got.append("before"))
    try:
        with checkpoint.Manager(tmp_path, every=100) as manager:
            with manager.preemption([signal.SIGUSR1]) as same:
                assert same is manager
                assert not manager.stopping
                assert manager.save(7, params=PARAMS) is None
                os.kill(os.getpid(), signal.SIGUSR1)
                assert manager.stopping
                assert manager.stop_at(7)
                assert got == []
                assert manager.save(7, params=PARAMS) is not None
                os.kill(os.getpid(), signal.SIGUSR1)
                assert got == ["before"]
            os.kill(os.getpid(), signal.SIGUSR1)
            assert got == ["before"] * 2
            manager.wait()
            assert manager.steps() == [7]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_defaults_of_the_manager_are_those_of_its_restores(tmp_path):
    key, state = b"k" * 16, TX.init(PARAMS)
    with checkpoint.Manager(tmp_path, tx=TX, key=key, background=False) as manager:
        manager.save(3, params=PARAMS, opt_state=state, record="here", batches=6)
        back = manager.restore(params=PARAMS, opt_state=state)
        assert (back.record, back.counts["batches_consumed"]) == ("here", 6)
        with pytest.raises(gradtx.NoCheckpointError, match="another key"):
            manager.restore(key=b"o" * 16, params=PARAMS)
        with pytest.raises(gradtx.MismatchError, match="learning_rate"):
            manager.restore(tx=gradtx.adam(1.0), params=PARAMS, opt_state=state)
        manager.restore(
            tx=gradtx.adam(1.0),
            allow_hyperparameters="learning_rate",
            params=PARAMS,
            opt_state=state,
        )
    checkpoint.verify(tmp_path / "step_00000003", key=key)


def test_saves_and_restores_can_be_timed_and_counted(tmp_path, monkeypatch):
    written = tmp_path / "metrics.jsonl"
    with (
        telemetry.Recorder([telemetry.jsonl(written)]) as recorder,
        checkpoint.Manager(tmp_path / "run", watch=recorder.checkpoint) as manager,
    ):
        manager.save(1, params=PARAMS)
        manager.restore(params=PARAMS)
        monkeypatch.setattr(_manager.Plan, "write", lambda *_: 1 / 0)
        manager.save(2, params=PARAMS)
        with pytest.raises(ZeroDivisionError):
            manager.wait()
    lines = map(json.loads, written.read_text().splitlines())
    last = {name: value for line in lines for name, value in line.items()}
    assert last["checkpoint_saves"] == 1
    assert last["checkpoint_restores"] == 1
    assert last["checkpoint_failures"] == 1
    assert 0 < last["checkpoint_seconds"] < 60


def test_one_save_waits_for_the_one_before(tmp_path, no_arrays, monkeypatch):
    active, most = [], []
    write = _manager.Plan.write

    def slowly(plan, directory):
        active.append(plan.step)
        most.append(len(active))
        try:
            return write(plan, directory)
        finally:
            active.remove(plan.step)

    monkeypatch.setattr(_manager.Plan, "write", slowly)
    with checkpoint.Manager(tmp_path, keep=9) as manager:
        for step in range(4):
            manager.save(step, params=PARAMS)
    assert most == [1, 1, 1, 1]
