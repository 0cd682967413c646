"""The disturbed run ends with the bits of the calm one, and the script would notice."""

import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

ROOT = Path(__file__).parents[2]


def test_a_run_that_is_killed_and_damaged_ends_with_the_same_bits():
    options = ("--steps", "80", "--every", "5", "--kills", "2")
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / "chaos.py"), *options],
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stderr == ""
    assert "identical: 21 arrays" in ran.stdout
    for word in ("SIGKILL", "SIGTERM", "done", "not written to its end"):
        assert word in ran.stdout
    harm = ("flipped a bit of", "cut off", "deleted")
    assert sum(ran.stdout.count(word) for word in harm) == 2


@pytest.fixture(scope="module")
def chaos():
    """The script as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "examples")
        yield importlib.import_module("chaos")


OPTIONS = argparse.Namespace(steps=80, every=5, kills=2, seed=0)


def _start(position, **skipped):
    return {"event": "resumed", "position": position, "skipped": skipped}


def test_a_start_at_another_place_is_noticed(chaos, tmp_path):
    run = chaos.Chaos(OPTIONS, tmp_path)
    run._check(20, [_start(20)])
    with pytest.raises(chaos.Failed, match="went on at 15, where 20 was whole"):
        run._check(20, [_start(15)])
    with pytest.raises(chaos.Failed, match="went on at 0, where 20 was whole"):
        run._check(20, [])


def test_damage_that_nobody_notices_is_noticed(chaos, tmp_path):
    run = chaos.Chaos(OPTIONS, tmp_path)
    run._bad = {"step_00000025": "cut off", "step_00000010": "deleted"}
    run._check(20, [_start(20, step_00000025="12 bytes")])
    with pytest.raises(chaos.Failed, match="nobody noticed that step_00000025"):
        run._check(20, [_start(20)])


def test_a_stop_without_a_checkpoint_is_noticed(chaos, tmp_path):
    run, stop = chaos.Chaos(OPTIONS, tmp_path), {"event": "stopped", "position": 23}
    with pytest.raises(chaos.Failed, match="step_00000023 was not saved"):
        run._check(0, [stop])
    (tmp_path / "step_00000023").mkdir()
    run._check(0, [stop])


def test_one_other_bit_at_the_end_is_noticed(chaos, tmp_path, monkeypatch):
    ends = {"calm": {"params['w']": "a", "mu": "b"}}
    monkeypatch.setattr(chaos, "results", lambda run, step: ends[run.name])
    monkeypatch.setattr(chaos, "calm_accuracy", lambda options, out: 0.9)
    monkeypatch.setattr(chaos.Chaos, "run", lambda self: None)
    with open(tmp_path / "printed", "w") as file:
        console = Console(file=file)
        ends["chaos"] = ends["calm"]
        chaos.compare(OPTIONS, tmp_path, console)
        for other in ({"params['w']": "a", "mu": "c"}, {"params['w']": "a"}):
            ends["chaos"] = other
            with pytest.raises(chaos.Failed, match="these differ: mu"):
                chaos.compare(OPTIONS, tmp_path, console)


def test_a_failed_comparison_is_the_exit_status(chaos, monkeypatch, capsys):
    def fails(*_):
        raise chaos.Failed("no")

    monkeypatch.setattr(sys, "argv", ["chaos.py"])
    monkeypatch.setattr(chaos, "compare", fails)
    assert chaos.main() == 1
    assert "chaos.py: no" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_more_of_it(seed):
    options = ("--steps", "600", "--kills", "15", "--seed", str(seed))
    subprocess.run(
        [sys.executable, str(ROOT / "examples" / "chaos.py"), *options],
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        check=True,
    )
