"""The command runs, and writes what it says it writes."""

import importlib
import json

import pytest

from benchmarks import _report
from benchmarks.__main__ import SCENARIOS, main


def test_results_are_written(lenient, tmp_path, capsys):
    choice = ["--only", "step,program", "--trees", "mlp", "--optimizers", "sgd"]
    assert main(["--quick", *choice, "--out", str(tmp_path)]) == 0
    assert "÷ optax" in capsys.readouterr().out
    result = json.loads((tmp_path / "quick.json").read_text())
    subjects = {row["subject"] for row in result["scenarios"]["step"]["rows"]}
    assert {"gradtx", "optax", "limit"} <= subjects
    assert {"python", "jax", "jaxlib", "gradtx", "optax", "torch"} <= set(
        result["versions"]
    )
    assert result["machine"]["cores"] >= 1
    assert (tmp_path / "quick.png").stat().st_size > 10_000
    assert "| tree | optimizer |" in (tmp_path / "quick.md").read_text()


def test_unknown_names_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--only", "steps"])
    assert "there are step, program" in capsys.readouterr().err


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios_say_what_they_are(name):
    scenario = importlib.import_module(f"benchmarks.{name}")
    note = scenario.note() if hasattr(scenario, "note") else scenario.NOTE
    assert scenario.TITLE
    assert note.endswith(".")
    assert callable(scenario.run)


def test_table_has_a_column_for_each_subject_and_its_ratios():
    rows = [
        {"measure": "step", "unit": "ms", "tree": "t", "subject": s, "value": v}
        for s, v in (("optax", 4.0), ("gradtx", 2.0))
    ]
    [(heading, lines)] = _report.tables(rows)
    assert heading == "step, ms"
    assert lines == [
        ["tree", "gradtx", "optax", "gradtx ÷ optax"],
        ["t", "2", "4", "0.50"],
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (12, "12"), (1234.5, "1,234"), (0.1234, "0.123"), (2e-5, "2e-05")],
)
def test_numbers_have_three_figures(value, shown):
    assert _report.number(value) == shown
