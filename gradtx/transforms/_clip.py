"""Bound updates: element by element, by their global norm, by block or by unit."""

from __future__ import annotations

import math
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import (
    ArgumentError,
    AxisName,
    EmptyState,
    Flag,
    Numeric,
    Reading,
    Scalar,
    ShapeError,
    cast,
    check_positive,
    init_empty_state,
    leaf_norm,
    map_leaves,
    real_dtype,
    require_real,
    scaled_norm,
    shards,
    transformation,
    working,
    zero_norm,
)

AdaptiveGradClipState = ClipState = EmptyState


class ClipByGlobalNormState(NamedTuple):
    """The state of `clip_by_global_norm`.

    Attributes:
      norm: the global norm of the last updates, before clipping; 0 before the first.
      clipped: whether they were longer than `max_norm`.
    """

    norm: Annotated[Scalar, Reading("gradient_norm")]
    clipped: Annotated[Flag, Reading("clipped")]


_LEAVE_OUT = "To switch clipping off, leave the link out of the chain."


@transformation(stage="clip", complex=False)
def clip(max_delta: Numeric):
    """Bound every element of the updates.

    `u ← min(max(g, −max_delta), max_delta)`

    Args:
      max_delta: the largest magnitude, above 0. NaN stays NaN.

    Raises:
      ArgumentError: if `max_delta` is not positive.
      DtypeError: if an update is complex.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.clip(1.0)
      >>> tx.update({"w": jnp.array([-3.0, 0.5])}, tx.init(None))[0]["w"].tolist()
      [-1.0, 0.5]

    Source: Pascanu, Mikolov & Bengio 2012, arXiv:1211.5063, section 3.2.
    """
    check_positive(_LEAVE_OUT, max_delta=max_delta)

    def update(updates, state, params=None, **extra):
        def leaf(g, *, max_delta):
            return jnp.clip(require_real(g), -max_delta, max_delta)

        return map_leaves(leaf, updates, max_delta=max_delta), state

    return init_empty_state, update


@transformation(stage="clip", reach="tree")
def clip_by_global_norm(max_norm: Numeric, *, axis_name: AxisName | None = None):
    """Shrink updates so that their global norm is at most `max_norm`.

    `u ← g·min(1, max_norm/‖g‖)`, `‖g‖` over all elements of all leaves

    The norm neither overflows nor underflows, so finite updates are never replaced by
    zeros. A NaN makes the norm NaN and shows in every leaf. The state holds the norm
    that was compared.

    Args:
      max_norm: the largest norm, above 0.
      axis_name: mapped axes over which the updates are sharded; see `global_norm`.

    Raises:
      ArgumentError: if `max_norm` is not positive.
      AxisNameError: if `update` runs where an axis is not mapped.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.clip_by_global_norm(2.5)
      >>> grads = {"w": jnp.array([3.0]), "b": jnp.array([4.0])}
      >>> updates, state = tx.update(grads, tx.init(grads))
      >>> updates["b"].tolist(), float(state.norm)
      ([2.0], 5.0)

    Source: Pascanu, Mikolov & Bengio 2012, arXiv:1211.5063, Algorithm 1.
    """
    check_positive(_LEAVE_OUT, max_norm=max_norm)

    def init(params):
        norm = zero_norm(params, axis_name=axis_name)
        return ClipByGlobalNormState(norm, norm > 0)

    def update(updates, state, params=None, **extra):
        root, scale = whole = scaled_norm(updates, axis_name=axis_name, kept=True)
        norm = whole.bounded
        limit = jnp.asarray(max_norm).astype(root.dtype)
        fits = norm < limit
        # two factors, since one alone may be too small for a float
        first = jnp.where(fits, 1, scale)
        second = jnp.where(fits, 1, limit / jnp.where(root > 0, root, 1))
        second = jnp.where(jnp.isnan(root), root, second)

        def leaf(g, *, first, second):
            return g * first * second

        updates = map_leaves(leaf, updates, first=first, second=second)
        return updates, ClipByGlobalNormState(cast(norm, jnp.float32), norm > limit)

    return init, update


@transformation(reach="leaf")
def clip_by_block_rms(threshold: Numeric, *, axis_name: AxisName | None = None):
    """Shrink each leaf so that its root mean square is at most `threshold`.

    `u ← g / max(1, rms(g)/threshold)`, `rms(g) = √(mean(|g|²))` over one leaf

    Args:
      threshold: the largest root mean square, above 0.
      axis_name: mapped axes over which the leaves are sharded.

    Raises:
      ArgumentError: if `threshold` is not positive.
      AxisNameError: if `update` runs where an axis is not mapped.

    Source: Shazeer & Stern 2018, arXiv:1804.04235, section 6 (update clipping).
    """
    check_positive(_LEAVE_OUT, threshold=threshold)

    def update(updates, state, params=None, **extra):
        def leaf(g, *, threshold):
            count = g.size * shards(g, axis_name)  # of the whole leaf
            root, scale = leaf_norm(g, axis_name=axis_name)
            return _bounded(g, root, scale, threshold * math.sqrt(count))

        return map_leaves(leaf, updates, threshold=threshold), state

    return init_empty_state, update


@transformation(stage="clip", needs={"params"}, reach="leaf")
def adaptive_grad_clip(
    clipping: Numeric,
    eps: Numeric = 1e-3,
    axis: int | tuple[int, ...] | None = None,
    *,
    axis_name: AxisName | None = None,
):
    """Shrink each unit's update to a share of the norm of that unit's parameters.

    `u_i ← g_i·min(1, clipping·max(‖p_i‖, eps)/‖g_i‖)` for each unit i

    Args:
      clipping: the largest ratio of update norm to parameter norm, above 0.
      eps: the norm that parameters have at least, so that zeros can move.
      axis: the axes that one unit spans. By default the whole leaf for scalars and
        vectors, axis 0 for 2 and 3 axes (kernels in × out), and all but the last for
        4 and 5 (convolutions).
      axis_name: mapped axes over which units are sharded.

    Raises:
      ArgumentError: if `clipping` is not positive, or a leaf has more than 5 axes and
        no `axis` is given.
      AxisNameError: if `update` runs where an axis is not mapped.
      MissingArgumentError: if `update` gets no parameters.

    Source: Brock et al. 2021, arXiv:2102.06171, section 4.1, equation 3.
    """
    check_positive(_LEAVE_OUT, clipping=clipping)

    def update(updates, state, params=None, **extra):
        def leaf(g, p, *, clipping, eps):  # g, p: one leaf, same shape
            units = _unit_axes(g) if axis is None else axis
            p_norm = leaf_norm(p, units, axis_name=axis_name).value
            root, scale = leaf_norm(g, units, axis_name=axis_name)
            return _bounded(g, root, scale, clipping * jnp.maximum(p_norm, eps))

        bounded = map_leaves(leaf, updates, params, clipping=clipping, eps=eps)
        return bounded, state

    return init_empty_state, update


def unitwise_norm(x: Any, axis: int | tuple[int, ...] | None = None) -> jax.Array:
    """Return the norm of each unit, repeated to the shape of `x`.

    `‖x_i‖` for each unit i, such as the weights of one neuron

    Args:
      x: an array.
      axis: the axes that one unit spans; by default as in `adaptive_grad_clip`.

    Returns:
      An array of the shape of `x`, real, float32 or wider.

    Raises:
      ArgumentError: if `x` has more than 5 axes and no `axis` is given.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.unitwise_norm(jnp.array([[3.0, 0.0], [4.0, 1.0]])).tolist()
      [[5.0, 1.0], [5.0, 1.0]]

    Source: Brock et al. 2021, arXiv:2102.06171, section 4.1.
    """
    x = working(_inexact(x))
    units = _unit_axes(x) if axis is None else axis
    return jnp.broadcast_to(leaf_norm(x, units).value, x.shape)


def unitwise_clip(
    g_norm: Any, max_norm: Any, grad: Any, div_eps: Numeric = 1e-6
) -> jax.Array:
    """Shrink each unit to the norm that it may have.

    `grad·min(1, max_norm/g_norm)`, element by element

    Args:
      g_norm: the norm of each element's unit, as `unitwise_norm` gives it.
      max_norm: the largest norm of each element's unit.
      grad: what to shrink.
      div_eps: the least norm that is divided by.

    Returns:
      An array of the shape and dtype of `grad`.

    Raises:
      ShapeError: if the three differ in shape.

    Source: Brock et al. 2021, arXiv:2102.06171, section 4.1, equation 3.
    """
    grad = _inexact(grad)
    g_norm, max_norm = (working(_inexact(x)) for x in (g_norm, max_norm))
    if not g_norm.shape == max_norm.shape == grad.shape:
        raise ShapeError(
            f"expected three arrays of one shape, got {g_norm.shape}, "
            f"{max_norm.shape} and {grad.shape}.",
            "unitwise_clip",
        )
    g = working(grad)
    real = real_dtype(g.dtype)
    g_norm, limit = g_norm.astype(real), max_norm.astype(real)
    root = jnp.maximum(g_norm, jnp.asarray(div_eps).astype(real))
    with jax.numpy_dtype_promotion("standard"):  # a real norm with a complex number
        shrunk = _bounded(g, root, jnp.ones_like(root), limit)
    return cast(jnp.where(g_norm < limit, g, shrunk), grad.dtype)


def _inexact(x: Any) -> jax.Array:
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.float32)


def _bounded(g, root, scale, limit):
    """Shrink `g`, whose norm is `root/scale`, to a norm of at most `limit`."""
    shrunk = g * scale * (limit / jnp.where(root > 0, root, 1))
    return jnp.where(root / scale > limit, shrunk, g)


def _unit_axes(x: Any) -> tuple[int, ...] | int | None:
    if math.prod(x.shape) == max(
        x.shape, default=1
    ):  # at most one axis is longer than 1
        return None
    if x.ndim in (2, 3):
        return 0
    if x.ndim in (4, 5):
        return tuple(range(x.ndim - 1))
    raise ArgumentError(
        f"a leaf has {x.ndim} axes, and it is not known which of them make up one "
        "unit. Give axis=."
    )
