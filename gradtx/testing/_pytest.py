"""Make pytest check transformations: a test for each property of each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from gradtx.testing._property import PROPERTIES
from gradtx.testing._report import Report, results_of
from gradtx.testing._subject import Subject


def conformance(
    transformations: Iterable[Any],
    properties: Iterable[str] | None = None,
    *,
    heavy: bool = True,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Parametrise a test function over transformations and properties.

    The function gets `check`, a function without arguments that raises where the
    property fails. The tests of one transformation stand together, and share its
    compiled steps within a process.

    Args:
      transformations: transformations, or pairs `(name, transformation)`.
      properties: the codes of those to check; by default all.
      heavy: whether to check cells that take seconds, too.

    Example:
      >>> import gradtx
      >>> @gradtx.testing.conformance([gradtx.sgd(0.1)], ["P1", "P13"])
      ... def test_it_conforms(check):
      ...     check()
      >>> [mark.name for mark in test_it_conforms.pytestmark]
      ['parametrize']
    """
    import pytest

    codes = list(PROPERTIES if properties is None else properties)
    cases = []
    for item in transformations:
        name, tx = item if _is_named(item) else (str(item), item)
        subject = functools.cache(functools.partial(Subject, tx))
        cases += [
            pytest.param(
                functools.partial(_check, subject, code, heavy),
                id=f"{name}-{code}",
            )
            for code in codes
        ]
    return pytest.mark.parametrize("check", cases)


def _is_named(item: Any) -> bool:
    return isinstance(item, tuple) and isinstance(item[0], str)


def _check(subject: Callable[[], Subject], code: str, heavy: bool) -> Report:
    report = Report(tuple(results_of(subject(), [PROPERTIES[code]], heavy=heavy)))
    if report.failures:
        raise AssertionError(f"{subject().name}\n{report.table()}")
    return report
