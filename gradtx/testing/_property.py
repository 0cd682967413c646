"""Say what a property is: one claim about transformations, checked in several cells."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import jax

from gradtx.testing._subject import Subject


class Violation(AssertionError):
    """A transformation breaks a property."""


class Unavailable(Exception):
    """A cell cannot be checked here, such as one of 8 devices on a single one."""


@dataclasses.dataclass(frozen=True)
class Property:
    """One claim about every transformation.

    Attributes:
      code: its short name, such as `"P4"`.
      claim: what holds, as a sentence.
      cells: the cases in which it is checked, such as dtypes. One that starts with
        `"x64 "` is checked with 64-bit numbers enabled.
      check: `(subject, cell) -> None`; raises where the claim does not hold.
      abstract: whether nothing is computed but shapes and dtypes.
      heavy: those of its cells that take seconds.
    """

    code: str
    claim: str
    cells: tuple[str, ...]
    check: Callable[[Subject, str], None]
    abstract: bool
    heavy: tuple[str, ...] = ()

    def run(self, subject: Subject, cell: str) -> None:
        """Check one cell.

        Raises:
          Violation: if the claim does not hold.
          Unavailable: if it cannot be checked here.
        """
        with _bits(cell):
            self.check(subject, cell.removeprefix("x64 "))


#: All properties, in order of their codes.
PROPERTIES: dict[str, Property] = {}


def declare(
    code: str,
    claim: str,
    *cells: str,
    abstract: bool = False,
    heavy: tuple[str, ...] = (),
) -> Callable[[Callable[[Subject, str], None]], Callable[[Subject, str], None]]:
    """Make a function `(subject, cell) -> None` the property `code`."""

    def wrap(check: Callable[[Subject, str], None]) -> Callable[[Subject, str], None]:
        PROPERTIES[code] = Property(code, claim, cells, check, abstract, heavy)
        return check

    return wrap


def require(held: bool, otherwise: str) -> None:
    """Raise `Violation` with a reason where something does not hold."""
    if not held:
        raise Violation(otherwise)


@contextlib.contextmanager
def _bits(cell: str) -> Iterator[None]:
    if cell.startswith("x64 "):
        with jax.enable_x64(True):
            yield
    else:
        yield
