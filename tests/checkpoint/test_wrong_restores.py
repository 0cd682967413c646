"""Nothing restores into what it was not saved from, and what fits comes back as it was."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gradtx
from gradtx import checkpoint
from tests.checkpoint import wrong_restores
from tests.checkpoint._sides import Side, assert_same_bits

ROOT = Path(__file__).parents[2]
named = lambda rows: [pytest.param(row, id=row.name) for row in rows]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What was saved under a name, and where."""
    folder = tmp_path_factory.mktemp("runs")

    @functools.cache
    def of(name):
        return wrong_restores.saved(name, folder / name), folder / name

    return of


@pytest.fixture
def no_reading(monkeypatch):
    """Fail where an array is read."""

    def read(*_):
        pytest.fail("an array was read")

    monkeypatch.setattr("gradtx.checkpoint._restore.read_arrays", read)


@pytest.mark.parametrize("row", named(wrong_restores.ROWS))
def test_a_wrong_restore_is_refused_before_arrays_are_read(row, runs, no_reading):
    _, run = runs(row.then)
    now = row.now()
    with pytest.raises(gradtx.MismatchError) as caught:
        checkpoint.restore(run, tx=now.tx, **row.arguments, **now.trees)
    message = str(caught.value)
    assert [told for told in row.told if told not in message] == [], message
    assert "step_00000007" in message


@pytest.mark.parametrize("name", wrong_restores.THEN)
def test_what_was_saved_comes_back_bit_for_bit(name, runs):
    then, run = runs(name)
    abstract = wrong_restores.THEN[name]()
    opaque = name in {"raw", "lambda"}
    back = checkpoint.restore(
        run, tx=abstract.tx, allow_opaque=opaque, **abstract.trees
    )
    assert_same_bits(back.trees, then.trees)
    assert {change.kind for change in back.changes} <= {"opaque"}


@pytest.mark.parametrize("row", named(wrong_restores.HYPERPARAMETERS))
def test_an_allowed_hyperparameter_changes_and_nothing_else(row, runs):
    then, run = runs(row.then)
    now = row.now()
    back = checkpoint.restore(
        run, tx=now.tx, allow_hyperparameters=row.allow, **now.trees
    )
    assert_same_bits(back.trees, then.trees)
    assert [change.path for change in back.changes] == list(row.allow)


@pytest.mark.slow
def test_peers_are_silent_where_gradtx_is_not():
    # in a process of its own: what Orbax leaves behind warns at odd times
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "tests.checkpoint.wrong_restores"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *_, ours, orbax, flax, _ = done.stdout.strip().splitlines()[-1].split("|")
    assert int(ours) == 0
    # of the 33 of an earlier count Orbax let 15 pass and Flax 19
    assert int(orbax) >= 15
    assert int(flax) >= 19


def test_the_rows_are_many_and_each_is_another():
    assert len(wrong_restores.ROWS) >= 70
    assert len({row.name for row in wrong_restores.ROWS}) == len(wrong_restores.ROWS)
    assert isinstance(wrong_restores.THEN["adam"](), Side)
