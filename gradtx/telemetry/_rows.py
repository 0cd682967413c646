"""Lay what is measured of each leaf out in rows: all, each group, each leaf."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core import (
    ArgumentError,
    as_shapes,
    bits,
    cast,
    leaf_norm,
    slashed,
    spread_prefix,
)


class Rows(NamedTuple):
    """The rows of a table: first all leaves, then each group, then each leaf.

    Groups and leaves come in the order of their names, in which dictionaries of JAX
    keep their keys. Leaves are those that hold floating or complex numbers.

    Attributes:
      groups: labels of groups.
      leaves: paths of leaves.
      order: for each path, its position in the tree.
      members: for each row but those of single leaves, which leaves of the tree it
        covers: bools of shape (1 + groups, leaves).
      each: whether single leaves have rows.
    """

    groups: tuple[str, ...]
    leaves: tuple[str, ...]
    order: tuple[int, ...]
    members: np.ndarray
    each: bool

    @property
    def leaves_in_order(self) -> tuple[str, ...]:
        """The paths in the order of the tree."""
        named = dict(zip(self.order, self.leaves, strict=True))
        return tuple(named[i] for i in range(len(named)))

    @property
    def whole(self) -> Rows:
        """The rows without those of single leaves."""
        return self._replace(each=False)

    @property
    def count(self) -> int:
        """The number of rows."""
        return len(self.members) + self.each * len(self.leaves)

    def norms(self, leaves: jax.Array) -> jax.Array:
        """Return the norm of each row, from those of single leaves, (leaves,)."""
        parts = jnp.where(self.members, leaves[None], 0)
        rows = leaf_norm(parts, axis=1).bounded[:, 0]
        return self._with_each(cast(rows, jnp.float32), leaves)

    def sums(self, leaves: jax.Array) -> jax.Array:
        """Return the sum of each row, from numbers or rows of them, (leaves, …)."""
        mask = self.members.astype(np.float32)
        return self._with_each(
            jnp.matmul(mask, leaves, precision=lax.Precision.HIGHEST), leaves
        )

    def largest(self, leaves: jax.Array) -> jax.Array:
        """Return the largest number of each row, from those of single leaves."""
        parts = jnp.where(self.members, leaves[None], 0)
        return self._with_each(jnp.max(parts, axis=1, initial=0), leaves)

    def first(self, leaves: jax.Array) -> jax.Array:
        """Return which path is the first in the tree whose number is not 0, or −1."""
        if not self.leaves:
            return jnp.full((), -1, jnp.float32)
        named = jnp.array(np.argsort(np.array(self.order)), jnp.float32)
        found = leaves != 0
        return jnp.where(jnp.any(found), named[jnp.argmax(found)], -1)

    def _with_each(self, rows: jax.Array, column: jax.Array) -> jax.Array:
        if not self.each:
            return rows
        return jnp.concatenate([rows, column[np.array(self.order, int)]])


def rows_of(params: Any, groups: Any, each: bool) -> Rows:
    """Return the rows for trees like `params`.

    Args:
      params: a pytree of arrays or of their shapes.
      groups: labels for leaves: a tree like `params` or a prefix of it, a function
        from it to one, or `None`.
      each: whether single leaves have rows.

    Raises:
      ArgumentError: if the labels do not fit the tree.
    """
    seen = as_shapes(params)
    found = paths_of(seen)
    labels: Any = None
    if groups is not None:
        spread = spread_prefix(
            groups(seen) if callable(groups) else groups, seen, "groups"
        )
        labels = jax.tree.leaves(spread)
    inexact = [(i, x) for i, x in enumerate(jax.tree.leaves(seen)) if bits(x)]
    marks = [_label(labels[i]) for i, _ in inexact] if labels is not None else []
    order = tuple(sorted(range(len(found)), key=found.__getitem__))
    names = tuple(sorted(set(marks)))
    masks = [[True] * len(found), *([mark == name for mark in marks] for name in names)]
    return Rows(
        groups=names,
        leaves=tuple(sorted(found)),
        order=order,
        members=np.array(masks, bool).reshape(len(masks), len(found)),
        each=each,
    )


def paths_of(tree: Any) -> tuple[str, ...]:
    """Return the paths of the leaves that hold floating or complex numbers."""
    paths: dict[str, None] = {}
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        if bits(x):
            name = slashed(path) or "params"
            while name in paths:  # {"a": {"b": …}, "a/b": …}
                name += "'"
            paths[name] = None
    return tuple(paths)


def _label(label: Any) -> str:
    if label is None or label == "":
        raise ArgumentError("groups must label every leaf with a name, got none.")
    return str(label)
