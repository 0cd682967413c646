"""Checkpoints of a run, which tell with what other settings it would go on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from _command_line import Refused

import gradtx
from gradtx import checkpoint

State = TypeVar("State")


def open_checkpoints(
    out: Path, tx: gradtx.GradientTransformation, *, empty: bool
) -> checkpoint.Manager:
    """Open the checkpoints of a run, of which the two newest are kept.

    Args:
      out: the folder of the run.
      tx: its optimizer.
      empty: whether to delete the checkpoints that are there.
    """
    manager = checkpoint.Manager(out.resolve() / "checkpoints", tx=tx, keep=2)
    for path in checkpoint.steps(manager.directory).values() if empty else ():
        shutil.rmtree(path)
    return manager


def save(manager: checkpoint.Manager, state: Any, record: Mapping[str, Any]) -> None:
    """Write a checkpoint in the background; it takes its place once complete.

    Args:
      manager: where checkpoints are kept.
      state: a tree of arrays.
      record: plain data.
    """
    steps = len(record["steps"])
    manager.save(
        record["epoch"], state=state, record=record, batches=steps, updates=steps
    )


def restore(
    manager: checkpoint.Manager,
    tx: gradtx.GradientTransformation,
    state: State,
    record: Mapping[str, Any],
    allow_change: bool,
) -> tuple[State, dict[str, Any], list[str]]:
    """Return the newest good checkpoint, unless other settings made it.

    Args:
      manager: where checkpoints are kept.
      tx: the optimizer that goes on.
      state: a state of the same structure.
      record: what the checkpoint's record would be, were it made now, before the
        first step.
      allow_change: whether the numbers that steer the run may differ.

    Returns:
      The state, its record, and a line for each newer checkpoint that is damaged.
    """
    if not manager.steps():
        raise Refused(f"nothing to resume in {manager.directory}.")
    names = list(gradtx.hyperparameters(tx))
    found = manager.restore(state=state, allow_hyperparameters=names)
    then, now = found.record["settings"], record["settings"]
    changes = [
        f"  {name}: {then[name]} -> {value}"
        for name, value in now.items()
        if then[name] != value
    ]
    changes += [
        f"  {change.path}: {change.then} -> {change.now}" for change in found.changes
    ]
    if changes and not allow_change:
        raise Refused(
            "the checkpoint was made with other settings (then -> now):\n"
            + "\n".join(changes)
            + "\nGive those of then, another --out, or --allow-change to go on."
        )
    skipped = [
        f"{path.name} is damaged, and left out: {why}" for path, why in found.skipped
    ]
    return found["state"], {**found.record, "settings": now}, skipped
