"""What is saved and what it is restored into: an optimizer and trees of arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gradtx

SHAPES = {"enc": {"b": (3,), "w": (4, 3)}, "out": (3, 2)}


class Side(NamedTuple):
    """One end of a restoration."""

    tx: Any
    trees: dict[str, Any]


def side(tx: Any, shapes: Any = SHAPES, dtype: Any = jnp.float32, **more: Any) -> Side:
    """Return a side with abstract parameters and the state that the optimizer has."""
    params = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, dtype),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple) and all(type(n) is int for n in x),
    )
    trees = {"params": params, **more}
    if tx is not None:
        trees["opt_state"] = jax.eval_shape(tx.init, params)
    return Side(tx, trees)


def filled(tree: Any, seed: int = 0) -> Any:
    """Return arrays for the abstract leaves of a tree; counters stand at 7."""
    rng = np.random.default_rng(seed)

    def leaf(x):
        if not isinstance(x, jax.ShapeDtypeStruct):
            return x
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            keys = jax.random.key(rng.integers(1000), impl=str(key_impl(x)))
            return keys if x.shape == () else jax.random.split(keys, x.shape)
        if jnp.issubdtype(x.dtype, jnp.inexact):
            return jnp.asarray(rng.normal(size=x.shape), x.dtype)
        return jnp.full(x.shape, x.dtype.type(7 if x.dtype != bool else 1))

    return jax.tree.map(leaf, tree)


def key_impl(key: Any) -> Any:
    """Return the generator of an abstract key."""
    found: list[Any] = []

    def ask(key):
        found.append(jax.random.key_impl(key))
        return key

    jax.eval_shape(ask, key)
    return found[0]


def numbers(tree: Any) -> list[tuple[str, Any, bytes]]:
    """Return dtypes, shapes and bytes of all leaves, with the data of typed keys."""
    found = []
    for x in jax.tree.leaves(gradtx.unpack(tree)):
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            found.append((str(jax.random.key_impl(x)), x.shape, _bytes(key_data(x))))
        else:
            kind = (
                type(x).__name__
                if isinstance(x, int | float | complex)
                else str(x.dtype)
            )
            found.append((kind, np.shape(x), _bytes(x)))
    return found


def key_data(key: Any) -> Any:
    """Return the numbers of a typed key."""
    return jax.random.key_data(key)


def _bytes(x: Any) -> bytes:
    return np.asarray(x).tobytes()


def assert_same_bits(got: Any, wanted: Any) -> None:
    """Compare structure, dtypes, shapes and bytes of two trees."""
    assert jax.tree.structure(gradtx.unpack(got)) == jax.tree.structure(
        gradtx.unpack(wanted)
    )
    assert numbers(got) == numbers(wanted)
