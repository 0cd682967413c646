"""Draw what was measured over a training."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gradtx.core import ArgumentError, LineEnd, label_ends, new_figure
from gradtx.telemetry._history import History, Series, series
from gradtx.telemetry._metrics import METRICS, Name, parse

#: Panels that are drawn where names are not chosen: a title, whether the scale is
#: logarithmic, and metrics.
_PANELS = (
    ("loss", False, ("loss", "loss_smoothed", "validation_loss")),
    ("norms", True, ("gradient_norm", "update_norm", "param_norm")),
    ("update / parameters", True, ("update_to_param_ratio",)),
    ("learning rate", False, ("learning_rate",)),
    ("effective learning rate", True, ("effective_learning_rate",)),
)
#: Metrics that draw a band around another one.
_BANDS = {
    "effective_learning_rate": (
        "effective_learning_rate_p10",
        "effective_learning_rate_p90",
    )
}
#: Counters whose rise is an event, and what it is called and drawn in.
_EVENTS = {
    "skipped_updates": ("skipped", "tab:orange"),
    "nonfinite_updates": ("not finite", "tab:red"),
}
#: Gauges that are an event where they are above 0.
_FOUND = ("gradient_nonfinite", "update_nonfinite", "param_nonfinite")


class _Panel(NamedTuple):
    title: str
    log: bool
    names: list[Name]


def plot(
    history: History, names: Sequence[str] | None = None, *, width: float = 9.0
) -> Any:
    """Draw metrics over the steps of a training, one panel for each family.

    Loss, norms, the ratio of updates to parameters, the learning rate and the effective
    one, with a band from its tenth to its ninetieth percentile, as far as they were
    measured, then metrics of other names. Each line has its name at its end. NaNs and
    infinities leave gaps. Updates that were skipped or not finite are marked in all
    panels.

    Args:
      history: what `read_jsonl` returns, pairs `(step, metrics)`, or a dict of arrays
        by name, whose key "step" may have the steps.
      names: patterns of names instead, such as `"update_norm/group/*"`, in which `*`
        stands for anything; one panel for each metric.
      width: of the figure, in inches.

    Returns:
      A `matplotlib.figure.Figure`, which pyplot does not know of:
      `figure.savefig(path)` writes it.

    Raises:
      ArgumentError: if the history has another form, or nothing of these names.
      ImportError: if there is no matplotlib.

    Example:
      >>> from gradtx import telemetry
      >>> steps = range(100)
      >>> run = [(i, {"loss": 1 / (1 + i), "gradient_norm": 2.0}) for i in steps]
      >>> [ax.get_title(loc="left") for ax in telemetry.plot(run).axes]
      ['loss', 'norms']
    """
    found = series(history)
    panels = _default(found) if names is None else _chosen(found, names)
    if not panels:
        raise ArgumentError(
            f"nothing to draw: the history has {_listed(found)}. Choose some by names=.",
            "telemetry.plot",
        )
    columns = 1 if len(panels) < 3 else 2
    rows = -(-len(panels) // columns)
    figure = new_figure(width, 0.6 + 1.9 * rows)
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False).flatten()
    for ax in axes[len(panels) :]:
        ax.remove()
    axes = axes[: len(panels)]
    ends = [_draw(ax, panel, found) for ax, panel in zip(axes, panels, strict=True)]
    _mark_events(axes, found)
    for ax in axes[-columns:]:
        ax.set_xlabel("step (updates)")
        ax.tick_params(labelbottom=True)
    figure.draw_without_rendering()  # the layout says where the axes will be
    for ax, labels in zip(axes, ends, strict=True):
        label_ends(ax, labels)
    return figure


def _default(found: Mapping[str, Series]) -> list[_Panel]:
    """Return the panels of the usual families, then one for each other metric."""
    parsed = [name for name in map(parse, found) if not (name.group or name.leaf)]
    panels = [
        _Panel(title, log, [n for m in metrics for n in parsed if n.metric == m])
        for title, log, metrics in _PANELS
    ]
    own = [name for name in parsed if name.metric not in METRICS]
    panels += [_Panel(name.metric, False, [name]) for name in own]
    return [panel for panel in panels if panel.names]


def _chosen(found: Mapping[str, Series], patterns: Sequence[str]) -> list[_Panel]:
    families: dict[str, list[Name]] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matches = [name for name in found if fnmatch.fnmatchcase(name, pattern)]
        if not matches:
            raise ArgumentError(
                f"{pattern!r} matches none of {_listed(found)}.", "telemetry.plot"
            )
        for name in map(parse, matches):
            family = families.setdefault(name.metric, [])
            family += [] if name in family else [name]
    steep = {metric for _, log, metrics in _PANELS if log for metric in metrics}
    steep |= {"moment_norm", "moment_rms", "effective_learning_rate_spread"}
    steep |= {metric for band in _BANDS.values() for metric in band}
    titles = {
        metric: " of ".join([metric, *({n.field for n in own} - {""})])
        if len({n.field for n in own}) == 1
        else metric
        for metric, own in families.items()
    }
    return [_Panel(titles[k], k in steep, own) for k, own in families.items()]


def _draw(ax: Any, panel: _Panel, found: Mapping[str, Series]) -> list[LineEnd]:
    """Draw one panel, and return the labels of its lines."""
    ax.set_title(panel.title, loc="left", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    ax.margins(x=0)
    units = {METRICS[n.metric].unit for n in panel.names if n.metric in METRICS} - {""}
    ax.set_ylabel(", ".join(sorted(units)), fontsize=8)
    ends, lowest = [], np.inf
    for name in panel.names:
        steps, values = found[str(name)]
        values = np.where(np.isfinite(values), values, np.nan)
        (line,) = ax.plot(steps, values, linewidth=1.3, label=str(name))
        color = line.get_color()
        lonely = _lonely(values)
        dots = {"marker": ".", "linestyle": "none", "color": color}
        ax.plot(steps[lonely], values[lonely], **dots)
        low, high = (found.get(str(n)) for n in _band(name))
        if low is not None and high is not None:
            shown = low.values > 0 if panel.log else np.isfinite(low.values)
            ax.fill_between(
                *(low.steps, low.values, high.values, shown),
                color=color,
                alpha=0.2,
                linewidth=0,
            )
        known = np.flatnonzero(values > 0 if panel.log else np.isfinite(values))
        if len(known):
            lowest = min(lowest, float(np.min(values[known])))
            end = float(steps[known[-1]]), float(values[known[-1]])
            ends.append(LineEnd(*end, _short(name, panel), color))
    if panel.log and np.isfinite(lowest):
        ax.set_yscale("log", nonpositive="mask")
    return [end for end in ends if end.text]


def _lonely(values: np.ndarray) -> np.ndarray:
    """Say which numbers have a gap on both sides, so that no line shows them."""
    known = np.pad(np.isfinite(values), 1)
    return known[1:-1] & ~known[:-2] & ~known[2:]


def _band(name: Name) -> tuple[Name, Name]:
    low, high = _BANDS.get(name.metric, ("", ""))
    return name._replace(metric=low), name._replace(metric=high)


def _short(name: Name, panel: _Panel) -> str:
    """Return the parts of a name that tell it from the others of its panel."""
    if len(panel.names) == 1:  # the title has its name
        return "median, p10 to p90" if name.metric in _BANDS else ""
    differs = lambda part: len({getattr(other, part) for other in panel.names}) > 1
    parts = [getattr(name, part) for part in Name._fields if differs(part)]
    return " ".join(filter(None, parts)) or "all"


def _mark_events(axes: Sequence[Any], found: Mapping[str, Series]) -> None:
    """Draw a line through all panels at each event, and say above what it is."""
    events = _events(found)
    top = 0.0
    for kind, color in dict.fromkeys(_EVENTS.values()):
        steps = events.get(kind, [])
        for ax in axes:
            for step in steps:
                ax.axvline(step, color=color, linewidth=1.0, alpha=0.7, zorder=0.5)
        if steps:
            once = f"{kind}: step {steps[0]:g}"
            shown = once if len(steps) == 1 else f"{kind}: {len(steps)}×"
            axes[0].annotate(
                shown,
                (1.0, 1.0),
                xycoords="axes fraction",
                xytext=(0, 3 + top),
                textcoords="offset points",
                color=color,
                fontsize=8,
                ha="right",
                va="bottom",
            )
            top += 10.0


def _events(found: Mapping[str, Series]) -> dict[str, list[float]]:
    """Return the steps at which updates were skipped or numbers not finite."""
    events: dict[str, set[float]] = {}
    for name, (steps, values) in found.items():
        parsed = parse(name)
        if parsed.group or parsed.leaf:
            continue
        if parsed.metric in _EVENTS:
            rises = np.diff(values, prepend=0.0) > 0
            events.setdefault(_EVENTS[parsed.metric][0], set()).update(steps[rises])
        elif parsed.metric in _FOUND:
            events.setdefault("not finite", set()).update(steps[values > 0])
        elif parsed.metric in ("loss", "gradient_norm"):
            events.setdefault("not finite", set()).update(steps[~np.isfinite(values)])
    return {kind: sorted(steps) for kind, steps in events.items() if steps}


def _listed(names: Mapping[str, Any]) -> str:
    shown = ", ".join(list(names)[:6])
    return (
        f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown or "no names"
    )
