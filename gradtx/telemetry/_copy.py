"""Copy small arrays on the device, for a thread to read when it comes to them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer


def copied(tree: Any) -> Any:
    """Return a tree whose arrays are copies that nothing donates; does not wait.

    Raises:
      TypeError: if arrays are traced.
    """
    leaves, structure = jax.tree.flatten(tree)
    where = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]
    if not where:
        return tree
    arrays = [_local(leaves[i]) for i in where]
    try:
        copies = _copies(arrays)
    except ValueError:  # they lie on other devices than one another
        copies = [jnp.copy(array) for array in arrays]
    for i, copy in zip(where, copies):
        leaves[i] = copy
    return jax.tree.unflatten(structure, leaves)


@jax.jit
def _copies(arrays: list[jax.Array]) -> list[jax.Array]:
    return [jnp.copy(x) for x in arrays]


def _local(array: jax.Array) -> jax.Array:
    if isinstance(array, Tracer):
        raise TypeError("expected values, got a tracer; record what `jit` returns.")
    if not array.is_fully_addressable and array.is_fully_replicated:
        return array.addressable_data(0)  # the other processes need not take part
    return array
