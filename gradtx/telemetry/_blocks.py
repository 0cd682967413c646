"""Look at leaves of one shape together, and at small ones in few arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import GradtxError, Packed, as_shapes, bits, has_packed, pack

#: Leaves of fewer elements are packed to be measured, if there are so many of them: a
#: program with kernels for each leaf is slow to compile. Copies of larger ones would
#: take memory.
SMALL, FEW = 2**16, 8


class Block(NamedTuple):
    """Leaves of one shape.

    Attributes:
      places: which of the inexact leaves of the tree they are.
      arrays: for each tree by name, one array of shape (leaves, *shape).
    """

    places: tuple[int, ...]
    arrays: dict[str, jax.Array]


def blocks_of(trees: Mapping[str, Any]) -> list[Block]:
    """Return the inexact leaves of trees that are alike, packed or not, as blocks."""
    if not trees:
        return []
    leaves = jax.tree.leaves(as_shapes(next(iter(trees.values()))))
    inexact = [i for i, x in enumerate(leaves) if bits(x)]
    place = {i: k for k, i in enumerate(inexact)}
    columns = [_blocks(tree) for tree in trees.values()]
    found = []
    for row in zip(*columns, strict=True):
        members = row[0][0]
        if members[0] in place:
            arrays = dict(zip(trees, (array for _, array in row), strict=True))
            found.append(Block(tuple(place[i] for i in members), arrays))
    return found


def _blocks(tree: Any) -> list[tuple[tuple[int, ...], Any]]:
    found, begin = [], 0
    is_packed = lambda x: isinstance(x, Packed)
    for node in jax.tree.leaves(tree, is_leaf=is_packed):
        if is_packed(node):
            found += [(tuple(begin + i for i in m), x) for m, x in node.blocks()]
            begin += len(jax.tree.leaves(as_shapes(node)))
        else:
            found.append(((begin,), jnp.asarray(node)[None] if bits(node) else node))
            begin += 1
    return found


def packed_like(tree: Any) -> Any:
    """Return `tree` with its small leaves in few arrays; itself if that is no gain."""
    leaves = jax.tree.leaves(tree)
    small = [x.size < SMALL for x in leaves]
    if has_packed(tree) or sum(small) < FEW or not all(map(bits, leaves)):
        return tree
    # masks usually follow the number of axes
    labels = [
        f"small, {min(x.ndim, 2)}" if is_small else str(i)
        for i, (x, is_small) in enumerate(zip(leaves, small, strict=True))
    ]
    whole = jax.tree.unflatten(jax.tree.structure(tree), labels)
    return pack(tree, lambda _: whole)  # a module is a tree that can be called


def holder(template: Any) -> Callable[[Any], Any]:
    """Return a function that packs other trees as `packed_like` does the template."""
    like = packed_like(template)
    if like is template:
        return lambda tree: tree
    return lambda tree: pack(tree, like=like)


def held(
    links: Sequence[tuple[Any, Any]], trees: dict[str, Any], extra: Mapping[str, Any]
) -> tuple[Sequence[tuple[Any, Any]], dict[str, Any]]:
    """Return links with their states, and trees, that hold small leaves in few arrays.

    All as they are where that is no gain, or where a link may see the difference.

    Args:
      links: pairs of a link and its state.
      trees: `grads`, perhaps `params`, and trees like them.
      extra: further arguments of `update`.
    """
    template = trees.get("params", trees["grads"])
    same = jax.tree.map(jnp.shape, trees["grads"]) == jax.tree.map(jnp.shape, template)
    numbers = all(map(_is_scalar, extra.values()))
    like = packed_like(template) if same and numbers else template
    if like is template:
        return links, trees
    try:
        packed = [(tx, pack(s, like=jax.eval_shape(tx.init, like))) for tx, s in links]
        return packed, {name: pack(tree, like=like) for name, tree in trees.items()}
    except GradtxError:  # a state that is another than the link's `init` makes
        return links, trees


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (int, float)) or getattr(value, "shape", None) == ()
