"""A save is there as a whole or not at all, for its owner alone, and says what is wrong."""

import os
import stat
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import checkpoint
from gradtx.checkpoint import _save
from tests.checkpoint._sides import assert_same_bits, filled, side

TX = gradtx.adam(1e-3)
TREES = {"w": jnp.arange(6, dtype=jnp.float32).reshape(2, 3)}
save: Any = checkpoint.save


def test_a_step_holds_the_manifest_and_arrays_only(tmp_path):
    trees = filled(side(TX).trees)
    path = save(tmp_path / "new" / "run", 12, tx=TX, updates=7, **trees)
    assert path == tmp_path / "new" / "run" / "step_00000012"
    assert sorted(p.name for p in path.iterdir()) == ["arrays", "manifest.json"]
    assert os.listdir(path.parent) == ["step_00000012"]
    manifest = checkpoint.verify(path, arrays=True)
    assert manifest.counts["batches_consumed"] == 12
    assert manifest.counts["updates_applied"] == 7
    assert manifest.optimizer == gradtx.describe(TX)
    assert {state.name for state in manifest.states} == {
        "ScaleByAdamState",
        "ScaleByScheduleState",
    }
    assert manifest.states[0].fields["nu"] == "per_param"


def test_only_the_owner_may_read_whatever_the_umask_is(tmp_path):
    before = os.umask(0)
    try:
        path = save(tmp_path / "run", 1, params=TREES)
    finally:
        os.umask(before)
    for root, directories, files in os.walk(path.parent):
        modes = {
            stat.S_IMODE(os.stat(os.path.join(root, d)).st_mode) for d in directories
        }
        assert modes <= {0o700}
        modes = {stat.S_IMODE(os.stat(os.path.join(root, f)).st_mode) for f in files}
        assert modes <= {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_step_is_never_written_over(tmp_path):
    path = save(tmp_path, 1, params=TREES)
    before = (path / "manifest.json").read_bytes()
    with pytest.raises(gradtx.CheckpointError, match="step_00000001 is there already"):
        save(tmp_path, 1, params={"w": jnp.zeros(1)})
    assert (path / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    "stage",
    ["write_arrays", "sync_tree", "records_of", "sealed", "write_new", "sync"],
)
def test_what_fails_at_any_stage_leaves_nothing(stage, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    (tmp_path / "step_00000001").mkdir()
    monkeypatch.setattr(_save, stage, fail)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 2, params=TREES)
    assert os.listdir(tmp_path) == ["step_00000001"]


def test_a_disk_that_returns_other_bytes_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(_save, "read_small", lambda path, limit: b"other")
    with pytest.raises(gradtx.CheckpointError, match="the disk returns other bytes"):
        save(tmp_path, 2, params=TREES)
    assert os.listdir(tmp_path) == []


def test_counts_that_contradict_the_states_are_errors(tmp_path):
    trees = filled(side(TX).trees)  # counters stand at 7
    with pytest.raises(gradtx.ArgumentError) as caught:
        save(tmp_path, 8, tx=TX, updates=8, **trees)
    assert "updates=8, and the counters of the states say [7]" in str(caught.value)
    assert "one update too early or too late" in str(caught.value)
    with pytest.raises(gradtx.ArgumentError, match="8 updates of 7 batches"):
        save(tmp_path, 7, updates=8, params=TREES)
    assert os.listdir(tmp_path) == []
    save(tmp_path, 14, tx=TX, updates=7, batches=28, **trees)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "nothing to save: give trees by name"),
        ({"params": "text"}, "params: expected an array or a number, got str"),
        ({"params": {"a": [object()]}}, r"params\['a'\]\[0\]: expected an array"),
        ({"params": np.array(["a"])}, "an array of <U1 cannot be stored"),
        ({"params": np.array([None])}, "an array of object cannot be stored"),
        ({"params": TREES, "record": {"rate": float("nan")}}, "record must be plain"),
        ({"params": TREES, "record": {"data": (1, 2)}}, "give lists for tuples"),
        ({"params": TREES, "record": {1: 2}}, "strings for the keys"),
        ({"params": TREES, "record": object()}, "record must be plain data"),
        ({"params": TREES, "key": b"short"}, "16 bytes or more"),
        ({"params": TREES, "key": jax.random.key(0)}, "another name: rng=key"),
        ({"params": TREES, "batches": -1}, "batches must be 0 or more, got -1"),
        ({"params": TREES, "updates": 1.5}, "updates must be an integer, got 1.5"),
    ],
)
def test_what_cannot_be_saved_is_an_error_before_anything_is_written(
    arguments, told, tmp_path
):
    with pytest.raises(gradtx.ArgumentError, match=told):
        save(tmp_path / "run", 1, **arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("step", [-1, True, 1.0, "1", None, 2**62])
def test_a_step_is_a_whole_number(step, tmp_path):
    with pytest.raises(gradtx.ArgumentError, match="step must be"):
        save(tmp_path / "run", step, params=TREES)


def test_a_record_comes_back_as_it_was(tmp_path):
    record = {
        "seed": 3,
        "data": [1, 2.5, None, True],
        "name": "é\u2028\U0001f600",
    }
    save(tmp_path, np.int64(3), params=TREES, record=record)
    back = checkpoint.restore(tmp_path, params=TREES)
    assert back.record == record
    assert_same_bits(back["params"], TREES)


def test_errors_name_leaves_and_no_values(tmp_path):
    secret = 123.456
    tree = {"w": np.array([secret, "x"], dtype=object)}
    with pytest.raises(gradtx.ArgumentError) as caught:
        save(tmp_path, 1, params=tree)
    assert str(secret) not in str(caught.value)
    save(tmp_path, 1, params={"w": jnp.full(2, secret)})
    with pytest.raises(gradtx.MismatchError) as caught:
        checkpoint.restore(tmp_path, params={"w": jnp.full(3, secret)})
    assert str(secret)[:5] not in str(caught.value)


def test_numbers_of_either_byte_order_come_back(tmp_path):
    tree = {"w": np.array([1.5, -2.0], ">f4"), "n": np.array([3, 4], "<i2")}
    save(tmp_path, 1, params=tree)
    back = checkpoint.restore(tmp_path, params=tree)["params"]
    assert back["w"].tolist() == [1.5, -2.0]
    assert back["n"].tolist() == [3, 4]
