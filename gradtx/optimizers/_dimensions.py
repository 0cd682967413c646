"""Find the dimension numbers of each leaf."""

from __future__ import annotations

from typing import Any

import jax

from gradtx.core import ArgumentError, shape_of
from gradtx.matrix import MuonDimensionNumbers


def dimensions_of(given: Any, tree: Any) -> list[MuonDimensionNumbers | None]:
    """Return dimension numbers, or `None` for no matrix, of every leaf of `tree`.

    Args:
      given: a tree of dimension numbers and `None`, like `tree` or a prefix of it, or
        a function from `tree` to one; `None` alone makes matrices of leaves of two axes.
      tree: parameters or updates.

    Raises:
      ArgumentError: if the dimension numbers do not fit the tree.
    """
    leaves = jax.tree.leaves(tree)
    if not leaves:
        return []
    if given is None:
        default = MuonDimensionNumbers()
        return [default if len(shape_of(x)) == 2 else None for x in leaves]
    if callable(given):
        given = given(tree)
    flat, structure = jax.tree.flatten(given, is_leaf=_is_whole)
    try:
        parts = structure.flatten_up_to(tree)
    except ValueError as error:
        raise ArgumentError(
            "dimension numbers must have the structure of the parameters or of a "
            f"prefix of them. {' '.join(str(error).split())}"
        ) from None
    found = []
    for dims, part in zip(flat, parts, strict=True):
        if not _is_whole(dims):
            raise ArgumentError(f"expected dimension numbers or None, got {dims!r}.")
        found += [dims] * len(jax.tree.leaves(part))
    return found


def _is_whole(x: Any) -> bool:
    return x is None or isinstance(x, MuonDimensionNumbers)
