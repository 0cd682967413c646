"""Print rows as a table, in plain text and in HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def text_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()
) -> str:
    """Return a table whose columns are aligned.

    Args:
      header: names of the columns.
      rows: cells, as many in each row as there are columns. A row of no cells is a rule.
      right: names of the columns that are aligned to the right.
    """
    full = [header, *(row for row in rows if row)]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]

    def line(cells: Sequence[str]) -> str:
        placed = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(header, cells, widths, strict=True)
        ]
        return "  ".join(placed).rstrip()

    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    body = [line(row) if row else rule for row in rows]
    return "\n".join([line(header), rule, *body])


def html_table(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> str:
    """Return the same table for a notebook, with lines of text below it."""

    def line(cells: Sequence[str], tag: str) -> str:
        made = [
            f'<{tag} style="text-align:{"right" if name in right else "left"}">'
            f"{html.escape(cell)}</{tag}>"
            for name, cell in zip(header, cells, strict=True)
        ]
        return f"<tr>{''.join(made)}</tr>"

    body = "".join(line(row, "td") for row in rows if row)
    below = "".join(f"<div>{html.escape(note)}</div>" for note in notes)
    return (
        f'<table><caption style="text-align:left">{html.escape(caption)}</caption>'
        f"<thead>{line(header, 'th')}</thead><tbody>{body}</tbody></table>{below}"
    )


def show_bytes(number: int | float) -> str:
    """Print a number of bytes with three digits or more and a binary unit."""
    size, unit = float(number), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    if unit == 0:
        return f"{int(number)} B"
    digits = 2 if size < 10 else 1 if size < 100 else 0
    return f"{size:.{digits}f} {_UNITS[unit]}"
