"""Hide leaves of a tree from a transformation, and bring them back."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from gradtx.core._tree import EveryParam, check_structure


class MaskedNode(NamedTuple):
    """What stands for a hidden leaf: a subtree without leaves."""


def hide(mask: Any, tree: Any) -> Any:
    """Replace the leaves of `tree` where `mask` is `False` by `MaskedNode()`.

    Args:
      mask: a tree of bools, of the structure of the parameters.
      tree: updates, or anything else of that structure.

    Raises:
      TreeMismatchError: if the structures differ.
    """
    if isinstance(tree, EveryParam):
        return tree
    check_structure(mask, tree, "params", "updates")
    return jax.tree.map(lambda keep, x: x if keep else MaskedNode(), mask, tree)


def reveal(mask: Any, inside: Any, outside: Any) -> Any:
    """Take the leaves of `inside` where `mask` is `True`, else those of `outside`."""
    flags, structure = jax.tree.flatten(mask)
    within = structure.flatten_up_to(inside)
    without = structure.flatten_up_to(outside)
    return structure.unflatten(
        [
            new if keep else old
            for keep, new, old in zip(flags, within, without, strict=True)
        ]
    )


def hide_like(mask: Any, value: Any) -> Any:
    """Hide the leaves of an extra argument if it is structured as the parameters."""
    fits = jax.tree.structure(value) == jax.tree.structure(mask)
    return hide(mask, value) if fits else value
