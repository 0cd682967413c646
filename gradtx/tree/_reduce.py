"""Reduce whole pytrees to one number, as if their leaves were one vector."""

from __future__ import annotations

import operator
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import ArgumentError, dtype_of, global_norm, scaled_norm, working
from gradtx.tree._casting import promoted

Tree = Any


def vdot(tree_x: Tree, tree_y: Tree) -> jax.Array:
    """Return the inner product of two trees: `Σ conj(x)·y`.

    Leaves of fewer than 32 bits are multiplied and summed in float32.

    Args:
      tree_x: a pytree of arrays; complex leaves are conjugated.
      tree_y: another one of the same structure and shapes.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> x, y = {"a": jnp.array([1.0, 2.0])}, {"a": jnp.array([3.0, -1.0])}
      >>> float(gradtx.tree.vdot(x, y))
      1.0
    """

    def leaf(x, y):
        x, y = working(jnp.asarray(x)), working(jnp.asarray(y))
        dtype = promoted(x.dtype, y.dtype)
        # no ravel: it would gather a sharded leaf
        return jnp.sum(jnp.conj(x).astype(dtype) * y.astype(dtype))

    return _reduced(operator.add, jax.tree.map(leaf, tree_x, tree_y), 0)


def sum(tree: Tree, associative_reduction: bool = False) -> Any:
    """Return the sum of all elements of all leaves.

    Args:
      tree: a pytree of arrays.
      associative_reduction: whether leaves are added in pairs rather than one by one.
    """
    sums = jax.tree.map(jnp.sum, tree)
    if associative_reduction:
        return jax.tree.reduce_associative(operator.add, sums, identity=0)
    return _reduced(operator.add, sums, 0)


def max(tree: Tree) -> Any:
    """Return the largest element of all leaves, `-inf` where there is none."""
    return _reduced(jnp.maximum, [jnp.max(x) for x in _filled(tree)], -float("inf"))


def min(tree: Tree) -> Any:
    """Return the smallest element of all leaves, `inf` where there is none."""
    return _reduced(jnp.minimum, [jnp.min(x) for x in _filled(tree)], float("inf"))


def norm(
    tree: Tree, ord: int | str | float | None = None, squared: bool = False
) -> jax.Array:
    """Return the norm of all elements of all leaves as one vector.

    `(Σ |x|²)^½`, `Σ |x|` or `max |x|`. The Euclidean norm is that of `global_norm`: it
    is summed in float32 or wider, and neither overflows nor underflows.

    Args:
      tree: a pytree of arrays.
      ord: `None` or 2, 1, or `jnp.inf` (also "inf" and "infinity").
      squared: whether to return the square of the norm.

    Raises:
      ArgumentError: for any other order.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> float(gradtx.tree.norm([jnp.array([3.0]), jnp.array([4.0])]))
      5.0

    Differs from optax: it is not computed in the leaves' own dtype.
    """
    if ord is None or ord == 2:
        if not squared:
            return global_norm(tree)
        root, scale = scaled_norm(tree)
        return jnp.square(root) / jnp.square(scale)
    magnitudes = [jnp.abs(working(x)) for x in jax.tree.leaves(tree)]
    if ord == 1:
        found = jnp.asarray(sum(magnitudes))
    elif ord in (jnp.inf, "inf", "infinity"):
        found = jnp.asarray(max(magnitudes))
    else:
        raise ArgumentError(f"ord must be None, 1, 2 or inf, got {ord!r}.", "norm")
    return jnp.square(found) if squared else found


def _filled(tree: Tree) -> list[jax.Array]:
    return [jnp.asarray(x) for x in jax.tree.leaves(tree) if jnp.size(x)]


def _reduced(operation: Any, scalars: Tree, initial: float) -> Any:
    """Reduce a tree of scalars; dtypes differ where leaves' do."""
    found: Any = initial
    for x in jax.tree.leaves(scalars):
        if isinstance(found, jax.Array) and found.dtype != dtype_of(x):
            dtype = promoted(found.dtype, dtype_of(x))
            found, x = found.astype(dtype), jnp.asarray(x).astype(dtype)
        found = operation(found, x)
    return found
