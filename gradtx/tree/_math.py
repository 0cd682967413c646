"""Do arithmetic on whole pytrees, leaf by leaf."""

from __future__ import annotations

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import DTypeLike, Numeric, full_like

Tree = Any


def add(tree_x: Tree, tree_y: Tree, *other_trees: Tree) -> Tree:
    """Add trees of one structure, leaf by leaf: `x + y + …`.

    Args:
      tree_x: a pytree of arrays or numbers.
      tree_y: another one of the same structure.
      *other_trees: more of them.

    Example:
      >>> import gradtx
      >>> gradtx.tree.add({"a": 1.0}, {"a": 2.0}, {"a": 3.0})
      {'a': 6.0}
    """
    return jax.tree.map(
        lambda *x: functools.reduce(operator.add, x), tree_x, tree_y, *other_trees
    )


def sub(tree_x: Tree, tree_y: Tree) -> Tree:
    """Subtract two trees of one structure, leaf by leaf: `x − y`."""
    return jax.tree.map(operator.sub, tree_x, tree_y)


def mul(tree_x: Tree, tree_y: Tree) -> Tree:
    """Multiply two trees of one structure, leaf by leaf: `x·y`."""
    return jax.tree.map(operator.mul, tree_x, tree_y)


def div(tree_x: Tree, tree_y: Tree) -> Tree:
    """Divide two trees of one structure, leaf by leaf: `x/y`."""
    return jax.tree.map(operator.truediv, tree_x, tree_y)


def scale(scalar: Numeric | complex, tree: Tree) -> Tree:
    """Multiply every leaf by one number: `scalar·x`."""
    return jax.tree.map(lambda x: scalar * x, tree)


def add_scale(tree_x: Tree, scalar: Numeric, tree_y: Tree) -> Tree:
    """Add a multiple of one tree to another: `x + scalar·y`.

    Args:
      tree_x: a pytree; a `None` in it stays `None`.
      scalar: the factor.
      tree_y: a pytree of the same structure.
    """
    return jax.tree.map(
        lambda x, y: None if x is None else x + scalar * y,
        tree_x,
        tree_y,
        is_leaf=lambda x: x is None,
    )


def ones_like(tree: Tree, dtype: DTypeLike | None = None) -> Tree:
    """Return ones of the shapes and shardings of a tree.

    Args:
      tree: a pytree of arrays or of `jax.ShapeDtypeStruct`.
      dtype: dtype of every floating or complex leaf; by default its own.
    """
    return full_like(tree, 1, dtype)


def conj(tree: Tree) -> Tree:
    """Take the complex conjugate of every leaf."""
    return jax.tree.map(jnp.conj, tree)


def real(tree: Tree) -> Tree:
    """Take the real part of every leaf."""
    return jax.tree.map(jnp.real, tree)


def clip(
    tree: Tree, min_value: Numeric | None = None, max_value: Numeric | None = None
) -> Tree:
    """Bound every element: `min(max(x, min_value), max_value)`.

    Args:
      tree: a pytree of arrays.
      min_value: the least value; `None` for no bound.
      max_value: the largest value; `None` for no bound.
    """
    return jax.tree.map(lambda x: jnp.clip(x, min_value, max_value), tree)


def where(condition: Any, tree_x: Tree, tree_y: Tree) -> Tree:
    """Choose between two trees: `x` where the condition holds, else `y`.

    Args:
      condition: a boolean scalar or array that every leaf broadcasts with.
      tree_x: a pytree of arrays.
      tree_y: another one of the same structure.
    """
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), tree_x, tree_y)


def batch_shape(tree: Tree, shape: tuple[int, ...] = ()) -> Tree:
    """Repeat every leaf along new leading axes.

    Args:
      tree: a pytree of arrays of shape `(*s,)`.
      shape: the new axes.

    Returns:
      A pytree of arrays of shape `(*shape, *s)`.
    """
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *jnp.shape(x))), tree)


def allclose(
    a: Tree,
    b: Tree,
    rtol: Numeric = 1e-5,
    atol: Numeric = 1e-8,
    equal_nan: bool = False,
) -> Any:
    """Say whether two trees are equal within a tolerance: `|a − b| ≤ atol + rtol·|b|`.

    Args:
      a, b: pytrees of one structure.
      rtol: relative tolerance.
      atol: absolute tolerance.
      equal_nan: whether two NaN are equal.

    Returns:
      A boolean scalar.
    """
    close = jax.tree.map(
        lambda x, y: jnp.allclose(x, y, rtol=rtol, atol=atol, equal_nan=equal_nan), a, b
    )
    return functools.reduce(operator.and_, jax.tree.leaves(close), True)
