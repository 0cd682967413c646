"""Make pytrees of random numbers or keys."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import DTypeLike, dtype_of, shape_of

Tree = Any


def split_key_like(rng_key: jax.Array, target_tree: Tree) -> Tree:
    """Split a key into one for every leaf of a tree.

    Args:
      rng_key: a key, typed or raw.
      target_tree: a pytree whose structure the keys get.
    """
    structure = jax.tree.structure(target_tree)
    return structure.unflatten(list(jax.random.split(rng_key, structure.num_leaves)))


def random_like(
    rng_key: jax.Array,
    target_tree: Tree,
    sampler: Callable[..., jax.Array] = jax.random.normal,
    dtype: DTypeLike | None = None,
) -> Tree:
    """Draw random numbers of the shapes, dtypes and shardings of a tree.

    Args:
      rng_key: a key, typed or raw.
      target_tree: a pytree of arrays.
      sampler: `(key, shape, dtype) -> array`, such as a function of `jax.random`. Where
        it takes `out_sharding`, it gets the leaf's.
      dtype: dtype of all leaves instead of each target's own.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> noise = gradtx.tree.random_like(jax.random.key(0), {"w": jnp.zeros((2, 3))})
      >>> noise["w"].shape
      (2, 3)
    """
    sharded = "out_sharding" in inspect.signature(sampler).parameters

    def leaf(x, key):
        extra = {"out_sharding": jax.typeof(x).sharding} if sharded else {}
        return sampler(key, shape_of(x), dtype or dtype_of(x), **extra)

    return jax.tree.map(leaf, target_tree, split_key_like(rng_key, target_tree))


def unwrap_random_key_data(input_tree: Tree) -> Tree:
    """Replace typed keys by their data, so that a tree can be compared or stored."""

    def leaf(x):
        typed = isinstance(x, jax.Array) and jnp.issubdtype(
            x.dtype, jax.dtypes.prng_key
        )
        return jax.random.key_data(x) if typed else x

    return jax.tree.map(leaf, input_tree)
