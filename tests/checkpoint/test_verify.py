"""What an operator reads: what happened, where, and what to do."""

import os
import re
import shutil
import sys
from typing import Any

import jax.numpy as jnp
import pytest

import gradtx
from gradtx import checkpoint
from gradtx.checkpoint import _arrays, _manifest
from tests.checkpoint._sides import filled, side

TX = gradtx.adam(1e-3)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run of two good steps."""
    run = tmp_path_factory.mktemp("saved")
    for step in (100, 200):
        checkpoint.save(run, step, tx=TX, **filled(side(TX).trees))
    return run


@pytest.fixture
def run(saved, tmp_path):
    """A copy of it to harm."""
    return shutil.copytree(saved, tmp_path / "run")


def largest(step):
    """Return the largest file of arrays."""
    files = [p for p in (step / "arrays").rglob("*") if p.is_file()]
    return max(files, key=lambda p: p.stat().st_size)


def flip(file):
    """Change one bit in the middle of a file."""
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)


def message(run, call, error: Any = gradtx.CheckpointError) -> str:
    """Return what an error says, with the place of the run as RUN."""
    with pytest.raises(error) as caught:
        call()
    text = str(caught.value).replace(str(run), "RUN")
    assert not re.search(r"0x[0-9a-f]{6}", text), "no addresses of memory"
    assert len(text) < 2000
    return text


def restore(run, tx: Any = TX, **arguments):
    now = side(tx)
    return checkpoint.restore(run, **{"tx": tx, **now.trees, **arguments})


def test_a_damaged_newest_step(run):
    file = largest(run / "step_00000200")
    flip(file)
    back = restore(run)
    assert back.step == 100
    ((path, why),) = back.skipped
    assert path == run / "step_00000200"
    assert (
        why == f"{file}: its bytes are not those that were written (SHA-256 differs)."
    )
    text = message(run, lambda: restore(run, step=200), gradtx.DamagedError)
    assert text == why.replace(str(run), "RUN")


def test_no_step_is_good(run):
    for step in (100, 200):
        flip(largest(run / f"step_00000{step}"))
    text = message(run, lambda: restore(run), gradtx.NoCheckpointError)
    first, newer, older = text.splitlines()
    assert first == "RUN: no step is good, of 2."
    assert newer.startswith("  step_00000200: ")
    assert newer.endswith(
        "its bytes are not those that were written (SHA-256 differs)."
    )
    assert older.startswith("  step_00000100: ")


def test_a_step_that_was_cut_off(run):
    file = largest(run / "step_00000200")
    size = file.stat().st_size
    os.truncate(file, size - 10)
    name = file.relative_to(run)
    assert message(run, lambda: restore(run, step=200)) == (
        f"RUN/{name}: {size - 10} bytes, where {size} were written."
    )


def test_a_step_without_its_end(run):
    (run / "step_00000200" / "manifest.json").unlink()
    assert message(run, lambda: restore(run, step=200)) == (
        "RUN/step_00000200: there is no manifest.json. It is no step of gradtx, or was "
        "not written to its end."
    )


def test_a_step_that_was_renamed(run):
    os.rename(run / "step_00000200", run / "step_00000300")
    assert message(run, lambda: restore(run, step=300)) == (
        "RUN/step_00000300: it holds step 200. It was renamed: give it the name that it "
        "had."
    )


def test_another_learning_rate(saved):
    text = message(
        saved, lambda: restore(saved, gradtx.adam(1e-2)), gradtx.MismatchError
    )
    assert text == (
        "RUN/step_00000200: the optimizer is not the one that was saved (then -> now):\n"
        "  hyperparameter learning_rate: 0.001 -> 0.01\n"
        "Give the optimizer of then, or allow_hyperparameters=['learning_rate'] if the "
        "new values are meant. Nothing was read."
    )


def test_another_optimizer(saved):
    other = gradtx.chain(gradtx.clip(1.0), gradtx.adam(1e-3))
    text = message(saved, lambda: restore(saved, other), gradtx.MismatchError)
    assert text == (
        "RUN/step_00000200: the optimizer is not the one that was saved (then -> now):\n"
        "  optimizer: adam(0.001) -> chain(clip(1.0), adam(0.001))\n"
        "Give the optimizer of then, or migrate=True to carry over by name what both "
        "have. Nothing was read."
    )


def test_another_shape(saved):
    shapes = {"enc": {"b": (3,), "w": (4, 3)}, "out": (3, 5)}
    text = message(
        saved, lambda: restore(saved, **side(TX, shapes).trees), gradtx.MismatchError
    )
    assert text == (
        "RUN/step_00000200: the trees are not those that were saved (then -> now):\n"
        "  leaf opt_state.scale_by_adam.mu['out']: float32[3, 2] -> float32[3, 5]\n"
        "  leaf opt_state.scale_by_adam.nu['out']: float32[3, 2] -> float32[3, 5]\n"
        "  leaf params['out']: float32[3, 2] -> float32[3, 5]\n"
        "Give trees like those of then; migrate=True carries states over to another "
        "optimizer. Nothing was read."
    )


def test_many_differences_are_cut_off(saved):
    shapes = {f"layer_{n:03d}": (2,) for n in range(300)}
    text = message(saved, lambda: restore(saved, **side(TX, shapes).trees))
    assert len(text.splitlines()) < 25
    assert re.search(r"and \d{3} more", text)


def test_a_full_disk(saved, tmp_path, monkeypatch):
    class Full:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def save(self, *_, **__):
            raise ValueError("RESOURCE_EXHAUSTED: No space left on device [28]\nmore")

    monkeypatch.setattr(_arrays, "_checkpointer", Full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        checkpoint.save(tmp_path, 300, params={"w": jnp.ones(2)})
    assert "more" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_nothing_there(tmp_path):
    none = message(tmp_path, lambda: restore(tmp_path), gradtx.NoCheckpointError)
    assert none == "RUN: there are no steps."
    none = message(tmp_path, lambda: restore(tmp_path / "x"), gradtx.NoCheckpointError)
    assert none == "RUN/x: No such file or directory."
    with pytest.raises(FileNotFoundError):  # as who looks for files expects
        restore(tmp_path)


def test_orbax_that_reads_other_elements_is_noticed(saved, monkeypatch):
    read = _arrays._checkpointer

    class Wrong:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def restore(self, *arguments, **named):
            with read() as checkpointer:
                found = checkpointer.restore(*arguments, **named)
            return {name: x + x.dtype.type(1) for name, x in found.items()}

    monkeypatch.setattr(_arrays, "_checkpointer", Wrong)
    text = message(saved, lambda: restore(saved), gradtx.DamagedError)
    assert "RUN/step_00000200: opt_state.scale_by_adam.count" in text
    assert "go back to an earlier step" in text


def test_a_missing_orbax_names_the_extra(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r"gradtx\[checkpoint\]"):
        checkpoint.save(saved, 300, params={"w": jnp.ones(2)})
    checkpoint.verify(saved / "step_00000200")  # which needs none


def test_arrays_larger_than_their_files_are_refused_before_they_are_made(run):
    step = run / "step_00000200"
    manifest = _manifest.read_manifest(step)
    leaf = manifest.trees["params"][0]
    object.__setattr__(leaf, "shape", (1 << 40,))
    (step / "manifest.json").write_bytes(_manifest.sealed(manifest, None))
    assert "cannot be in files of" in message(run, lambda: checkpoint.verify(step))


def test_steps_are_listed_by_number_and_only_by_their_exact_names(run):
    (run / "step_1").mkdir()
    (run / "step_000000300").mkdir()
    (run / ".step_00000400.writing.host.1.a").mkdir()
    (run / "step_00000400.0.damaged").mkdir()
    assert list(checkpoint.steps(run)) == [200, 100]
    (run / "step_1000000000").mkdir()
    assert list(checkpoint.steps(run)) == [1000000000, 200, 100]
    good = checkpoint.latest_good(run)
    assert (good.step, len(good.skipped)) == (200, 1)
