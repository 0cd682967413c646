"""Draw without pyplot: a figure of its own, and labels at the ends of lines.

Nothing is shown, and no state of matplotlib's is touched: what is drawn belongs to the
caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gradtx.core._outside import imported

#: Colors that people with any sight tell apart, and dark enough to write in.
COLORS = ("#0067a5", "#c2410c", "#00735c", "#7b3294", "#6b4e16", "#3d3d3d")
#: Lines of text lie at least this far apart, in sizes of the font.
_SPACING = 1.35


def new_figure(width: float, height: float) -> Any:
    """Return an empty `matplotlib.figure.Figure` that pyplot does not know of.

    Args:
      width, height: in inches.

    Raises:
      ImportError: if there is no matplotlib, with the command that installs it.
    """
    figures = imported("matplotlib.figure", "plot")
    return figures.Figure(figsize=(width, height), layout="constrained")


class LineEnd(NamedTuple):
    """The end of a line, and what is written beside it."""

    x: float
    y: float
    text: str
    color: Any


def label_ends(ax: Any, ends: Sequence[LineEnd], size: float = 8.0) -> list[Any]:
    """Write labels to the right of the ends of lines, moved apart where they are near.

    Args:
      ax: axes with limits as they will stay, in a figure that was laid out by
        `draw_without_rendering`.
      ends: in any order.
      size: of the font, in points.

    Returns:
      The texts, from the lowest to the highest.
    """
    if not ends:
        return []
    points = 72 / ax.figure.dpi
    place = lambda end: ax.transData.transform((end.x, end.y))[1] * points
    ends = sorted(ends, key=place)
    heights = np.array([place(end) for end in ends])
    apart = spread(heights, _SPACING * size)
    # and not so low that they lie among the numbers below the axes
    lowest = ax.get_window_extent().y0 * points + _SPACING * size / 2
    apart = np.maximum(apart, lowest + _SPACING * size * np.arange(len(apart)))
    return [
        ax.annotate(
            end.text,
            (end.x, end.y),
            xytext=(4, new - old),
            textcoords="offset points",
            color=end.color,
            fontsize=size,
            va="center",
            annotation_clip=False,
        )
        for end, old, new in zip(ends, heights, apart, strict=True)
    ]


def spread(places: np.ndarray, gap: float) -> np.ndarray:
    """Move rising numbers as little as possible so that they lie `gap` apart.

    Least squares under an order: neighbours that are too near share their mean.
    """
    blocks: list[list[float]] = []  # the sum and the number of each block
    for index, place in enumerate(places):
        blocks.append([place - index * gap, 1])
        while len(blocks) > 1 and _mean(blocks[-2]) >= _mean(blocks[-1]):
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    means = [_mean(block) for block in blocks for _ in range(int(block[1]))]
    return np.array(means) + gap * np.arange(len(places))


def _mean(block: Sequence[float]) -> float:
    return block[0] / block[1]
