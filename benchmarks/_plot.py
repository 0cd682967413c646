"""Draw a run: one panel for each question, optax's and torch's marks beside ours."""

from __future__ import annotations

import pathlib
from typing import Any

from benchmarks._options import Row

COLOURS = {
    "gradtx": "#0b6e99",
    "gradtx packed": "#49b6d6",
    "optax": "#e07b39",
    "torch foreach": "#b9a8d4",
    "torch fused": "#7d5ba6",
    "limit": "#444444",
}


def draw(result: dict[str, Any], target: pathlib.Path) -> bool:
    """Write a PNG, and say whether there was anything to draw and to draw it with."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        return False
    rows = [r for s in result["scenarios"].values() for r in s["rows"]]
    found = [
        (draw_, p) for draw_, pick in PANELS if (p := [r for r in rows if pick(r)])
    ]
    if not found:
        return False
    across = min(2, len(found))
    down = -(-len(found) // across)
    figure, axes = plt.subplots(
        down,
        across,
        figsize=(7 * across, 4 * down),
        squeeze=False,
        layout="constrained",
    )
    for axis, (panel, part) in zip(axes.flat, found, strict=False):
        panel(axis, part)
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    versions = result["versions"]
    figure.suptitle(
        f"gradtx {versions['gradtx']}, optax {versions['optax']}, "
        f"torch {versions['torch']}, jax {versions['jax']} on {result['machine']['cpu']}, "
        f"{result['machine']['device']}, {result['date'][:10]}",
        fontsize=9,
    )
    figure.savefig(target, dpi=130)
    plt.close(figure)
    return True


def _bars(axis: Any, rows: list[Row], label: Any, value: Any, title: str) -> None:
    """Draw one group of bars for each label, one bar for each subject."""
    groups = list(dict.fromkeys(label(r) for r in rows))
    there = {r["subject"] for r in rows}
    subjects = [s for s in COLOURS if s in there]
    width = 0.8 / len(subjects)
    for position, subject in enumerate(subjects):
        heights = {label(r): value(r) for r in rows if r["subject"] == subject}
        places = [groups.index(g) + (position + 0.5) * width - 0.4 for g in heights]
        bars = axis.bar(
            places, heights.values(), width, color=COLOURS[subject], label=subject
        )
        texts = [f"{h:.2g}" if h < 100 else f"{h:.0f}" for h in heights.values()]
        axis.bar_label(bars, texts, fontsize=6, padding=1)
    axis.set_xticks(range(len(groups)), groups, fontsize=8)
    axis.set_title(title, fontsize=10)
    axis.legend(fontsize=7, frameon=False, ncols=3)
    axis.spines[["top", "right"]].set_visible(False)
    low, high = axis.get_ylim()
    axis.set_ylim(low, high * (3 if axis.get_yscale() == "log" else 1.2))


def _step(axis: Any, rows: list[Row]) -> None:
    axis.set_yscale("log")
    axis.axhline(1, color=COLOURS["limit"], linewidth=0.8)
    rows = [r for r in rows if r["subject"] != "limit"]
    title = "clip + AdamW: step time, × the memory limit"
    _bars(axis, rows, lambda r: r["tree"], lambda r: r["to_limit"], title)


def _bytes(axis: Any, rows: list[Row]) -> None:
    title = "Bytes moved per parameter by the compiled step (GPT-2)"
    _bars(axis, rows, lambda r: r["optimizer"], lambda r: r["value"], title)


def _against_optax(axis: Any, rows: list[Row]) -> None:
    """Draw every optimizer's step time on every tree as a multiple of optax's."""
    rows = [r for r in rows if r["subject"] not in ("limit", "optax")]
    trees = list(dict.fromkeys(r["tree"] for r in rows))
    names = list(dict.fromkeys(r["optimizer"] for r in rows))
    marks = dict(zip(trees, "osD^v", strict=False))
    for row in rows:
        offset = 0.14 * (list(COLOURS).index(row["subject"]) - 2)
        place = names.index(row["optimizer"]) + offset
        style = {"color": COLOURS[row["subject"]], "marker": marks[row["tree"]]}
        axis.plot(place, row["to_optax"], markersize=5, linestyle="", **style)
    for tree in trees:
        axis.plot([], [], "k" + marks[tree], markersize=4, label=tree)
    axis.axhline(1, color=COLOURS["optax"], linewidth=0.8)
    axis.set_yscale("log")
    axis.set_xticks(range(len(names)), names, fontsize=8)
    axis.set_title("Step time, × optax's (line), by optimizer and tree", fontsize=10)
    axis.legend(fontsize=7, frameon=False, ncols=5)
    axis.spines[["top", "right"]].set_visible(False)


def _lines(axis: Any, rows: list[Row]) -> None:
    """Draw seconds against leaves, one line for each subject."""
    for subject, colour in COLOURS.items():
        points = sorted(
            (r["leaves"], r["value"]) for r in rows if r["subject"] == subject
        )
        if points:
            axis.plot(*zip(*points, strict=True), "o-", color=colour, label=subject)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("leaves", fontsize=8)
    axis.set_title("clip + AdamW: trace, lower and compile, s", fontsize=10)
    axis.legend(fontsize=7, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)


def _peak(axis: Any, rows: list[Row]) -> None:
    axis.axhline(1, color=COLOURS["limit"], linewidth=0.8)
    title = "Peak memory of a donated step, × (parameters + state + gradients)"
    _bars(axis, rows, lambda r: r["optimizer"], lambda r: r["value"], title)


#: What is drawn as a multiple of optax's, and what it is called there.
OTHERS = {
    "call overhead": "call\noverhead",
    "eager step": "eager\nstep",
    "eager init": "eager\ninit",
    "micro-step": "micro-\nstep",
    "step on 8 devices": "on 8\ndevices",
    "train": "train",
    "first call": "train:\nfirst call",
}


def _others(axis: Any, rows: list[Row]) -> None:
    axis.set_yscale("log")
    axis.axhline(1, color=COLOURS["optax"], linewidth=0.8)
    rows = [r for r in rows if r["subject"] in COLOURS and r["subject"] != "optax"]
    last = {(r["measure"], r["subject"]): r for r in rows}  # the largest case
    title = "Other times, × optax's (line)"
    label = lambda r: OTHERS[r["measure"]]
    _bars(axis, list(last.values()), label, lambda r: r["to_optax"], title)


def _is(measure: str, **wanted: Any) -> Any:
    return lambda row: (
        row["measure"] == measure and all(row.get(k) == v for k, v in wanted.items())
    )


def _on_gpt2(measure: str) -> Any:
    return lambda row: (
        row["measure"] == measure
        and (row.get("tree") == "gpt2" or row.get("tree") == "layers")
    )


PANELS = (
    (_step, _is("step", optimizer="clip_adamw")),
    (_against_optax, _is("step")),
    (_bytes, _on_gpt2("bytes")),
    (_peak, _on_gpt2("peak")),
    (
        _others,
        lambda row: row["measure"] in OTHERS and "(" not in str(row.get("optimizer")),
    ),
    (_lines, _is("total", optimizer="clip_adamw")),
)
