"""Print rows as a table, in plain text and in HTML."""

from __future__ import annotations

import html
import itertools
from collections.abc import Sequence

#: Columns that most terminals show.
WIDTH = 88
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def text_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()
) -> str:
    """Return a table whose columns are aligned.

    Args:
      header: names of the columns.
      rows: cells, as many in each row as there are columns. A row of no cells is a rule,
        one of a single cell a heading, which may be longer than its column.
      right: names of the columns that are aligned to the right.
    """
    full = [header, *(row for row in rows if len(row) == len(header))]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]

    def line(cells: Sequence[str]) -> str:
        if len(cells) < len(header):
            return " ".join(cells)
        placed = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(header, cells, widths, strict=True)
        ]
        return "  ".join(placed).rstrip()

    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    body = [line(row) if row else rule for row in rows]
    return "\n".join([line(header), rule, *body])


def broken_call(text: str, indent: int = 0) -> str:
    """Return a call as one line, or with one argument to a line where that is too wide.

    Args:
      text: the call, as `repr` prints it.
      indent: spaces in front of the lines that follow the first.
    """
    pairs = [] if indent + len(text) <= WIDTH else _brackets(text)
    if not pairs:
        return text
    cuts = max(pairs, key=lambda cuts: cuts[-1] - cuts[0])
    parts = [text[a + 1 : b].strip() for a, b in itertools.pairwise(cuts)]
    inner = " " * (indent + 2)
    lines = [f"{inner}{broken_call(part, indent + 2)}," for part in parts if part]
    head, tail = text[: cuts[0] + 1], text[cuts[-1] :]
    return "\n".join([head, *lines, " " * indent + tail]) if lines else text


def _brackets(text: str) -> list[list[int]]:
    """Return where each outer pair of brackets opens, has commas, and closes."""
    pairs, depth, quote = [], 0, ""
    for i, mark in enumerate(text):
        if quote:
            # a quote after a backslash ends no string
            quote = "" if mark == quote and text[i - 1] != "\\" else quote
        elif mark in "'\"":
            quote = mark
        elif mark in "([{":
            pairs += [] if depth else [[i]]
            depth += 1
        elif mark in ")]}" and depth:
            depth -= 1
            if not depth:
                pairs[-1].append(i)
        elif mark == "," and depth == 1:
            pairs[-1].append(i)
    return [] if depth else pairs


def broken_line(parts: Sequence[str]) -> str:
    """Return parts of a line, each with its space in front, broken where too wide."""
    lines = [""]
    for part in parts:
        if len(lines[-1]) + len(part) > WIDTH and lines[-1]:
            lines.append("   ")
        lines[-1] += part
    return "\n".join(lines)


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
