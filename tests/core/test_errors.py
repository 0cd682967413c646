"""The tree of errors."""

import inspect
import pickle

import pytest

import gradtx
from gradtx.core import _errors

ERRORS = [
    value
    for value in vars(_errors).values()
    if inspect.isclass(value) and issubclass(value, gradtx.GradtxError)
]


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_every_error_is_public_documented_and_drawn(cls):
    assert getattr(gradtx, cls.__name__) is cls
    assert cls.__doc__
    assert cls.__name__ in (_errors.__doc__ or "")


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_errors_print_their_link_and_pickle(cls):
    error = pickle.loads(pickle.dumps(cls("w is wrong.", "clip")))
    assert str(error) == "clip: w is wrong."
    assert str(cls("w is wrong.")) == "w is wrong."


def test_errors_are_the_builtin_ones_that_callers_catch():
    assert issubclass(gradtx.MissingArgumentError, ValueError)
    assert issubclass(gradtx.TreeMismatchError, ValueError)
    assert issubclass(gradtx.AxisNameError, NameError)
    assert issubclass(gradtx.DtypeError, TypeError)
