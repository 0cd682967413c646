"""Join the leaves of a tree in a few arrays."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec

from gradtx.core._call import dtype_of
from gradtx.core._collectives import varies_over
from gradtx.core._eager import is_traced
from gradtx.core._errors import ArgumentError, signed
from gradtx.core._layout import MOST, Group, Layout, Shape, is_array
from gradtx.core._packed import Packed, repack
from gradtx.core._selector import spread_prefix


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


def _packed(tree: Any, by: Any) -> Packed:
    leaves, structure = jax.tree.flatten(tree)
    labels = [None] * len(leaves)
    if by is not None:
        spread = spread_prefix(by(tree) if callable(by) else by, tree, "by")
        labels = jax.tree.leaves(spread)
    groups: dict[tuple[Any, ...], list[int]] = {}
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
    leaves = [x if is_array(x) else jnp.asarray(x) for x in leaves]
    if group.whole or is_traced():
        made = group.join(leaves)
    else:
        rows = [*leaves, jnp.zeros(group.padding, dtype_of(leaves[0]))]
        while len(rows) > 1:
            rows = [_laid(rows[i : i + MOST]) for i in range(0, len(rows), MOST)]
        made = rows[0]
    # under a trace the type alone says how an array is sharded
    return made if sharding is None or is_traced() else jax.device_put(made, sharding)


@jax.jit
def _laid(rows: list[Any]) -> jax.Array:
    return lax.concatenate([x.reshape(-1) for x in rows], 0)
