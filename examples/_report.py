"""What a run shows: tables, a progress bar and curves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import gradtx

_BLUE, _RED = "#2f6ea5", "#c0392b"


def hyperparameter_table(tx: gradtx.GradientTransformation) -> Table:
    """Return a table of the links of a chain and their arguments."""
    table = Table("link", "argument", "value", title="optimizer", title_justify="left")
    last = ""
    for path, value in gradtx.hyperparameters(tx).items():
        link, _, argument = path.partition(".")
        table.add_row("" if link == last else link, argument, repr(value))
        last = link
    return table


@contextlib.contextmanager
def progress_bar(
    console: Console, epoch: int, epochs: int
) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Show a bar from `epoch` on; yield a function that moves it after an update."""
    columns = (
        TextColumn("epoch {task.completed:4.1f}/{task.total}"),
        BarColumn(10),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=console.quiet) as progress:
        bar = progress.add_task("", total=epochs, completed=epoch)

        def report(row: Mapping[str, float]) -> None:
            shown = (
                f"loss {row['loss']:.3f}  acc {row['accuracy']:.3f}  "
                f"lr {row['learning_rate']:.1e}  norm {row['gradient_norm']:.2f}"
            )
            progress.update(bar, completed=row["epoch"], description=shown)

        yield report


def summary(
    record: Mapping[str, Any], trained: Mapping[str, float], same: bool, seconds: float
) -> Table:
    """Return a table of the results.

    Args:
      record: the steps and tests of the whole run.
      trained: loss and accuracy on the training data, at the end.
      same: whether the replicas hold the same bits.
      seconds: how long this part of the run took.
    """
    tested = record["tests"][-1]
    rates = [row["learning_rate"] for row in record["steps"]]
    table = Table(title="run", title_justify="left", show_header=False)
    for name, value in {
        "loss": f"{trained['loss']:.4f} training, {tested['loss']:.4f} test",
        "accuracy": f"{trained['accuracy']:.2%} training, {tested['accuracy']:.2%} test",
        "updates": f"{len(record['steps'])}",
        "seconds": f"{seconds:.1f}",
        "learning rate": f"{min(rates):.3g} to {max(rates):.3g}",
        "devices": f"{record['settings']['devices']}",
        "replicas bit-identical": "yes" if same else "no",
    }.items():
        table.add_row(name, value)
    return table


def draw_curves(path: Path, record: Mapping[str, Any], clip: float) -> None:
    """Draw loss, accuracy, learning rate and gradient norm over the epochs.

    Args:
      path: the PNG to write.
      record: the steps and tests of the whole run.
      clip: the gradient norm above which gradients were shrunk.
    """
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    (loss, accuracy), (rate, norm) = figure.subplots(2, 2, sharex=True)
    at = np.array([row["epoch"] for row in record["steps"]])
    ends = np.array([row["epoch"] for row in record["tests"]])
    for axis, name in ((loss, "loss"), (accuracy, "accuracy"), (norm, "gradient_norm")):
        each = np.array([row[name] for row in record["steps"]])
        mean = [each[np.ceil(at) == end].mean() for end in ends]
        axis.plot(at, each, color=_BLUE, alpha=0.3, linewidth=0.8, label="batch")
        axis.plot(ends - 0.5, mean, color=_BLUE, label="mean of the epoch's batches")
        if name in record["tests"][0]:
            test = [row[name] for row in record["tests"]]
            axis.plot(ends, test, "o-", color=_RED, markersize=3.5, label="test set")
    norm.axhline(clip, color=_RED, linestyle="--", label="clipped above")
    rate.plot(at, [row["learning_rate"] for row in record["steps"]], color=_BLUE)
    loss.set(ylabel="cross-entropy loss (nats)", yscale="log")
    accuracy.set(ylabel="accuracy", ylim=(0.6, 1.01))
    rate.set(ylabel="learning rate", xlabel="epoch", ylim=(0, None))
    norm.set(ylabel="global gradient norm", xlabel="epoch", ylim=(0, None))
    for axis in (loss, accuracy, rate, norm):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.xaxis.get_major_locator().set_params(integer=True)
    for axis in (loss, accuracy, norm):
        axis.legend(frameon=False)
    right = record["tests"][-1]["accuracy"]
    figure.suptitle(f"{right:.2%} of the test digits right after {ends[-1]} epochs")
    figure.savefig(path, dpi=150)


def replicas_equal(tree: Any) -> bool:
    """Say whether all devices hold the same bits of a replicated tree."""
    copies = [leaf.addressable_shards for leaf in jax.tree.leaves(tree)]
    return all(
        len({np.asarray(c.data).tobytes() for c in leaf}) == 1 for leaf in copies
    )
