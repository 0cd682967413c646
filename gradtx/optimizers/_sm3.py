"""SM3: AdaGrad whose sums are kept per row and column, not per element."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import (
    Factored,
    Numeric,
    PerParam,
    ScalarOrSchedule,
    abs_sq,
    chain,
    check_non_negative,
    check_structure,
    dtype_of,
    map_leaves,
    real_dtype,
    require_real,
    shape_of,
    transformation,
    widened,
    zeros_like,
)
from gradtx.transforms import scale_by_learning_rate


class ScaleBySM3State(NamedTuple):
    """The state of `scale_by_sm3`.

    Attributes:
      mu: for each parameter a list of one vector per axis: bounds of the sums of
        squares of the slices along it, float32 or wider.
      nu: running mean of the updates.
    """

    mu: Factored
    nu: PerParam


@transformation(stage="precondition", reach="leaf", complex=False)
def scale_by_sm3(b1: Numeric = 0.9, b2: Numeric = 1.0, eps: Numeric = 1e-8):
    """Divide updates by the root of the least bound of their sums of squares.

    `a ← w·g² + b2·min_i mu_i`, w = 1 where b2 = 1, else 1 − b2, `mu_i` spread along
    its axis i; `mu_i ← max of a over the other axes`; `u ← g/√(a + eps)`, 0 where a = 0;
    `nu ← b1·nu + (1 − b1)·u`; the update is `nu`

    Args:
      b1: the share of the mean of updates that one step keeps, in [0, 1).
      b2: the share of the bounds that one step keeps, in [0, 1]; 1 for sums.
      eps: added under the root.

    Raises:
      ArgumentError: if an argument is negative.
      DtypeError: if a parameter is complex.

    Source: Anil et al. 2019, arXiv:1901.11150, Algorithm SM3-II.
    """
    check_non_negative(b1=b1, b2=b2, eps=eps)

    def init(params):
        return ScaleBySM3State(jax.tree.map(_bounds, params), zeros_like(params))

    def update(updates, state, params=None, **extra):
        # `total` is kept in memory for the maxima along each axis
        def leaf(g, bound, nu, *, b1, b2, eps):
            share = jnp.where(b2 == 1, 1, 1 - b2)
            most, least = jnp.finfo(g.dtype).max / 2, jnp.finfo(g.dtype).tiny
            total = jnp.minimum(share * abs_sq(g), most)
            total = total + jnp.minimum(b2 * bound, most)
            u = jnp.where(total > 0, g, 0) / jnp.sqrt(jnp.maximum(total, least) + eps)
            nu = b1 * nu + (1 - b1) * u
            return nu, total, nu

        check_structure(state.nu, updates, "state", "updates")
        structure = jax.tree.structure(updates)
        lists = structure.flatten_up_to(state.mu)
        bounds = structure.unflatten([_spread(parts) for parts in lists])
        updates, totals, nu = map_leaves(
            leaf, updates, bounds, state.nu, outputs=3, b1=b1, b2=b2, eps=eps
        )
        mu = jax.tree.map(_reduced, totals)
        return updates, ScaleBySM3State(mu, nu)

    return init, update


def _bounds(p: Any) -> list[jax.Array]:
    require_real(p)
    dtype = widened(real_dtype(dtype_of(p)))
    return [jnp.zeros(n, dtype) for n in shape_of(p)] or [jnp.zeros((), dtype)]


def _spread(parts: list[jax.Array]) -> jax.Array:
    """Return the least of the bounds for each element."""
    if parts[0].ndim == 0:
        return parts[0]
    last = len(parts) - 1
    lifted = [
        part.reshape((1,) * axis + (-1,) + (1,) * (last - axis))
        if part.size
        else part.reshape((1,) * axis + (0,) + (1,) * (last - axis))
        for axis, part in enumerate(parts)
    ]
    shape = jnp.broadcast_shapes(*(part.shape for part in lifted))
    return functools.reduce(
        jnp.minimum, [jnp.broadcast_to(part, shape) for part in lifted]
    )


def _reduced(total: jax.Array) -> list[jax.Array]:
    """Return the largest element of each slice, axis by axis."""
    if total.ndim == 0:
        return [total]
    axes = range(total.ndim)
    return [
        jnp.max(total, axis=tuple(a for a in axes if a != axis), initial=0)
        for axis in axes
    ]


@transformation
def sm3(learning_rate: ScalarOrSchedule, momentum: Numeric = 0.9):
    """Descend with SM3's direction: `scale_by_sm3`, then the learning rate.

    `p ← p − learning_rate·u`, with `u` of `scale_by_sm3`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      momentum: `b1` of `scale_by_sm3`.

    Source: Anil et al. 2019, arXiv:1901.11150, Algorithm SM3-II.
    """
    return chain(scale_by_sm3(momentum), scale_by_learning_rate(learning_rate))
