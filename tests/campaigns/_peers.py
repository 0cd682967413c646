"""Save one state by other formats, damage it in the same ways, and read it back."""

from __future__ import annotations

import pathlib
import pickle
import random
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from tests.campaigns._faults import FAULTS, Step
from tests.campaigns._figures import Figures
from tests.campaigns._states import filled, kinds, raw

#: The ways that need no name of a file of gradtx.
WAYS = [
    "flip one bit",
    "truncate",
    "zero a block",
    "overwrite by random bytes",
    "swap two blocks",
    "append bytes",
    "cut bytes out",
    "swap two files",
    "delete a file",
]


class Format(NamedTuple):
    """How a format saves a tree into a directory, and reads it into one like it."""

    save: Callable[[pathlib.Path, Any], None]
    load: Callable[[pathlib.Path, Any], Any]


def formats() -> dict[str, Format]:
    """Return the formats by name."""
    return {
        "Orbax StandardCheckpointer": Format(_save_orbax, _load_orbax),
        "flax.serialization.to_bytes": Format(_save_flax, _load_flax),
        "torch.save": Format(_save_torch, _load_torch),
        "pickle": Format(_save_pickle, _load_pickle),
        "np.savez": Format(_save_npz, _load_npz),
    }


def campaign(
    name: str, made: Format, cases: int, seed: int, directory: pathlib.Path
) -> Figures:
    """Return the figures of one format."""
    draw, row = random.Random(seed), Figures(name)
    kind = kinds()["large"]
    params = {k: np.ones(s, np.float32) for k, s in kind.shapes.items()}
    fresh = {"params": params, "opt_state": jax.eval_shape(kind.tx.init, params)}
    like = jax.tree.map(np.asarray, filled(fresh, 0))
    trees = [jax.tree.map(np.asarray, filled(fresh, number)) for number in (1, 2)]
    steps = []
    for number, tree in enumerate(trees):
        path = directory / str(number)
        path.mkdir(parents=True)
        made.save(path, tree)
        assert raw(made.load(path, like)) == raw(tree)
        steps.append(Step(path, directory / "spare"))
    weights = [FAULTS[way][1] for way in WAYS]
    for _ in range(cases):
        (way,) = draw.choices(WAYS, weights)
        step, other = steps[::-1]
        row.cases += 1
        if not FAULTS[way][0](step, other, draw):
            row.harmless += 1
        else:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found = raw(made.load(step.path, like))
            except Exception:  # whatever it says, it was not silent
                row.detected += 1
            else:
                same = found == raw(trees[1])
                row.harmless += same
                row.silent += not same
        step.mend()
    return row


def _save_orbax(path: pathlib.Path, tree: Any) -> None:
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute() / "arrays", tree)


def _load_orbax(path: pathlib.Path, like: Any) -> Any:
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path.absolute() / "arrays", like)


def _save_flax(path: pathlib.Path, tree: Any) -> None:
    from flax import serialization

    (path / "state.msgpack").write_bytes(serialization.to_bytes(tree))


def _load_flax(path: pathlib.Path, like: Any) -> Any:
    from flax import serialization

    return serialization.from_bytes(like, (path / "state.msgpack").read_bytes())


def _save_torch(path: pathlib.Path, tree: Any) -> None:
    import torch

    leaves = [torch.tensor(x) for x in jax.tree.leaves(tree)]
    torch.save(leaves, path / "state.pt")


def _load_torch(path: pathlib.Path, like: Any) -> Any:
    import torch

    return [x.numpy() for x in torch.load(path / "state.pt", weights_only=True)]


def _save_pickle(path: pathlib.Path, tree: Any) -> None:
    (path / "state.pickle").write_bytes(pickle.dumps(jax.tree.leaves(tree)))


def _load_pickle(path: pathlib.Path, like: Any) -> Any:
    return pickle.loads((path / "state.pickle").read_bytes())


def _save_npz(path: pathlib.Path, tree: Any) -> None:
    arrays = {str(i): x for i, x in enumerate(jax.tree.leaves(tree))}
    np.savez(path / "state.npz", **arrays)


def _load_npz(path: pathlib.Path, like: Any) -> Any:
    with np.load(path / "state.npz") as arrays:
        return [arrays[str(i)] for i in range(len(arrays.files))]
