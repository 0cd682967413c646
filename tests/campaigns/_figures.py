"""Count what a campaign did, and print it as a table."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable


@dataclasses.dataclass
class Figures:
    """What came of the cases of a campaign, or of one kind of them.

    Attributes:
      name: of the kind.
      cases: how many there were.
      detected: where the fault was reported, by an error of the right type.
      walked: where the newest good step was found, and the bad one named.
      harmless: where nothing that is read was changed.
      silent: where something wrong came back without a word.
      lost: steps that had been acknowledged, and are gone.
      failures: what is not as it must be, in words, one a case.
    """

    name: str
    cases: int = 0
    detected: int = 0
    walked: int = 0
    harmless: int = 0
    silent: int = 0
    lost: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)

    def fail(self, why: str) -> None:
        """Note a case that is not as it must be."""
        self.failures.append(f"{self.name}: {why}")


def total(name: str, rows: Iterable[Figures]) -> Figures:
    """Return the sums of all rows."""
    made = Figures(name)
    for row in rows:
        for field in dataclasses.fields(Figures)[1:]:
            both = getattr(made, field.name) + getattr(row, field.name)
            setattr(made, field.name, both)
    return made


def table(rows: Iterable[Figures]) -> str:
    """Return rows in Markdown."""
    names = ["cases", "detected", "walked", "harmless", "silent", "lost"]
    heads = ["", "cases", "detected", "walked back", "harmless", "silent", "lost"]
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    for row in rows:
        cells = [row.name, *(f"{getattr(row, name):,}" for name in names)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def report(name: str, rows: list[Figures], limit: int = 20) -> int:
    """Print the table and what failed; return the exit status."""
    everything = total(name, rows)
    print(table([*rows, everything] if len(rows) > 1 else rows))
    for why in everything.failures[:limit]:
        print(f"FAILED {why}")
    if len(everything.failures) > limit:
        print(f"… and {len(everything.failures) - limit} more")
    return int(bool(everything.failures))


def options(about: str, cases: int) -> argparse.ArgumentParser:
    """Return a parser of the options that every campaign has."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--cases", type=int, default=cases)
    parser.add_argument("--seed", type=int, default=0)
    return parser
