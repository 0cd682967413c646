"""Checkpoints: seconds to save, verify and restore a state, beside plain Orbax."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

import gradtx
from benchmarks import _timing, _trees
from benchmarks._options import Options, Row

TITLE = "Checkpoints of parameters and the moments of Adam"
NOTE = (
    "Everything is written to the disk and waited for; the numbers are random. gradtx "
    "writes its arrays by Orbax, not compressed, hashes every leaf and every file, and reads "
    "the arrays back before the step counts; `verify` reads all bytes. Orbax "
    "is as it comes, and with the settings that gradtx gives it: it verifies nothing. "
    "“Blocked” is how long the training waits for a save in the background."
)


def run(options: Options) -> list[Row]:
    """Measure on each tree that is asked for."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    rows: list[Row] = []
    for tree in options.trees or (("mlp",) if options.quick else ("gpt2",)):
        rows += _measured(tree, options)
    return rows


def _measured(tree: str, options: Options) -> list[Row]:
    shapes = _trees.shapes(tree, options.size)
    random = np.random.default_rng(0)

    def drawn(x: Any) -> Any:
        # what repeats, or is zero, would compress as no trained state does
        numbers = random.standard_normal(x.shape, np.float32)
        return jax.numpy.asarray(numbers if x.ndim else x)

    tx = gradtx.adamw(1e-3)
    params = jax.tree.map(drawn, jax.tree.map(np.empty, shapes, is_leaf=_is_shape))
    trees = {"params": params, "opt_state": jax.tree.map(drawn, tx.init(params))}
    where = Path(tempfile.mkdtemp(prefix="gradtx-benchmark-"))
    try:
        return _rows(tree, where, tx, jax.block_until_ready(trees), options)
    finally:
        shutil.rmtree(where)


def _is_shape(node: Any) -> bool:
    return isinstance(node, tuple)


def _rows(tree: str, where: Path, tx: Any, trees: Any, options: Options) -> list[Row]:
    plain = ocp.PyTreeCheckpointHandler()
    bare = ocp.PyTreeCheckpointHandler(use_compression=False)
    orbax = {
        "orbax": ocp.Checkpointer(plain),
        "orbax, not compressed": ocp.Checkpointer(bare),
    }
    behind = ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler())
    manager = gradtx.checkpoint.Manager(where / "managed", tx=tx, keep=1)
    wanted = ocp.checkpoint_utils.construct_restore_args(trees)
    steps = iter(range(10**9))

    def ours() -> None:
        gradtx.checkpoint.save(where, next(steps), tx=tx, **trees)

    def theirs(name: str) -> None:
        args = ocp.args.PyTreeSave(trees)
        orbax[name].save(where / f"orbax-{next(steps)}", args=args)

    kept = gradtx.checkpoint.save(where / "kept", 0, tx=tx, **trees)
    for name, checkpointer in orbax.items():
        checkpointer.save(where / f"kept-{name}", args=ocp.args.PyTreeSave(trees))

    def read(name: str) -> Any:
        args = ocp.args.PyTreeRestore(item=trees, restore_args=wanted)
        return orbax[name].restore(where / f"kept-{name}", args=args)

    measures = {
        "save": {"gradtx": ours} | {n: partial(theirs, n) for n in orbax},
        "read": {
            "gradtx, verify": lambda: gradtx.checkpoint.verify(kept),
            "gradtx, restore": lambda: gradtx.checkpoint.restore(kept, tx=tx, **trees),
        }
        | {n: partial(read, n) for n in orbax},
    }
    rows = []
    for measure, runs in measures.items():
        seconds = _in_turn(runs, where, rounds=2 if options.quick else 5)
        rows += [_row(tree, measure, name, seconds) for name in runs]
    blocked: dict[str, list[float]] = {"gradtx": [], "orbax": []}
    for _ in range(2 if options.quick else 5):
        blocked["gradtx"].append(
            _timing.once(lambda: manager.save(next(steps), **trees))
        )
        manager.wait()
        path = where / f"behind-{next(steps)}"
        save = partial(behind.save, path, args=ocp.args.PyTreeSave(trees))
        blocked["orbax"].append(_timing.once(save))
        behind.wait_until_finished()
        shutil.rmtree(path)
    manager.close()
    behind.close()
    return [*rows, *(_row(tree, "blocked", name, blocked) for name in blocked)]


def _in_turn(
    runs: dict[str, Callable[[], Any]], where: Path, rounds: int
) -> dict[str, list[float]]:
    """Time each run once a round; what it wrote is deleted outside of the clock."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for round_ in range(rounds + 1):
        start = round_ % len(names)
        for name in names[start:] + names[:start]:
            before = set(os.listdir(where))
            taken = _timing.once(runs[name])
            for written in set(os.listdir(where)) - before:
                shutil.rmtree(where / written)
            os.sync()
            if round_ > 0:  # the first warms up
                seconds[name].append(taken)
    return seconds


def _row(tree: str, measure: str, name: str, seconds: dict[str, list[float]]) -> Row:
    return {
        "measure": measure,
        "tree": tree,
        "subject": name,
        "unit": "s",
        "value": _timing.median(seconds[name]),
        "to_orbax": _timing.ratio(seconds[name], seconds["orbax"]),
    }
