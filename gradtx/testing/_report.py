"""Check a transformation against every property, and show what was found."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Iterable, Iterator
from typing import Any

from gradtx.core import ArgumentError, Traits
from gradtx.testing import _errors, _runs, _structure, _types, _values
from gradtx.testing._property import PROPERTIES, Property, Unavailable
from gradtx.testing._subject import Subject

_PARTS = (_errors, _runs, _structure, _types, _values)  # importing them declares all
_ORDER = sorted(PROPERTIES.items(), key=lambda item: int(item[0][1:]))
PROPERTIES.clear()
PROPERTIES.update(_ORDER)


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of one property in one cell.

    Attributes:
      transformation: its name.
      code: the property's.
      cell: the case.
      outcome: `"pass"`, `"fail"`, `"exempt"` (it fails, and is declared to) or
        `"absent"` (it cannot be checked here).
      detail: what was wrong, or the reason declared.
      seconds: how long it took.
    """

    transformation: str
    code: str
    cell: str
    outcome: str
    detail: str = ""
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Report:
    """What came of all properties.

    Attributes:
      results: one for each cell, in order.
    """

    results: tuple[Result, ...]

    @property
    def failures(self) -> tuple[Result, ...]:
        """The cells that fail without being declared to."""
        return tuple(r for r in self.results if r.outcome == "fail")

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """Return a line for each property, and one for each cell that did not pass."""
        lines = []
        for code, found in _by_code(self.results).items():
            counts = collections.Counter(r.outcome for r in found)
            shown = ", ".join(f"{n} {outcome}" for outcome, n in counts.items())
            lines.append(f"{code:<4} {shown:<28} {PROPERTIES[code].claim}")
            lines += [
                f"     {r.outcome}: {r.transformation} [{r.cell}] {r.detail}"
                for r in found
                if r.outcome != "pass"
            ]
        return "\n".join(lines)


def _by_code(results: Iterable[Result]) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for r in results:
        found.setdefault(r.code, []).append(r)
    return found


def check_transformation(
    tx: Any,
    *,
    traits: Traits | None = None,
    properties: Iterable[str] | None = None,
    abstract: bool | None = None,
    heavy: bool = True,
    raises: bool = True,
    verbose: bool = True,
) -> Report:
    """Check a transformation, of any library, and print a table of what was found.

    The properties are P1 to P18; `PROPERTIES` holds their claims.

    Every property is checked in each of its cells, such as dtypes. A cell that fails
    is no failure where the transformation declares so, with a reason, in
    `Traits.exempt`; an exemption of which nothing fails is one itself.

    Args:
      tx: a transformation, a raw pair `(init, update)` or an optax transformation.
      traits: what it needs and how it behaves; by default what it declares. A raw
        pair declares nothing: it passes for elementwise and differentiable.
      properties: the codes of those to check, such as `{"P1", "P13"}`; by default all.
      abstract: whether to check only those that compute nothing (`True`), which takes
        well under a second, or only the others (`False`).
      heavy: whether to check cells that take seconds, such as trees of 1,000 leaves.
      raises: whether failures raise.
      verbose: whether to print the table.

    Returns:
      A `Report`, whose text is the table.

    Raises:
      AssertionError: if a cell fails, with the table as its message.
      ArgumentError: if a code is unknown.

    Example:
      >>> import gradtx
      >>> report = gradtx.testing.check_transformation(
      ...     gradtx.scale(0.5), properties=["P7", "P11"]
      ... )
      P7   2 pass                       counters at 2^31-1 stay there, and updates stay finite
      P11  2 pass                       parameters, state and gradients can be donated right after init
      >>> report.failures
      ()

    Source: the properties are those that training needs of an optimizer; most were
    written down after a failure of a public library.
    """
    subject = Subject(tx, traits)
    chosen = list(_chosen(properties, abstract))
    report = Report(tuple(results_of(subject, chosen, heavy=heavy)))
    if raises and report.failures:
        raise AssertionError(f"{subject.name}\n{report.table()}")
    if verbose:
        print(report.table())
    return report


def _chosen(
    properties: Iterable[str] | None, abstract: bool | None
) -> Iterator[Property]:
    wanted = set(PROPERTIES if properties is None else properties)
    if unknown := sorted(wanted - PROPERTIES.keys()):
        raise ArgumentError(
            f"properties must be among {', '.join(PROPERTIES)}, got {unknown[0]!r}.",
            "check_transformation",
        )
    for code, prop in PROPERTIES.items():
        if code in wanted and abstract in (None, prop.abstract):
            yield prop


def results_of(
    subject: Subject, properties: Iterable[Property], *, heavy: bool = True
) -> Iterator[Result]:
    """Yield what comes of each cell of some properties, and of stale exemptions."""
    for prop in properties:
        cells = [cell for cell in prop.cells if heavy or cell not in prop.heavy]
        found = [result_of(subject, prop, cell) for cell in cells]
        yield from found
        stale = [
            key
            for key in subject.traits.exempt.keys() - subject.traits.inherited
            if key.split()[0] == prop.code
            and not any(r.outcome == "exempt" and key in _keys(r) for r in found)
        ]
        for key in stale:
            yield Result(
                subject.name, prop.code, "exemption", "fail", f"{key!r} passes by now"
            )


def _keys(result: Result) -> tuple[str, str]:
    """Return the keys under which a cell may be exempt."""
    return result.code, f"{result.code} {result.cell}"


def result_of(subject: Subject, prop: Property, cell: str) -> Result:
    """Check one cell."""
    start = time.perf_counter()
    outcome, detail = "pass", ""
    try:
        prop.run(subject, cell)
    except Unavailable as reason:
        outcome, detail = "absent", str(reason)
    except Exception as error:  # whatever it raises is what is wrong
        outcome, detail = "fail", _shown(error)
    made = Result(subject.name, prop.code, cell, outcome, detail)
    if outcome == "fail":
        declared = next(filter(None, map(subject.traits.exempt.get, _keys(made))), None)
        if declared is not None:
            made = dataclasses.replace(made, outcome="exempt", detail=declared)
    return dataclasses.replace(made, seconds=time.perf_counter() - start)


def _shown(error: Exception) -> str:
    said = " ".join(str(error).split())
    kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
    return f"{kind}{said[:300]}"
