"""A shell shows what is in a step, finds damage, and compares two."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

import gradtx
from gradtx import checkpoint
from gradtx.checkpoint import __main__ as program
from tests.checkpoint._sides import filled, side

KEY = b"k" * 32
TX = gradtx.adam(1e-3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps, of which the newer is signed and of another rate."""
    path = tmp_path_factory.mktemp("run")
    trees = filled(side(TX).trees)
    checkpoint.save(path, 1, tx=TX, updates=7, batches=7, record={"seed": 3}, **trees)
    other = gradtx.adam(1e-2)
    trees["params"]["out"] += 1
    checkpoint.save(path, 2, tx=other, key=KEY, **trees)
    return path


def test_describe_says_what_is_in_the_newest_step(run, capsys):
    assert program.main(["describe", str(run)]) == 0
    text = capsys.readouterr().out
    for line in (
        f"step 2 in {run / 'step_00000002'}",
        "optimizer   adam(0.01)",
        "signed; not checked here, not encrypted",
        "x64 off",
        "opt_state: 9 leaves, 180 B",
        ".scale_by_adam.count  int32[] = 7",
        "['enc']['w']  float32[4, 3]",
    ):
        assert line in text
    assert program.main(["describe", str(run / "step_00000001")]) == 0
    text = capsys.readouterr().out
    assert "counts      batches_consumed 7, updates_applied 7" in text
    assert "not signed" in text
    assert '"seed": 3' in text


def test_verify_tells_of_each_step(run, capsys, tmp_path):
    assert program.main(["verify", "--arrays", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:19] for line in lines] == [
        "good  step_00000002",
        "good  step_00000001",
    ]
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "step_00000002" / "manifest.json").write_bytes(b"")
    assert program.main(["verify", str(copy)]) == 1
    bad, good = capsys.readouterr().out.splitlines()
    assert bad.startswith("BAD   step_00000002: ")
    assert "manifest.json" in bad
    assert good.startswith("good  step_00000001")
    assert program.main(["verify", str(copy / "step_00000001")]) == 0
    (copy / "step_00000001" / "manifest.json").unlink()
    assert program.main(["verify", str(copy / "step_00000001")]) == 1


def test_verify_checks_signatures_with_the_key_of_a_file(run, capsys, tmp_path):
    (tmp_path / "key").write_bytes(KEY)
    step = str(run / "step_00000002")
    assert program.main(["verify", "--key-file", str(tmp_path / "key"), step]) == 0
    (tmp_path / "key").write_bytes(b"o" * 32)
    assert program.main(["verify", "--key-file", str(tmp_path / "key"), step]) == 1
    assert "another key" in capsys.readouterr().out
    assert program.main(["verify", "--key-file", str(tmp_path / "none"), step]) == 2


def test_diff_says_how_two_steps_differ(run, capsys):
    one, two = (str(run / f"step_0000000{n}") for n in (1, 2))
    assert program.main(["diff", one, one]) == 0
    assert capsys.readouterr().out == ""
    assert program.main(["diff", one, two]) == 1
    text = capsys.readouterr().out
    assert "hyperparameter learning_rate: 0.001 -> 0.01" in text
    assert "counts.step: 1 -> 2" in text
    assert "params['out']: float32[3, 2] (" in text
    assert "params['enc']" not in text
    assert '{"seed": 3} -> null' in text


def test_what_is_no_run_is_told_on_the_error_stream(tmp_path, capsys):
    assert program.main(["describe", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err
    assert program.main(["verify", str(tmp_path)]) == 2
    assert "there are no steps" in capsys.readouterr().err
    (tmp_path / "step_00000001").mkdir()
    assert program.main(["describe", str(tmp_path)]) == 2
    assert "manifest.json" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        program.main(["mend", str(tmp_path)])


def test_it_runs_in_a_process_of_its_own(run):
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "gradtx.checkpoint", "verify", str(run)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("good") == 2


def test_arrays_that_are_not_numbers_are_shown_by_kind(tmp_path):
    path = checkpoint.save(tmp_path, 0, epoch=3, empty=jnp.zeros((0, 2)))
    text = checkpoint.describe(path)
    assert "int of int64[]" in text
    assert "float32[0, 2]" in text
    assert "optimizer   none" in text


def test_texts_of_a_file_do_not_steer_a_terminal(tmp_path, capsys):
    checkpoint.save(tmp_path, 1, params={"\x1b[2J\u202e\ud800w": jnp.zeros(1)})
    assert program.main(["describe", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.replace("\n", "").isprintable()
    assert r"\x1b[2J" in text
