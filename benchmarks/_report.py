"""Turn measurements into tables, one for each measure, and into a page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks._options import Row

#: Subjects in the order of their columns; others follow.
ORDER = ("gradtx", "gradtx packed", "optax", "torch foreach", "torch fused", "limit")
_NO_CASE = {
    "measure",
    "unit",
    "subject",
    "value",
    "rounds",
    "to_optax",
    "to_limit",
    "to_orbax",
}


def tables(rows: Iterable[Row]) -> list[tuple[str, list[list[str]]]]:
    """Return a heading and the lines of a table for each measure, header first."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["measure"], row["unit"]), []).append(row)
    return [(f"{m}, {unit}", _table(part)) for (m, unit), part in found.items()]


def _table(rows: list[Row]) -> list[list[str]]:
    keys = list(dict.fromkeys(k for row in rows for k in row if k not in _NO_CASE))
    there = list(dict.fromkeys(row["subject"] for row in rows))
    subjects = [s for s in ORDER if s in there] + [s for s in there if s not in ORDER]
    cases: dict[tuple, dict[str, Row]] = {}
    for row in rows:
        case = tuple(row.get(k, "") for k in keys)
        cases.setdefault(case, {})[row["subject"]] = row
    against = [
        (subject, base)
        for subject in subjects
        for base in ("optax", "limit", "orbax")
        if subject.startswith("gradtx") and base in subjects
    ]
    lines = [keys + subjects + [f"{subject} ÷ {base}" for subject, base in against]]
    for case, line in cases.items():
        values = [number(line[s]["value"]) if s in line else "–" for s in subjects]
        ratios = [_ratio(line, subject, base) for subject, base in against]
        lines.append([number(c) for c in case] + values + ratios)
    return lines


def _ratio(line: dict[str, Row], subject: str, base: str) -> str:
    if subject not in line or base not in line:
        return "–"
    if f"to_{base}" in line[subject]:  # taken within rounds, where it was timed
        return f"{line[subject][f'to_{base}']:.2f}"
    below = line[base]["value"]
    return f"{line[subject]['value'] / below:.2f}" if below else "–"


def number(value: Any) -> str:
    """Return a value with three figures, or as it is if it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.01 else f"{value:.1g}"


def text(rows: list[Row]) -> str:
    """Return the tables for a terminal."""
    parts = []
    for heading, lines in tables(rows):
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        body = [
            "  ".join(
                cell.rjust(width) for cell, width in zip(line, widths, strict=True)
            )
            for line in lines
        ]
        parts.append("\n".join([heading, *body]))
    return "\n\n".join(parts)


def page(result: dict[str, Any], picture: str) -> str:
    """Return a run as Markdown.

    Args:
      result: what the JSON file holds.
      picture: the name of the plot beside the page.
    """
    machine, versions = result["machine"], result["versions"]
    used = ", ".join(f"{k} {v}" for k, v in versions.items())
    parts = [
        "# Measurements",
        f"{machine['cpu']}, {machine['cores']} cores, device {machine['device']}; "
        f"{used}; {result['date'][:10]}. Load when it began: {machine['load']:.1f}. "
        f"Made by `{result['command']}`; [what each figure means](../README.md).",
        f"![The same as a plot]({picture})",
    ]
    for scenario in result["scenarios"].values():
        parts.append(f"## {scenario['title']}")
        parts.append(scenario["note"])
        for heading, lines in tables(scenario["rows"]):
            rule = ["---"] * len(lines[0])
            table = "\n".join(
                f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]]
            )
            parts += [f"**{heading}**", table]
    return "\n\n".join(parts) + "\n"
