"""Hold a tree of many leaves in a few arrays, and show it as the tree that it is."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec

from gradtx.core._call import dtype_of
from gradtx.core._collectives import varies_over
from gradtx.core._eager import is_traced
from gradtx.core._errors import (
    ArgumentError,
    GradtxError,
    ShapeError,
    TreeMismatchError,
    signed,
)

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Group:
    """The leaves that lie in one array.

    Attributes:
      name: what the array is called in paths.
      members: the positions of the leaves in the tree, in their order in the array.
      shapes: their shapes.
      whole: whether they keep their axes, stacked along a new first one, since one of
        these is sharded; else all lie flat, one after another, and zeros after them.
    """

    name: str
    members: tuple[int, ...]
    shapes: tuple[Shape, ...]
    whole: bool

    def join(self, leaves: Sequence[Any]) -> Any:
        """Return the leaves as one array; if they are no arrays, what they all are."""
        if not any(map(_is_array, leaves)):
            if any(x != leaves[0] for x in leaves):
                raise Cut
            return leaves[0]
        batch = leaves[0].shape[: leaves[0].ndim - len(self.shapes[0])]
        rows = []
        for x, shape in zip(leaves, self.shapes, strict=True):
            inner = (1, *shape) if self.whole else (math.prod(shape),)
            rows.append(x.reshape(*batch, *inner))
        if dtype_of(leaves[0]) == jax.dtypes.float0:
            return np.concatenate(rows, axis=len(batch))
        if self.padding:
            rows.append(jnp.zeros((*batch, self.padding), dtype_of(leaves[0])))
        return rows[0] if len(rows) == 1 else lax.concatenate(rows, len(batch))

    @functools.cached_property
    def padding(self) -> int:
        """How many zeros follow the leaves of a flat array.

        On a CPU, XLA took 4.5 times as long for 10,814,867 numbers as for one more.
        """
        return 0 if self.whole else -sum(map(math.prod, self.shapes)) % 64

    def split(self, array: Any) -> list[Any]:
        """Return the leaves that `join` made `array` of."""
        if not _is_array(array):
            return [array] * len(self.members)
        axis = array.ndim - (1 + len(self.shapes[0]) if self.whole else 1)
        shapes = [(*array.shape[:axis], *shape) for shape in self.shapes]
        if isinstance(array, jax.ShapeDtypeStruct):
            return [jax.ShapeDtypeStruct(s, array.dtype) for s in shapes]
        sizes = [1 if self.whole else math.prod(s) for s in self.shapes]
        if dtype_of(array) == jax.dtypes.float0:
            parts = np.split(array, np.cumsum(sizes), axis)
        else:
            # its derivative is a concatenation, where that of slices is a sum of pads
            padding = [self.padding] if self.padding else []
            parts = lax.split(array, sizes + padding, axis)
        # what is left over is padding
        return [x.reshape(s) for x, s in zip(parts, shapes, strict=False)]


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """Where each leaf of a tree lies: the static part of a `Packed`."""

    structure: Any
    groups: tuple[Group, ...]

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Layout)
            and self._key == other._key
            and self.structure == other.structure
        )

    def __hash__(self) -> int:
        return self._key

    def __repr__(self) -> str:
        return f"{self.structure.num_leaves} leaves in {len(self.groups)} arrays"

    @functools.cached_property
    def _key(self) -> int:
        return hash((self.structure, self.groups))


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

    def like(self, tree: Any) -> Packed:
        """Return another tree of the same structure, packed in the same way."""
        leaves = self._layout.structure.flatten_up_to(tree)
        parts = []
        for group in self._layout.groups:
            members = [leaves[i] for i in group.members]
            for i, x, shape in zip(group.members, members, group.shapes, strict=True):
                if _is_array(x) and x.shape[x.ndim - len(shape) :] != shape:
                    paths = jax.tree_util.tree_leaves_with_path(tree)
                    raise ShapeError(
                        f"{jax.tree_util.keystr(paths[i][0])}: expected {shape}, got "
                        f"{x.shape}."
                    )
            parts.append(group.join(members))
        return Packed(parts, self._layout)

    def __getitem__(self, key: Any) -> Any:
        return self.unpack()[key]

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


class Cut(Exception):
    """Leaves in one array differ in what is said of them, such as a mask's flag."""


def pack(tree: Any, by: Any = None, *, like: Any = None) -> Any:
    """Return `tree` held in a few arrays, so that its number of leaves costs nothing.

    Leaves of one dtype and one label are joined in one array, those that are sharded
    only with leaves of their own shape and sharding. A loss takes the result and
    unpacks it, inside `jit`, where it needs the tree; gradients arrive packed. See
    `docs/performance.md` for when that is faster.

    Args:
      tree: parameters, or any pytree of arrays.
      by: labels that keep leaves apart: a mask, a function from paths such as
        `label_paths(...)` or `ndim_at_least(2)`, or a tree of labels like `tree` or a
        prefix of it. Masks and partitions that follow the same lines then work on the
        arrays.
      like: a `Packed`, or a tree with some inside, as which to pack: gradients like
        their parameters, a restored state like a fresh one.

    Returns:
      A `Packed`; with `like`, a tree of its structure.

    Raises:
      ArgumentError: if both `by` and `like` are given, or the labels do not fit.
      TreeMismatchError: if `tree` has not the structure of `like`.
      ShapeError: if a leaf has not the shape that `like` has.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> params = gradtx.pack({"w": jnp.ones((2, 3)), "b": jnp.zeros(3)})
      >>> params
      Packed(2 leaves in float32: float32[64])
      >>> grads = jax.grad(lambda p: jnp.sum(p.unpack()["w"] ** 2))(params)
      >>> grads["w"].shape, grads.arrays["float32"].shape
      ((2, 3), (64,))

    Source: the fused optimizers of NVIDIA Apex (multi-tensor apply), as a layout.
    """
    with signed("pack"):
        if like is None:
            return _packed(tree, by)
        if by is not None:
            raise ArgumentError("by= and like= exclude one another: give one of them.")
        return repack(tree, like)


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
    """Return the shapes and dtypes of `tree`, unpacked; nothing is computed."""
    shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype) if _is_array(x) else x
    return unpack(jax.tree.map(shape, tree))


def _is_array(x: Any) -> bool:
    return isinstance(x, (jax.Array, np.ndarray, jax.ShapeDtypeStruct))


def _packed(tree: Any, by: Any) -> Packed:
    leaves, structure = jax.tree.flatten(tree)
    labels = [None] * len(leaves) if by is None else _labels(by, tree)
    groups: dict[Hashable, list[int]] = {}
    for i, (x, label) in enumerate(zip(leaves, labels, strict=True)):
        groups.setdefault((label, str(dtype_of(x)), *_place(x)), []).append(i)
    made, parts, names = [], [], set()
    for (label, dtype, shape, spec, _), members in groups.items():
        # equal shapes lie side by side, matrices apart from vectors
        members.sort(key=lambda i: (jnp.ndim(leaves[i]), jnp.shape(leaves[i])))
        name = "".join(
            map(str, (f"{label}: " * (label is not None), dtype, shape or ""))
        )
        while name in names:
            name += "'"
        names.add(name)
        shapes = tuple(jnp.shape(leaves[i]) for i in members)
        group = Group(name, tuple(members), shapes, shape is not None)
        made.append(group)
        parts.append(_joined(group, [leaves[i] for i in members], spec))
    return Packed(parts, Layout(structure, tuple(made)))


def _labels(by: Any, tree: Any) -> list[Any]:
    if callable(by):
        by = by(tree)
    try:
        spread = jax.tree.map(lambda tag, x: jax.tree.map(lambda _: tag, x), by, tree)
    except ValueError as error:
        raise ArgumentError(
            "by must have the structure of the tree or of a prefix of it. "
            f"{' '.join(str(error).split())}"
        ) from None
    return jax.tree.leaves(spread)


def _place(x: Any) -> tuple[Shape | None, Any, Any]:
    """Return what keeps a leaf apart: shape and sharding if sharded, and its mesh."""
    sharding = getattr(jax.typeof(x) if isinstance(x, Tracer) else x, "sharding", None)
    varying = varies_over(x) if isinstance(x, Tracer) else None
    if not isinstance(sharding, NamedSharding):
        return None, None, varying
    if any(axes is not None for axes in sharding.spec):
        stacked = NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec))
        return jnp.shape(x), stacked, varying
    replicated = NamedSharding(sharding.mesh, PartitionSpec())
    return None, None if isinstance(x, Tracer) else replicated, varying


def _joined(group: Group, leaves: list[Any], sharding: Any) -> Any:
    if any(isinstance(x, jax.ShapeDtypeStruct) for x in leaves):
        made = jax.eval_shape(lambda *leaves: group.join(leaves), *leaves)
        return jax.ShapeDtypeStruct(made.shape, made.dtype)
    leaves = [x if _is_array(x) else jnp.asarray(x) for x in leaves]
    if group.whole or is_traced():
        made = group.join(leaves)
    else:
        made = _compiled_join(group, leaves)
    # under a trace the type alone says how an array is sharded
    return made if sharding is None or is_traced() else jax.device_put(made, sharding)


@functools.partial(jax.jit, static_argnums=0)
def _compiled_join(group: Group, leaves: list[Any]) -> Any:
    return group.join(leaves)
