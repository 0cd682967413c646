"""Count numbers by magnitude, on a scale that is logarithmic from octave to octave."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

#: Bins go from 2^LOW to 2^HIGH, each octave in PARTS equal parts.
LOW, HIGH, PARTS = -40, 24, 8
BINS = (HIGH - LOW) * PARTS + 2


class Histogram(NamedTuple):
    """How many numbers there are of each magnitude.

    Attributes:
      counts: numbers per bin. The first bin holds what is smaller than 2^-40, zeros
        too, the last what is 2^24 or more and finite.
      edges: the bounds of the bins, one more than counts, in rising order; bin `i` is
        `edges[i] <= |x| < edges[i + 1]`.
    """

    counts: np.ndarray
    edges: np.ndarray

    def quantile(self, share: float) -> np.ndarray:
        """Return the magnitude below which this share of the numbers lies.

        Within a bin, numbers are taken to be spread evenly. Counts may have more axes
        in front; where nothing was counted, the result is NaN.
        """
        below = np.cumsum(self.counts, axis=-1)
        total = below[..., -1:]
        index = np.sum(below < share * total, axis=-1, keepdims=True)
        index = np.minimum(index, self.counts.shape[-1] - 1)
        upper = np.take_along_axis(below, index, -1)
        inside = np.take_along_axis(self.counts, index, -1)
        with np.errstate(divide="ignore", invalid="ignore"):
            part = 1 - (upper - share * total) / inside
        low, high = self.edges[index], self.edges[index + 1]
        return np.where(total > 0, low + np.clip(part, 0, 1) * (high - low), np.nan)[
            ..., 0
        ]


def bin_edges(parts: int = PARTS) -> np.ndarray:
    """Return the bounds of the bins, `parts` of them to each octave."""
    octaves = np.exp2(np.arange(LOW, HIGH, dtype=np.float64))
    inside = octaves[:, None] * (1 + np.arange(parts) / parts)
    return np.concatenate([[0.0], inside.reshape(-1), [2.0**HIGH, 2.0**128]])


def coarse(counts: Any) -> Histogram:
    """Return counts in bins of one octave each."""
    counts = np.asarray(counts)
    first, inside, last = np.split(counts, [1, BINS - 1], axis=-1)
    octaves = inside.reshape(*counts.shape[:-1], HIGH - LOW, PARTS).sum(-1)
    return Histogram(np.concatenate([first, octaves, last], -1), bin_edges(1))
