"""Small states of several kinds, with values that tell one step from another."""

from __future__ import annotations

import pathlib
import types
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from gradtx import checkpoint
from gradtx.core import bits

SHAPES = {"w": (8, 6), "b": (6,)}
KEY = b"a secret of the campaigns"


class Kind(NamedTuple):
    """What is trained, and how it is saved."""

    tx: gradtx.GradientTransformation
    dtype: str = "float32"
    key: bytes | None = None
    shapes: Mapping[str, tuple[int, ...]] = types.MappingProxyType(SHAPES)


def kinds() -> dict[str, Kind]:
    """Return the kinds of states, by name."""
    noisy = gradtx.chain(gradtx.add_noise(0.1, 0.55, key=0), gradtx.adam(1e-3))
    return {
        "adamw": Kind(gradtx.adamw(1e-3)),
        "key": Kind(noisy),
        "accumulate": Kind(gradtx.accumulate(gradtx.adam(1e-3), every=3)),
        "bfloat16": Kind(gradtx.adamw(1e-3), dtype="bfloat16"),
        "signed": Kind(gradtx.sgd(0.1, momentum=0.9), key=KEY),
        "large": Kind(gradtx.adamw(1e-3), shapes={"w": (128, 256), "b": (256,)}),
    }


class Run(NamedTuple):
    """A run on the disk.

    Attributes:
      directory: where it is.
      kind: what was saved.
      trees: what was saved, by step and name.
    """

    directory: pathlib.Path
    kind: Kind
    trees: dict[int, dict[str, Any]]


def saved(directory: pathlib.Path, kind: Kind, numbers: tuple[int, ...]) -> Run:
    """Save one step for each number, and return what must come back."""
    params = {k: jnp.ones(s, kind.dtype) for k, s in kind.shapes.items()}
    fresh = {"params": params, "opt_state": jax.eval_shape(kind.tx.init, params)}
    fresh["generator"] = jax.random.key(0)
    trees = {number: filled(fresh, number) for number in numbers}
    for number, tree in trees.items():
        checkpoint.save(directory, number, tx=kind.tx, key=kind.key, **tree)
    return Run(directory, kind, trees)


def filled(tree: Any, seed: int) -> Any:
    """Return a tree like one of arrays or shapes, with numbers that tell its seed."""
    draw = np.random.default_rng(seed)

    def leaf(x: Any) -> Any:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.key(seed)
        if bits(x):
            return jnp.asarray(draw.normal(size=x.shape).astype(x.dtype))
        return jnp.asarray(np.full(x.shape, seed % 100, x.dtype))

    return jax.tree.map(leaf, tree)


def raw(tree: Any) -> list[bytes]:
    """Return the bytes of all leaves."""
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return [
        np.asarray(jax.random.key_data(x) if is_key(x) else x).tobytes()
        for x in jax.tree.leaves(tree)
    ]
