"""Say what a sink hands to its backend: records of plain values."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.telemetry._histogram import BINS, Histogram, coarse

#: What needs neither to be copied nor to be looked at: most values of most records.
READY = frozenset({float, int, str})
#: A number, a text or a histogram of NumPy arrays.
Value = float | int | str | Histogram


@dataclasses.dataclass(frozen=True)
class Record:
    """What was measured at one step.

    Attributes:
      step: the training step.
      time: when it was written, in seconds since 1970.
      values: by name.
    """

    step: int
    time: float
    values: Mapping[str, Value]


def as_record(
    step: Any, time: float, given: Mapping[str, Any]
) -> tuple[Record | None, list[str]]:
    """Return what was given as plain values, and what could not be made one.

    Waits for the device. There is no record where nothing of it is left.
    """
    with contextlib.suppress(Exception):
        fetch(value for value in given.values() if type(value) not in READY)
    values, failures = {}, []
    for name, value in given.items():
        try:
            values[_text(str(name))] = plain(value)
        except Exception as error:
            failures.append(f"{name}: {error}")
    try:
        record = Record(int(step), time, values)
    except Exception as error:
        return None, [*failures, f"step: {error}"]
    return (record if values or not given else None), failures


def fetch(values: Any) -> None:
    """Start to copy arrays from the device, all at once."""
    for value in jax.tree.leaves(list(values)):
        if isinstance(value, jax.Array):
            with contextlib.suppress(Exception):  # it is told where the value is read
                value.copy_to_host_async()


def plain(value: Any) -> Value:
    """Return a value as a Python number, a text or a histogram.

    Raises:
      TypeError: if it is none of these.
    """
    if type(value) is float:
        return value
    if isinstance(value, Histogram):
        counts, edges = np.asarray(value.counts), np.asarray(value.edges)
        if counts.ndim != 1 or edges.shape != (counts.size + 1,):
            raise TypeError(
                f"expected a histogram of counts (n,) and edges (n + 1,), got "
                f"{counts.shape} and {edges.shape}; write one histogram per name"
            )
        return Histogram(counts, edges)
    if value is None or isinstance(value, str):
        return _text(value or "")
    array = np.asarray(value)
    whole = array.dtype.kind == "b" or jnp.issubdtype(array.dtype, np.integer)
    if array.ndim or not (whole or jnp.issubdtype(array.dtype, np.floating)):
        raise TypeError(
            f"expected a real number, a text or a Histogram, got {array.dtype} of shape "
            f"{array.shape}; reduce it to one number"
        )
    return int(array) if whole else float(array)


def _text(text: str) -> str:
    """Return a text that UTF-8 can carry: a file name may hold what it cannot."""
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode()


def octaves(histogram: Histogram) -> Histogram:
    """Return a histogram of gradtx in bins of one octave, and others as they are."""
    return coarse(histogram.counts) if histogram.counts.size == BINS else histogram


def occupied(histogram: Histogram) -> Histogram:
    """Return a histogram without the empty bins at its ends."""
    filled = np.flatnonzero(histogram.counts)
    if not filled.size:
        return Histogram(histogram.counts[:0], histogram.edges[:1])
    low, high = filled[0], filled[-1] + 1
    return Histogram(histogram.counts[low:high], histogram.edges[low : high + 1])


def middles(histogram: Histogram) -> np.ndarray:
    """Return the middle of each bin, as float64."""
    edges = np.asarray(histogram.edges, np.float64)
    return (edges[1:] + edges[:-1]) / 2
