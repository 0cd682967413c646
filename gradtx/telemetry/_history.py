"""Read what was measured over a training, in any of the forms in which it is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from gradtx.core import ArgumentError
from gradtx.telemetry._histogram import LOW

#: Lines of a JSONL file, pairs of a step and what was measured, or arrays by name.
History: TypeAlias = Iterable[Any] | Mapping[str, Any]


class Series(NamedTuple):
    """The values of one metric at the steps at which it was measured.

    Attributes:
      steps: in rising order, of shape (n,).
      values: float64, of shape (n,); NaN and infinities as they were.
    """

    steps: np.ndarray
    values: np.ndarray


def series(history: History) -> dict[str, Series]:
    """Return every number of a history by name, in the order in which they come up.

    Texts, histograms and what is missing are left out. Of two values at one step, as
    after a training was resumed, the later one counts. An effective learning rate in
    the first bin, as where the learning rate is 0, is 0.

    Args:
      history: dicts with a key "step", as `read_jsonl` returns them; or pairs of a step
        and a dict; or a dict of arrays of shape (n,), as of `scan`, whose key "step",
        if there is one, has the steps, which are else 0, 1, ….

    Raises:
      ArgumentError: if it is none of these.
    """
    if isinstance(history, Mapping):
        return _columns(history)
    found: dict[str, dict[float, float]] = {}
    for step, values in map(_record, history):
        for name, value in values.items():
            number = _number(value)
            if number is not None:
                found.setdefault(name, {})[step] = number
    return {name: _ordered(name, values) for name, values in found.items()}


def _columns(history: Mapping[str, Any]) -> dict[str, Series]:
    columns = {name: np.asarray(values) for name, values in history.items()}
    steps = columns.pop("step", None)
    made = {}
    for name, values in columns.items():
        if values.dtype.kind not in "biufV":  # V: bfloat16 and the like
            continue
        at = np.arange(len(values)) if values.ndim == 1 and steps is None else steps
        if at is None or values.shape != at.shape:
            raise ArgumentError(
                f"history[{name!r}]: expected an array of one number a step, got the "
                f"shape {values.shape}. Give one name to each of its columns.",
            )
        pairs = zip(at.tolist(), values.astype(float).tolist(), strict=True)
        made[name] = _ordered(name, dict(pairs))
    return made


def _record(item: Any) -> tuple[float, Mapping[str, Any]]:
    if isinstance(item, Mapping) and "step" in item:
        return item["step"], {
            k: v for k, v in item.items() if k not in ("step", "time")
        }
    if isinstance(item, (tuple, list)) and len(item) == 2:
        step, values = item
        if isinstance(values, Mapping):
            return float(step), values
    raise ArgumentError(
        'history: expected dicts with the key "step", pairs (step, dict) or a dict of '
        f"arrays, got {type(item).__name__}. Read a file by telemetry.read_jsonl."
    )


def _number(value: Any) -> float | None:
    """Return a number as such; nothing for what is none."""
    if isinstance(value, (str, bytes, tuple, Mapping)) or value is None:
        return None
    array = np.asarray(value)
    return float(array) if array.ndim == 0 and array.dtype.kind in "biufV" else None


def _ordered(name: str, values: Mapping[float, float]) -> Series:
    steps = sorted(values)
    numbers = np.array([values[step] for step in steps], float)
    if name.startswith("effective_learning_rate"):
        numbers = np.where(numbers < 2.0**LOW, 0.0, numbers)
    return Series(np.array(steps, float), numbers)
