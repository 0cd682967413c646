"""optax's names, signatures and tests with gradtx in their place, and the page of it."""

from __future__ import annotations

import importlib
import inspect
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import pytest

import gradtx
from tests.optimizers.test_against_optax import keyword_only, positional
from tests.parity import report

#: optax's public namespaces; what they take from Python itself is left out.
SPACES = (
    "",
    ".assignment",
    ".contrib",
    ".losses",
    ".microbatching",
    ".perturbations",
    ".projections",
    ".schedules",
    ".second_order",
    ".transforms",
    ".tree",
    ".tree_utils",
)
FOREIGN = {"functools", "typing"}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_public_name_of_optax_is_there(space):
    theirs = importlib.import_module(f"optax{space}")
    ours: Any = importlib.import_module(f"gradtx{space}")
    names = {n for n in dir(theirs) if not n.startswith("_")} - FOREIGN
    assert not {n for n in names if not hasattr(ours, n)}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_contributed_optimizers_have_optax_s_arguments():
    contrib: Any = importlib.import_module("optax.contrib")
    for name, theirs in vars(contrib).items():
        if not inspect.isfunction(theirs):
            continue
        ours = inspect.signature(getattr(gradtx.contrib, name)).parameters
        wanted = inspect.signature(theirs).parameters
        names = [[n for n, _ in positional(of)] for of in (ours, wanted)]
        assert names[0] == names[1], name
        assert set(keyword_only(wanted)) <= set(keyword_only(ours)), name


def test_optax_s_own_tests_pass():
    # small files of several kinds; the page has the result of all
    files = [
        "_src/lookahead_test.py",
        "_src/update_test.py",
        "contrib/_complex_valued_test.py",
        "contrib/_reduce_on_plateau_test.py",
        "contrib/_sam_test.py",
        "transforms/_accumulation_test.py",
        "transforms/_conditionality_test.py",
    ]
    root = pathlib.Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-m", "tests.parity.run", *files, "-q"],
        cwd=root,
        env=os.environ | {"PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-2000:]
    assert re.search(r"\d\d+ passed", ran.stdout)


def test_the_page_has_a_row_for_every_case_and_the_words_of_every_docstring():
    text = report.PAGE.read_text()
    for form in report.forms():
        assert f"| `{form}` |" in text, form
    for name, words in report.differences().items():
        assert f"| `{name}` | {report._cell(words)} |" in text, name


def test_the_page_says_no_error_above_what_the_tests_allow():
    rows = re.findall(r"^\| `(\w+\(.*\))` \| (.+) \| (.+) \| (.+) \|$", _page(), re.M)
    assert len(rows) == len(report.forms())
    for form, numpy, optax, torch in rows:
        # optax computes a few scalars in float32; see the cases
        worst = 1e-6 if form.startswith(("adafactor", "mad", "momo")) else 1e-12
        assert float(numpy) <= 1e-12, form
        assert all(float(x) <= worst for x in (optax, torch) if x != "—"), form


def test_at_least_98_percent_of_optax_s_tests_pass():
    passed, ran = map(int, re.findall(r"place: (\d+) of (\d+) pass", _page())[0])
    assert passed >= 0.98 * ran


def _page():
    return report.PAGE.read_text()
