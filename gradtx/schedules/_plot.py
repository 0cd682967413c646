"""Draw schedules over the steps of a training."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import (
    COLORS,
    ArgumentError,
    Call,
    LineEnd,
    ScalarOrSchedule,
    check_count,
    label_ends,
    new_figure,
    value_at,
)

#: More points than a screen has columns.
_POINTS = 10_000
#: A bend is this many times sharper than the curve beside it, and by this share of
#: the largest value: float32 errs by some 1e-7.
_SHARPER, _LEAST = 5.0, 1e-6
#: How far below the peak a logarithmic scale goes.
_DEEPEST = 1e-5


def plot(
    *schedules: ScalarOrSchedule,
    steps: int,
    ax: Any = None,
    labels: Sequence[str] | None = None,
    log: bool = False,
) -> Any:
    """Draw schedules from step 0 on, each with its name at its end.

    Dots mark where a schedule bends, as where a warm-up ends or a decay begins; their
    steps stand above the axes.

    Args:
      *schedules: functions of the step, or numbers.
      steps: the last step that is drawn.
      ax: axes of matplotlib to draw in; by default those of a new figure, which pyplot
        does not know of: `ax.figure.savefig(path)` writes it.
      labels: a name for each; by default its factory's, with the arguments in which
        those of one factory differ.
      log: whether values are drawn on a logarithmic scale. Zeros are then left out;
        where there is nothing else, the scale stays linear.

    Returns:
      The axes.

    Raises:
      ArgumentError: if there are no schedules, one is a list of them, there are other
        than one label each, or `steps` is no integer of 1 or more.
      ImportError: if there is no matplotlib.

    Example:
      >>> import gradtx
      >>> warm = gradtx.warmup_cosine_decay_schedule(0.0, 1e-3, 100, 1000)
      >>> ax = gradtx.schedules.plot(warm, steps=1000)
      >>> [text.get_text() for text in ax.texts]
      ['warmup_cosine_decay', '100']
    """
    check_count(1, steps=steps)
    if not schedules:
        raise ArgumentError(
            "expected one schedule or more, got none. Give them before steps=.",
            "schedules.plot",
        )
    for schedule in schedules:
        if not callable(schedule) and np.ndim(schedule):
            raise ArgumentError(
                "expected functions of the step, or numbers, got "
                f"{type(schedule).__name__}. Give several one after the other: "
                "plot(*schedules, steps=...).",
                "schedules.plot",
            )
    names = _names(schedules) if labels is None else list(labels)
    if len(names) != len(schedules):
        raise ArgumentError(
            f"labels must be one for each of {len(schedules)} schedules, got "
            f"{len(names)}. Leave them out to have the names of the factories.",
            "schedules.plot",
        )
    colors: Any = [None] * len(names)
    if ax is None:
        colors = itertools.cycle(COLORS)
        ax = new_figure(6.5 + 0.07 * max(map(len, names)), 3.5).subplots()
    stride = -(-steps // _POINTS)
    at = np.arange(0, steps + 1, stride, dtype=np.int32)
    drawn, marks = [], {}
    for schedule, name, color in zip(schedules, names, colors, strict=False):
        values = _values(schedule, at)
        (line,) = ax.plot(at, values, linewidth=1.5, color=color, label=name)
        drawn.append((values, name, line.get_color()))
        bends = _exact(schedule, at, _bends(values))
        dots = {"marker": "o", "markersize": 4, "linestyle": "none"}
        ax.plot(bends, _values(schedule, bends), color=line.get_color(), **dots)
        marks.update(dict.fromkeys(bends.tolist(), line.get_color()))
    ax.set_xlabel("step (updates)")
    ax.set_ylabel("value")
    ax.spines[["top", "right"]].set_visible(False)
    ax.margins(x=0)
    ax.xaxis.get_major_locator().set_params(integer=True)
    peak, floor = max(np.max(values) for values, _, _ in drawn), -np.inf
    if log and peak > 0:
        ax.set_yscale("log", nonpositive="mask")
        floor = max(_DEEPEST * peak, ax.get_ylim()[0])
        ax.set_ylim(bottom=floor)  # a decay to almost 0 would leave no room
    for step, color in marks.items():
        ax.axvline(step, color=color, linewidth=0.6, linestyle=":", zorder=0)
    ends = [
        LineEnd(at[-1], max(values[-1], floor), name, color)
        for values, name, color in drawn
    ]
    ax.figure.draw_without_rendering()  # the layout says where the axes will be
    label_ends(ax, ends)
    _write_steps(ax, marks)
    return ax


def _values(schedule: ScalarOrSchedule, at: np.ndarray) -> np.ndarray:
    """Return the values at some steps; a function that cannot be traced is called."""
    read = lambda step: value_at(schedule, step)
    try:
        return np.asarray(jax.vmap(read)(jnp.asarray(at)), float)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError):
        return np.array([float(read(step)) for step in at.tolist()])


def _bends(values: np.ndarray) -> list[int]:
    """Return where a curve is bent more sharply than beside it: its corners and jumps."""
    bend = _bend(values)
    around = np.pad(bend, 4)
    shifts = [around[4 + k : len(bend) + 4 + k] for k in (-4, -3, -2, 2, 3, 4)]
    least = _LEAST * np.max(np.abs(values))
    found = np.flatnonzero(bend > _SHARPER * np.max(shifts, axis=0) + least)
    # a jump bends twice, at the step before it and at its own
    return [i for i in found.tolist() if i + 1 not in found]


def _bend(values: np.ndarray) -> np.ndarray:
    """Return by how much the slope changes at each point; 0 at the ends."""
    inside = np.abs(np.diff(values, 2))
    return np.pad(inside, (1, len(values) - len(inside) - 1))


def _exact(
    schedule: ScalarOrSchedule, at: np.ndarray, bends: Sequence[int]
) -> np.ndarray:
    """Return the steps of bends that were found between steps that lie apart."""
    stride = int(at[1] - at[0])
    if stride == 1:
        return at[list(bends)]
    found = []
    for step in at[list(bends)]:
        near = np.arange(max(0, step - 2 * stride), step + 2 * stride, dtype=np.int32)
        bend = _bend(_values(schedule, near))
        found.append(near[bend >= np.max(bend) / 2][-1])
    return np.array(found, np.int32)


def _write_steps(ax: Any, marks: dict[int, Any]) -> None:
    """Write steps above the axes, but those that would touch one before."""
    ax.figure.draw_without_rendering()  # labels have made the axes narrower
    right = -np.inf
    for step in sorted(marks):
        text = ax.annotate(
            f"{step:,}",
            (step, 1.0),
            xycoords=ax.get_xaxis_transform(),
            xytext=(0, 2),
            textcoords="offset points",
            color=marks[step],
            fontsize=8,
            ha="center",
            va="bottom",
        )
        box = text.get_window_extent()
        if box.x0 < right + 4:
            text.remove()
        else:
            right = box.x1


def _names(schedules: Sequence[ScalarOrSchedule]) -> list[str]:
    """Name schedules by their factories, and by the arguments in which they differ."""
    calls = [getattr(schedule, "call", None) for schedule in schedules]
    names = []
    for schedule, call in zip(schedules, calls, strict=True):
        if not isinstance(call, Call):
            number = f"{schedule:g}" if isinstance(schedule, (int, float)) else ""
            names.append(number or getattr(schedule, "__name__", "schedule"))
            continue
        same = [c for c in calls if isinstance(c, Call) and c.factory is call.factory]
        varied = {
            name: value
            for name, value in call.arguments.items()
            if any(Call(c.factory, {name: c.arguments.get(name)})
                   != Call(c.factory, {name: value}) for c in same)
        }  # fmt: skip
        name = call.factory.__name__.removesuffix("_schedule")
        inside = ", ".join(f"{k}={v!r}" for k, v in varied.items())
        alone = len(same) == len(calls)  # then their name tells nothing
        names.append(name if not inside else inside if alone else f"{name}({inside})")
    return names
