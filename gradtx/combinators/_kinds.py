"""Tell which arguments of a factory are numbers, and which functions are schedules."""

from __future__ import annotations

import inspect
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import Selector, dtype_of

_NUMBER = re.compile(
    r"\b(Numeric|Scalar|ScalarOrSchedule|Schedule|float|Array|ndarray|ArrayLike)\b"
)
#: Arguments of these names are integers that seed random numbers, however declared.
_SEEDS = {"key", "seed"}


def is_schedule(value: Any, declared: inspect.Parameter) -> bool:
    """Say whether a function stands where a number may stand.

    Args:
      value: an argument.
      declared: the parameter that takes it.
    """
    if not callable(value) or isinstance(value, (type, Selector)):
        return False
    if hasattr(value, "init") and hasattr(value, "update"):
        return False
    if hasattr(value, "dtype"):  # jax.numpy.float32 can be called too
        return False
    return _takes_numbers(declared) is not False


def is_number(value: Any, declared: inspect.Parameter) -> bool:
    """Say whether an argument is a number that may change while training.

    Args:
      value: an argument.
      declared: the parameter that takes it.
    """
    if isinstance(value, (bool, np.bool_)) or declared.name in _SEEDS:
        return False
    takes = _takes_numbers(declared)
    if isinstance(value, (int, float, np.number)):
        return takes is not False and not isinstance(value, np.complexfloating)
    if not isinstance(value, (jax.Array, np.ndarray)):
        return False
    dtype = dtype_of(value)
    if jnp.issubdtype(dtype, jnp.floating):
        return takes is not False
    whole = jnp.issubdtype(dtype, jnp.integer)
    return whole and value.ndim == 0 and takes is True


def _takes_numbers(declared: inspect.Parameter) -> bool | None:
    """Say whether a parameter takes numbers; `None` where nothing tells."""
    note, default = declared.annotation, declared.default
    if note is not declared.empty:
        return _NUMBER.search(_without_functions(_text(note))) is not None
    if default is declared.empty or default is None:
        return None
    if isinstance(default, (int, float, np.number)):
        return None if isinstance(default, int) else True
    return isinstance(default, (jax.Array, np.ndarray))


def _text(note: Any) -> str:
    if isinstance(note, str):
        return note
    return note.__name__ if isinstance(note, type) else str(note)


def _without_functions(text: str) -> str:
    """Return the text of an annotation without `Callable[…]`, however nested."""
    while (start := text.find("Callable[")) >= 0:
        depth, stop = 0, start
        for stop in range(start, len(text)):
            depth += (text[stop] == "[") - (text[stop] == "]")
            if text[stop] == "]" and depth == 0:
                break
        text = text[:start] + text[stop + 1 :]
    return text
