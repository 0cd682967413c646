"""Hold a tree of many leaves in a few arrays, and show it as the tree that it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from gradtx.core._errors import GradtxError, ShapeError, TreeMismatchError
from gradtx.core._layout import Layout, is_array


@jax.tree_util.register_pytree_with_keys_class
class Packed:
    """A tree held in a few arrays: one for each dtype, and for each label if asked.

    Made by `pack`. It is a pytree of these arrays, so `jit`, `grad`, `scan` and every
    transformation take it in place of the tree. What goes by element or by sums over
    all elements works on the arrays. What goes by leaf, such as a trust ratio, a
    matrix method or a mask that the labels do not follow, gets the tree.

    Attributes:
      arrays: the arrays, by name.
    """

    def __init__(self, parts: Sequence[Any], layout: Layout):
        self._parts = tuple(parts)
        self._layout = layout

    @property
    def arrays(self) -> dict[str, Any]:
        """The arrays by name."""
        names = (group.name for group in self._layout.groups)
        return dict(zip(names, self._parts, strict=True))

    def unpack(self) -> Any:
        """Return the tree.

        Inside `jit` its leaves are views; derivatives with respect to the `Packed`
        arrive packed. More axes in front, such as those of `vmap`, are each leaf's.
        """
        leaves: list[Any] = [None] * self._layout.structure.num_leaves
        for group, part in zip(self._layout.groups, self._parts, strict=True):
            for i, x in zip(group.members, group.split(part), strict=True):
                leaves[i] = x
        return self._layout.structure.unflatten(leaves)

    def blocks(self) -> list[tuple[tuple[int, ...], Any]]:
        """Return leaves of one shape together, as they lie in memory.

        Returns:
          The positions of leaves in the tree, and one array of shape `(leaves, *shape)`.
        """
        found = []
        for group, part in zip(self._layout.groups, self._parts, strict=True):
            found += group.blocks(part)
        return found

    def like(self, tree: Any) -> Packed:
        """Return another tree of the same structure, packed in the same way."""
        leaves = self._layout.structure.flatten_up_to(tree)
        parts = []
        for group in self._layout.groups:
            members = [leaves[i] for i in group.members]
            for i, x, shape in zip(group.members, members, group.shapes, strict=True):
                if is_array(x) and x.shape[x.ndim - len(shape) :] != shape:
                    paths = jax.tree_util.tree_leaves_with_path(tree)
                    raise ShapeError(
                        f"{jax.tree_util.keystr(paths[i][0])}: expected {shape}, got "
                        f"{x.shape}."
                    )
            parts.append(group.join(members))
        return Packed(parts, self._layout)

    def __getitem__(self, key: Any) -> Any:
        return self.unpack()[key]

    def __contains__(self, key: Any) -> bool:
        return key in as_shapes(self)

    def __iter__(self) -> Any:
        return iter(self.unpack())

    def __repr__(self) -> str:
        inside = ", ".join(
            f"{name}: {getattr(x, 'dtype', x)}{list(getattr(x, 'shape', ()))}"
            for name, x in self.arrays.items()
        )
        return f"Packed({self._layout.structure.num_leaves} leaves in {inside})"

    def tree_flatten_with_keys(self):
        """Return the arrays under their names."""
        keyed = [
            (jax.tree_util.DictKey(group.name), part)
            for group, part in zip(self._layout.groups, self._parts, strict=True)
        ]
        return keyed, self._layout

    def tree_flatten(self):
        """Return the arrays."""
        return self._parts, self._layout

    @classmethod
    def tree_unflatten(cls, layout: Layout, parts: Any) -> Packed:
        """Return one of other arrays."""
        return cls(parts, layout)


def unpack(tree: Any) -> Any:
    """Return `tree` with every `Packed` in it as the tree that it holds.

    The state of an optimizer of packed parameters becomes that of the parameters as
    they are: save this one, and `pack` what is restored like a fresh state.

    Args:
      tree: any pytree, such as a state.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> params = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
      >>> state = gradtx.adam(1e-3).init(gradtx.pack(params))
      >>> gradtx.unpack(state).scale_by_adam.mu["b"].tolist()
      [0.0, 0.0, 0.0]
    """
    if not has_packed(tree):
        return tree
    return jax.tree.map(
        lambda x: x.unpack() if is_packed(x) else x, tree, is_leaf=is_packed
    )


def is_packed(x: Any) -> bool:
    """Say whether `x` is a `Packed`."""
    return isinstance(x, Packed)


def has_packed(tree: Any) -> bool:
    """Say whether there is a `Packed` anywhere in `tree`."""
    return any(map(is_packed, jax.tree.leaves(tree, is_leaf=is_packed)))


def repack(tree: Any, like: Any) -> Any:
    """Return `tree`, packed where `like` is.

    Raises:
      Cut: if leaves that are no arrays differ within one array of `like`.
      TreeMismatchError: if the structures differ.
      ShapeError: if the shapes of two leaves differ.
    """
    nodes, structure = jax.tree.flatten(like, is_leaf=is_packed)
    try:
        parts = structure.flatten_up_to(tree)
        pairs = zip(nodes, parts, strict=True)
        made = [node.like(x) if is_packed(node) else x for node, x in pairs]
    except GradtxError:
        raise
    except (ValueError, TypeError) as error:
        raise TreeMismatchError(
            "a tree must have the structure and shapes of what it is packed like. "
            f"{' '.join(str(error).split())}"
        ) from None
    return structure.unflatten(made)


def as_shapes(tree: Any) -> Any:
    """Return the shapes and dtypes of `tree`, unpacked; itself if nothing is packed."""
    if not has_packed(tree):
        return tree
    shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype) if is_array(x) else x
    return unpack(jax.tree.map(shape, tree))
