"""Average gradients over devices, as a link of the chain."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core import (
    ArgumentError,
    AxisName,
    MissingArgumentError,
    all_sum,
    axes_of,
    check_axes,
    init_empty_state,
    map_leaves,
    scalar_dtype,
    transformation,
    varying,
    varying_axes,
)


@transformation(stage="reduce")
def pmean_gradients(axis_name: AxisName, *, weighted: bool = False):
    """Average updates over the devices of a mapped axis.

    `u ← Σ_d g_d / D`, or weighted by example counts `u ← Σ_d n_d·g_d / Σ_d n_d`

    Every device gets the same bits, so replicas that start equal stay equal. Put it
    first: clipping before averaging is another method.

    A leaf that `shard_map` (with `check_vma=True`) knows to be equal on all devices
    is taken for what differentiation makes of a replicated parameter there, the *sum*
    of the devices' gradients, and is divided by the number of devices. The link means
    the same under `pmap` and `shard_map`, and must be the only one that reduces.

    Args:
      axis_name: the axis of `pmap`, `vmap` or `shard_map`, or several.
      weighted: whether `update` gets `example_count=`, the number of examples behind
        this device's mean gradient. Devices without examples count nothing; if none
        has any, the update is zero.

    Raises:
      ArgumentError: if `axis_name` is no name, or if a leaf cannot be weighted because
        it has been summed already.
      AxisNameError: if `update` runs where an axis is not mapped.
      MissingArgumentError: if `weighted` and `update` gets no `example_count`.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> tx = gradtx.chain(gradtx.pmean_gradients("data"), gradtx.sgd(1.0))
      >>> step = lambda g: tx.update(g, tx.init(g))[0]
      >>> jax.vmap(step, axis_name="data")(jnp.array([1.0, 3.0])).tolist()
      [-2.0, -2.0]

    Source: Chen et al. 2016, arXiv:1604.00981, section 2 (synchronous data
    parallelism); the weights make it the mean over all examples.
    """
    axes = axes_of(axis_name)
    if not axes or not all(isinstance(axis, str) for axis in axes):
        raise ArgumentError(
            f"axis_name must be the name of a mapped axis, got {axis_name!r}."
        )

    def update(updates, state, params=None, *, example_count=None, **extra):
        check_axes(axes)
        if not weighted:
            return map_leaves(lambda g: _mean(g, axes), updates), state
        if example_count is None:
            raise MissingArgumentError(
                "update needs the number of examples of this device. Call "
                "tx.update(grads, state, params, example_count=n)."
            )
        count = jnp.asarray(example_count, scalar_dtype())
        # an equal count everywhere is a count per device, not a sum of counts
        total = all_sum(varying(count, axes), axes)
        weight = count / jnp.where(total > 0, total, 1)
        return map_leaves(
            lambda g, *, weight: _weighted_sum(g, weight, axes), updates, weight=weight
        ), state

    return init_empty_state, update


def _mean(g: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    # over axes on which `g` does not vary it has been summed already
    return all_sum(g, axes) / math.prod(lax.axis_size(axis) for axis in axes)


def _weighted_sum(g: jax.Array, weight: Any, axes: tuple[str, ...]) -> jax.Array:
    if varying_axes(g, axes) != axes:
        raise ArgumentError(
            "a gradient has already been summed over "
            f"{[a for a in axes if a not in varying_axes(g, axes)]}, as shard_map does "
            "with those of replicated parameters, so it cannot be weighted any more. "
            "Differentiate with respect to jax.lax.pcast(params, axis, to='varying')."
        )
    # a device without examples may hold NaN: a mean over nothing
    return all_sum(jnp.where(weight > 0, weight * g, 0), axes)
