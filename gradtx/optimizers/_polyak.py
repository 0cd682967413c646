"""Polyak's step: as long as the value of the objective says that it may be."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp

from gradtx.core import (
    ArgumentError,
    AxisName,
    Numeric,
    ScalarOrSchedule,
    chain,
    check_non_negative,
    init_empty_state,
    map_leaves,
    sum_of_squares,
    transformation,
)
from gradtx.optimizers._sgd import sgd


@transformation(needs={"value"}, reach="tree")
def scale_by_polyak(
    f_min: Numeric = 0.0,
    max_learning_rate: Numeric = 1.0,
    eps: Numeric = 0.0,
    variant: Literal["sps", "sps+"] = "sps",
    *,
    axis_name: AxisName | None = None,
):
    """Scale updates by the gap to the least value over their squared norm.

    `u ← g·min((value − f_min)/(‖g‖² + eps), max_learning_rate)`, 0 where
    `‖g‖² + eps ≤ 2.2e-16`

    `update` needs `value=`, that of the objective at the parameters.

    Args:
      f_min: the least value of the objective.
      max_learning_rate: the largest factor.
      eps: added to the squared norm.
      variant: "sps", or "sps+" for a gap of 0 where the value lies below `f_min`.
      axis_name: mapped axes over which the updates are sharded; see `global_norm`.

    Raises:
      ArgumentError: for another variant or a negative eps.
      MissingArgumentError: if `update` gets no `value`.

    Source: Polyak 1987, "Introduction to Optimization", section 5.3; Loizou et al.
    2020, arXiv:2002.10542, equation SPS_max; Gower et al. 2025, arXiv:2407.04358 (sps+).
    """
    check_non_negative(eps=eps)
    if variant not in ("sps", "sps+"):
        raise ArgumentError(f"variant must be 'sps' or 'sps+', got {variant!r}.")

    def update(updates, state, params=None, *, value, **extra):
        square = sum_of_squares(updates, axis_name=axis_name)
        dtype = square.dtype
        length = square + jnp.asarray(eps).astype(dtype)
        gap = jnp.asarray(value).astype(dtype) - jnp.asarray(f_min).astype(dtype)
        gap = jnp.maximum(gap, 0) if variant == "sps+" else gap
        still = length <= float(jnp.finfo(jnp.float64).eps)
        step = jnp.minimum(
            gap / jnp.where(still, 1, length),
            jnp.asarray(max_learning_rate).astype(dtype),
        )

        def leaf(g, *, step):
            return step * g

        step = jnp.where(still, 0, step)
        return map_leaves(leaf, updates, step=step), state

    return init_empty_state, update


@transformation
def polyak_sgd(
    max_learning_rate: Numeric = 1.0,
    scaling: ScalarOrSchedule = 1.0,
    f_min: Numeric = 0.0,
    eps: Numeric = 0.0,
    variant: Literal["sps", "sps+"] = "sps",
):
    """Descend with Polyak's step.

    `p ← p − step·scaling·g`, with the step of `scale_by_polyak` for `scaling·g`

    `update` needs `value=`, that of the objective at the parameters.

    Args:
      max_learning_rate: the largest step.
      scaling: a factor of the gradient; a number, or a schedule of the updates made.
      f_min, eps, variant: as in `scale_by_polyak`.

    Source: Loizou et al. 2020, arXiv:2002.10542, equation SPS_max.
    """
    return chain(
        sgd(scaling),
        scale_by_polyak(f_min, max_learning_rate, eps, variant),
    )
