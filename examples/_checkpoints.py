"""Checkpoints that know how they were made: arrays, a record and the optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from _command_line import Refused

import gradtx

State = TypeVar("State")


def open_checkpoints(out: Path, *, empty: bool) -> ocp.CheckpointManager:
    """Open the checkpoints of a run, of which the two newest are kept.

    Args:
      out: the folder of the run.
      empty: whether to delete the checkpoints that are there.
    """
    keep = ocp.CheckpointManagerOptions(max_to_keep=2)
    manager = ocp.CheckpointManager(out.resolve() / "checkpoints", options=keep)
    for epoch in manager.all_steps() if empty else ():
        manager.delete(epoch)
    return manager


def save(manager: ocp.CheckpointManager, state: Any, record: Mapping[str, Any]) -> None:
    """Write a checkpoint in the background; it takes its place once complete.

    Args:
      manager: where checkpoints are kept.
      state: a tree of arrays.
      record: plain data. It must not change afterwards: it is written later.
    """
    record = {**record, "shapes": shapes_of(state)}
    parts = {"state": ocp.args.StandardSave(state), "record": ocp.args.JsonSave(record)}
    manager.save(record["epoch"], args=ocp.args.Composite(**parts))


def restore(
    manager: ocp.CheckpointManager,
    state: State,
    record: Mapping[str, Any],
    allow_change: bool,
) -> tuple[State, dict[str, Any]]:
    """Return the newest checkpoint, unless other settings made it.

    Args:
      manager: where checkpoints are kept.
      state: a state of the same structure.
      record: what the checkpoint's record would be, were it made now, before the
        first step.
      allow_change: whether the numbers that steer the run may differ.
    """
    epoch = manager.latest_step()
    if epoch is None:
        raise Refused(f"nothing to resume in {manager.directory}.")

    def read(**part: Any) -> Any:
        try:
            return manager.restore(epoch, args=ocp.args.Composite(**part))
        except ValueError as error:
            raise Refused(
                f"the checkpoint {manager.directory / str(epoch)} is damaged. Delete "
                "it to go on from the one before."
            ) from error

    saved = read(record=ocp.args.JsonRestore())["record"]
    changes = differences(settings_of(saved), settings_of(record))
    if changes and not allow_change:
        raise Refused(
            "the checkpoint was made with other settings (then -> now):\n"
            + "\n".join(changes)
            + "\nGive those of then, another --out, or --allow-change to go on."
        )
    if changes := differences(saved["shapes"], shapes_of(state)):
        raise Refused(
            "the checkpoint has other arrays (then -> now):\n"
            + "\n".join(changes)
            + "\nGive another --out."
        )
    state = read(state=ocp.args.StandardRestore(state))["state"]
    return state, {**saved, **{k: record[k] for k in ("settings", "optimizer")}}


def settings_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what steers a run, by path: its settings and all hyperparameters."""
    tx = gradtx.build(record["optimizer"])
    return record["settings"] | gradtx.hyperparameters(tx)


def shapes_of(state: Any) -> dict[str, list[int]]:
    """Return the shapes of the arrays of a tree, by path."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): list(np.shape(leaf)) for path, leaf in leaves}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return a line for each name whose value is not the same in both."""
    values = {
        name: (old.get(name, "absent"), new.get(name, "absent"))
        for name in {**old, **new}
    }
    return [f"  {name}: {a} -> {b}" for name, (a, b) in values.items() if a != b]
