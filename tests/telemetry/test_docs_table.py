"""The how-to page lists every metric as `METRICS` has it."""

import pathlib
import re

from gradtx import telemetry

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "how-to" / "telemetry.md"


def rows() -> list[str]:
    """Return the rows that the table on the page must have."""
    made = []
    for name, metric in telemetry.METRICS.items():
        tells = metric.tells.replace("|", "\\|")
        made.append(f"| `{name}` | {metric.kind} | {metric.unit} | {tells} |")
    return made


def test_the_page_lists_every_metric_with_kind_unit_and_meaning():
    text = PAGE.read_text(encoding="utf-8")
    there = re.findall(
        r"^\| `\w+` \| (?:gauge|counter|histogram|text) \|.*$", text, re.M
    )
    # where METRICS has changed: print("\n".join(rows())) is the new table
    assert there == rows()
