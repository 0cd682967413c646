"""The planted bugs still fit the code, and a few of them are noticed."""

import pathlib
import random

import pytest

import gradtx
from tests.mutants.__main__ import noticed_by
from tests.mutants._bugs import BUGS

ROOT = pathlib.Path(gradtx.__file__).parent
#: All of them take ten minutes: `python -m tests.mutants`.
SAMPLE = random.Random(4).sample(BUGS, 4)


def test_there_are_enough_and_each_fits():
    assert len(set(BUGS)) == len(BUGS) >= 100
    for bug in BUGS:
        assert bug.old in (ROOT / bug.file).read_text(), bug
        assert bug.kit or bug.tests


@pytest.mark.parametrize("bug", SAMPLE, ids=lambda bug: bug.file)
def test_a_planted_bug_is_noticed(bug):
    assert noticed_by(bug)


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.file)
def test_every_planted_bug_is_noticed(bug):
    assert noticed_by(bug)
