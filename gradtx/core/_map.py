"""Lift the maths of one leaf over pytrees: the one place where leaves are looped over.

It carries the dtype rules: a leaf function sees numbers of 32 bits or more, its
update leaves in the gradient's dtype, its states in the dtype that `init` gave them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from gradtx.core._call import dtype_of
from gradtx.core._eager import each
from gradtx.core._errors import DtypeError, ShapeError
from gradtx.core._numerics import bits, cast, working
from gradtx.core._tree import check_shapes, check_structure, path_at, shape_of

T = TypeVar("T")


class any_shape(NamedTuple, Generic[T]):
    """Mark a tree whose leaves need not have the shapes of the updates."""

    tree: T


def map_leaves(
    leaf: Callable[..., Any],
    updates: Any,
    *trees: Any,
    outputs: int = 1,
    **scalars: Any,
) -> Any:
    """Apply `leaf` to every leaf of `updates` and of the trees beside it.

    `leaf(g, *one leaf of each tree, **scalars)` gets arrays of float32, float64,
    complex64 or complex128 and returns `outputs` arrays: the new update, then the new
    values of the first `outputs − 1` trees. The update is converted to the dtype of
    `g`, each state to the dtype it had, so that a state never changes its type.

    `None` and masked leaves are skipped. A `float0` gradient, which belongs to an
    integer parameter, passes untouched together with its states.

    Args:
      leaf: the maths of one leaf. `g` has any shape, states have the same one.
      updates: gradients or updates.
      *trees: states first, then what is only read, such as parameters. Each has the
        structure of `updates`, and its shapes unless wrapped in `any_shape`.
      outputs: how many arrays `leaf` returns.
      **scalars: numbers or scalar arrays that all leaves share, such as a learning
        rate. Python numbers arrive as they are, so that `1 - b2` is exact; arrays in
        the real dtype in which the leaf is computed.

    Returns:
      A tree like `updates`, or a tuple of `outputs` trees.

    Raises:
      TreeMismatchError: if a tree lacks a leaf or has one too many.
      ShapeError: if a leaf has another shape than its update.
      DtypeError: if a gradient is integer or boolean.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> def leaf(g, mu, *, decay):  # g, mu: one leaf, same shape
      ...     mu = decay * mu + g
      ...     return jnp.sign(mu), mu
      >>> g, mu = {"w": jnp.array([1.0, -4.0])}, {"w": jnp.array([-2.0, 2.0])}
      >>> u, mu = gradtx.map_leaves(leaf, g, mu, outputs=2, decay=0.5)
      >>> u["w"].tolist(), mu["w"].tolist()
      ([0.0, -1.0], [0.0, -3.0])
    """
    gradients, structure = jax.tree.flatten(updates)
    columns = [gradients]
    for position, tree in enumerate(trees):
        name = "state" if position < outputs - 1 else "params"
        tree, free = (tree[0], True) if isinstance(tree, any_shape) else (tree, False)
        check_structure(tree, updates, name, "updates")
        if not free:
            check_shapes(tree, updates, "updates")
        columns.append(jax.tree.leaves(tree))

    rows = list(zip(*columns, strict=True))
    moving = [i for i, g in enumerate(gradients) if dtype_of(g) != jax.dtypes.float0]
    for i in moving:
        if not jnp.issubdtype(dtype_of(gradients[i]), jnp.inexact):
            raise DtypeError(
                f"updates{path_at(updates, i)} has dtype {dtype_of(gradients[i])}: "
                "gradients must be floating or complex. Take them with jax.grad(..., "
                "allow_int=True), whose float0 leaves pass, or freeze this parameter."
            )
    # once for all leaves, and outside the traces of single ones
    shared = {
        precise: {k: _shared(v, precise) for k, v in scalars.items()}
        for precise in {_is_precise(rows[i]) for i in moving}
    }

    def one(*row: Any) -> tuple[Any, ...]:
        precise = _is_precise(row)
        inputs = [working(x, precise) for x in row]
        # dtypes are settled here: what is left to promote is a real with a complex
        mixed = any(jnp.iscomplexobj(x) for x in inputs)
        with jax.numpy_dtype_promotion("standard") if mixed else nullcontext():
            returned = leaf(*inputs, **shared[precise])
        returned = returned if outputs > 1 else (returned,)
        return tuple(map(_stored, returned, row[:outputs]))

    results = [row[:outputs] for row in rows]
    for i, new in zip(moving, each(one, [rows[i] for i in moving]), strict=True):
        for x, old in zip(new, results[i], strict=True):
            if shape_of(x) != shape_of(old):
                raise ShapeError(
                    f"the leaf function returned shape {shape_of(x)} for "
                    f"{path_at(updates, i)}, where {shape_of(old)} belongs."
                )
        results[i] = new

    columns_out = list(zip(*results, strict=True)) if results else [()] * outputs
    made = tuple(structure.unflatten(column) for column in columns_out)
    return made if outputs > 1 else made[0]


def _is_precise(row: Any) -> bool:
    return any(bits(x) == 64 for x in row)


def _shared(scalar: Any, precise: bool) -> Any:
    if isinstance(scalar, (int, float)):
        return scalar
    return jnp.asarray(scalar).astype(jnp.float64 if precise else jnp.float32)


def _stored(new: Any, old: Any) -> Any:
    dtype = dtype_of(old)
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return new
    return cast(new, dtype)
