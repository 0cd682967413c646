"""Check the arguments of factories, once, where they are made.

A value that may be traced is never branched on: only Python and NumPy numbers are
checked.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradtx.core._call import dtype_of
from gradtx.core._errors import ArgumentError, DtypeError


def is_static(value: Any) -> bool:
    """Say whether `value` is a plain number whose size may be looked at."""
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def check_positive(fix: str = "", /, **arguments: Any) -> None:
    """Raise `ArgumentError` where a named plain number is not above 0.

    Args:
      fix: a sentence appended to the message, saying what to do instead.
      **arguments: the numbers by their names; traced values and `None` pass.
    """
    for name, value in arguments.items():
        if is_static(value) and not value > 0:
            raise ArgumentError(
                f"{name} must be positive, got {value!r}.{fix and ' ' + fix}"
            )


def check_non_negative(**arguments: Any) -> None:
    """Raise `ArgumentError` where a named plain number is below 0 or NaN."""
    for name, value in arguments.items():
        if is_static(value) and not value >= 0:
            raise ArgumentError(f"{name} must be 0 or more, got {value!r}.")


def check_decay(**arguments: Any) -> None:
    """Raise `ArgumentError` where a named decay rate lies outside [0, 1)."""
    for name, value in arguments.items():
        if is_static(value) and not 0 <= value < 1:
            raise ArgumentError(
                f"{name} must lie in [0, 1), got {value!r}. It is the share of the "
                "running mean that one step keeps."
            )


def check_count(minimum: int = 0, /, **arguments: Any) -> None:
    """Raise `ArgumentError` where a named argument is no integer >= `minimum`."""
    for name, value in arguments.items():
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole or value < minimum:
            raise ArgumentError(
                f"{name} must be an integer of at least {minimum}, got {value!r}."
            )


def require_real(x: Any) -> Any:
    """Return an array, or raise where it is complex.

    Raises:
      DtypeError: if `x` is complex.
    """
    if np.issubdtype(dtype_of(x), np.complexfloating):
        raise DtypeError(
            "the rule compares numbers, and complex ones have no order. Wrap the "
            "optimizer in split_real_and_imaginary."
        )
    return x
