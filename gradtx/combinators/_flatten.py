"""Show a transformation one vector in place of a tree."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec

from gradtx.core import (
    Link,
    as_transformation,
    bits,
    cast,
    dtype_of,
    shape_of,
    transformation,
)


@transformation(
    # one leaf inside is all leaves outside
    adjust=lambda traits, given: traits.replace(
        reach="element" if traits.reach == "element" else "tree"
    )
)
def flatten(inner: Link):
    """Apply `inner` to all leaves joined in one vector.

    `u ← split(inner(concatenate(g)))`

    One large operation replaces many small ones. What `inner` measures for each leaf,
    such as a norm or a factored moment, it then measures for all leaves together.
    Leaves of different dtypes are joined in the widest. Integer leaves are left out.

    Args:
      inner: what to apply. Its state, which is that of the result, is made for the
        vector.

    Raises:
      TreeMismatchError: if updates and parameters differ in structure or shapes.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.flatten(gradtx.adam(1e-3))
      >>> tx.init({"w": jnp.ones((3, 2)), "b": jnp.ones(2)}).scale_by_adam.mu.shape
      (8,)

    Source: the fused optimizers of NVIDIA Apex (multi-tensor apply), as a layout.
    """
    inner = as_transformation(inner)

    def init(params):
        return inner.init(_joined(params))

    def update(updates, state, params=None, **extra):
        flat = None
        if params is not None:
            flat = _joined(params)
        made, state = inner.update(_joined(updates), state, flat, **extra)
        return _split(made, updates), state

    return init, update


def _joined(tree: Any) -> jax.Array:
    """Return the floating and complex leaves as one vector of their widest dtype."""
    leaves = [x for x in jax.tree.leaves(tree) if bits(x)]
    if not leaves:
        return jnp.zeros(0)
    with jax.numpy_dtype_promotion("standard"):
        dtype = functools.reduce(jnp.promote_types, map(dtype_of, leaves))
    vector = jnp.concatenate([jnp.ravel(cast(x, dtype)) for x in leaves])
    meshes = (x.sharding.mesh for x in leaves if _on_mesh(x))
    mesh = next(meshes, None)
    # the vector has no axis of the leaves over which it could be sharded
    everywhere = mesh and NamedSharding(mesh, PartitionSpec())
    return jax.device_put(vector, everywhere) if everywhere else vector


def _on_mesh(x: Any) -> bool:
    return (
        isinstance(x, jax.Array)
        and not isinstance(x, Tracer)
        and isinstance(x.sharding, NamedSharding)
    )


def _split(vector: jax.Array, like: Any) -> Any:
    """Cut a vector into leaves of the shapes and dtypes of those of `like`."""
    leaves, structure = jax.tree.flatten(like)
    made, start = [], 0
    for x in leaves:
        if bits(x):
            stop = start + math.prod(shape_of(x))
            made.append(cast(vector[start:stop].reshape(shape_of(x)), dtype_of(x)))
            start = stop
        else:
            made.append(x)
    return structure.unflatten(made)
