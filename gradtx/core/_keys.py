"""Keep keys of random numbers as plain integers, and derive one for each leaf."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._tree import path_of


def as_key(key: jax.Array | int) -> jax.Array:
    """Return an integer, or the data of a key, as a key that knows its generator."""
    if isinstance(key, int):
        return jax.random.key(key)
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    return jax.random.wrap_key_data(key)


def key_data(key: jax.Array | int) -> jax.Array:
    """Return the integers of a key, which any file format can hold.

    They have a buffer of their own: donating a state must not delete the caller's key.
    """
    return jnp.array(jax.random.key_data(as_key(key)), copy=True)


def next_keys(data: jax.Array, start: jax.Array | int) -> tuple[jax.Array, jax.Array]:
    """Return the data of the next key, and a key to use now.

    Args:
      data: the integers of the last key.
      start: the key, or integer, that a state began with; it knows the generator.
    """
    impl = jax.random.key_impl(as_key(start))
    following, now = jax.random.split(jax.random.wrap_key_data(data, impl=impl))
    return key_data(following), now


def keys_like(key: jax.Array, tree: Any) -> Any:
    """Return a key for each leaf, derived from the leaf's path.

    Adding or moving a leaf leaves the keys of the others as they were.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: _at(key, path), tree)


def _at(key: jax.Array, path: Any) -> jax.Array:
    digest = hashlib.sha256(path_of(path).encode()).digest()
    for part in (digest[:4], digest[4:8]):
        key = jax.random.fold_in(key, int.from_bytes(part, "little"))
    return key
