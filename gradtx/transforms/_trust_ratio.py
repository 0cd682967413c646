"""Scale each leaf's update by the size of its parameter."""

from __future__ import annotations

import math

import jax.numpy as jnp

from gradtx.core import (
    AxisName,
    EmptyState,
    Numeric,
    check_non_negative,
    init_empty_state,
    leaf_norm,
    map_leaves,
    shards,
    transformation,
)

ScaleByTrustRatioState = EmptyState


@transformation(needs={"params"}, reach="leaf")
def scale_by_trust_ratio(
    min_norm: Numeric = 0.0,
    trust_coefficient: Numeric = 1.0,
    eps: Numeric = 0.0,
    *,
    axis_name: AxisName | None = None,
):
    """Give each leaf's update the norm of its parameter.

    `u ← g·trust_coefficient·‖p‖/(‖g‖ + eps)`, and `g` where one of the norms is 0

    Args:
      min_norm: the norm that both have at least.
      trust_coefficient: the share of the parameter's norm.
      eps: added to the norm of the update.
      axis_name: mapped axes over which the leaves are sharded.

    Raises:
      ArgumentError: if `min_norm` or `eps` is negative.
      MissingArgumentError: if `update` gets no parameters.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_trust_ratio()
      >>> g, p = {"w": jnp.array([0.0, 5.0])}, {"w": jnp.array([3.0, 4.0])}
      >>> tx.update(g, tx.init(p), p)[0]["w"].tolist()
      [0.0, 5.0]

    Source: You, Gitman & Ginsburg 2017, arXiv:1708.03888, equation 6; You et al. 2019,
    arXiv:1904.00962, section 3.
    """
    check_non_negative(min_norm=min_norm, eps=eps)

    def update(updates, state, params=None, **extra):
        def leaf(g, p, *, least, coefficient, eps):  # g, p: one leaf, same shape
            size = jnp.maximum(leaf_norm(p, axis_name=axis_name).value, least)
            root, scale = leaf_norm(g, axis_name=axis_name)
            # everything is multiplied by `scale`, so that the quotient is in range
            root = jnp.maximum(root, least * scale)
            zero = (size == 0) | (root == 0)
            ratio = coefficient * size / jnp.where(zero, 1, root + eps * scale)
            return jnp.where(zero, g, g * scale * ratio)

        scaled = map_leaves(
            leaf,
            updates,
            params,
            least=min_norm,
            coefficient=trust_coefficient,
            eps=eps,
        )
        return scaled, state

    return init_empty_state, update


@transformation(needs={"params"}, reach="leaf")
def scale_by_param_block_norm(
    min_scale: Numeric = 1e-3, *, axis_name: AxisName | None = None
):
    """Multiply each leaf's update by the norm of its parameter.

    `u ← g·max(‖p‖, min_scale)`

    Args:
      min_scale: the least factor.
      axis_name: mapped axes over which the leaves are sharded.

    Raises:
      ArgumentError: if `min_scale` is negative.
      MissingArgumentError: if `update` gets no parameters.

    Source: Shazeer & Stern 2018, arXiv:1804.04235, section 8, with the norm.
    """
    check_non_negative(min_scale=min_scale)
    return init_empty_state, _by_size(min_scale, axis_name, mean=False)


@transformation(needs={"params"}, reach="leaf")
def scale_by_param_block_rms(
    min_scale: Numeric = 1e-3, *, axis_name: AxisName | None = None
):
    """Multiply each leaf's update by the root mean square of its parameter.

    `u ← g·max(rms(p), min_scale)`, `rms(p) = √(mean(|p|²))`

    Args:
      min_scale: the least factor.
      axis_name: mapped axes over which the leaves are sharded.

    Raises:
      ArgumentError: if `min_scale` is negative.
      MissingArgumentError: if `update` gets no parameters.

    Source: Shazeer & Stern 2018, arXiv:1804.04235, section 8 (relative step size).
    """
    check_non_negative(min_scale=min_scale)
    return init_empty_state, _by_size(min_scale, axis_name, mean=True)


def _by_size(min_scale: Numeric, axis_name: AxisName | None, mean: bool):
    def update(updates, state, params=None, **extra):
        def leaf(g, p, *, least):  # g, p: one leaf, same shape
            size = leaf_norm(p, axis_name=axis_name).value
            if mean:
                size = size / math.sqrt(max(p.size * shards(p, axis_name), 1))
            return _in_range(g, g * jnp.maximum(size, least))

        scaled = map_leaves(leaf, updates, params, least=min_scale)
        return scaled, state

    return update


def _in_range(g, u):  # g, u: one leaf, same shape
    """Return `u`, with the largest float where it overflows though `g` is finite."""
    if jnp.iscomplexobj(u):
        return u
    most = jnp.finfo(u.dtype).max
    return jnp.where(jnp.isfinite(g), jnp.clip(u, -most, most), u)
