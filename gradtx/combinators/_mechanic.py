"""Mechanic: learn the scale of another optimizer's updates."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from gradtx.core import (
    AxisName,
    Count,
    Inner,
    Link,
    Numeric,
    PerParam,
    Scalar,
    as_transformation,
    check_count,
    check_non_negative,
    check_positive,
    copies,
    global_norm,
    map_leaves,
    safe_increment,
    safe_sqrt,
    scalar_like,
    scaled_norm,
    sum_leaves,
    transformation,
    zero_count,
)


class MechanicState(NamedTuple):
    """The state of `mechanize`; `r`, `m`, `v`, `s` have one number for each decay.

    Attributes:
      base_optimizer_state: the state of the wrapped optimizer.
      count: updates made so far.
      r: running sum of what the bets won.
      m: the largest product so far, which decays.
      v: running sum of squared products.
      s: the scale that each decay proposes; their sum is in use.
      x0: the parameters at the start.
    """

    base_optimizer_state: Inner
    count: Count
    r: Scalar
    m: Scalar
    v: Scalar
    s: Scalar
    x0: PerParam


@transformation(needs={"params"}, reach="tree")
def mechanize(
    base_optimizer: Link,
    weight_decay: Numeric = 1e-2,
    eps: Numeric = 1e-8,
    s_init: Numeric = 1e-6,
    num_betas: int = 6,
    *,
    axis_name: AxisName | None = None,
):
    """Apply the sum of an optimizer's updates, times a scale that is learnt.

    With `U` the sum of the base optimizer's updates and `S = Σ_i s_i`:
    `h = −⟨g + weight_decay·S·‖g‖·p/(‖p‖ + eps), U⟩`; for each β_i = 1 − 0.1^i,
    `m ← max(β·m, |h| + eps)`, `v ← β²·v + h²`, `r ← β·r + s·clip(h, ±m_before)`,
    `s ← (s_init·m/num_betas + max(r, 0))/(√v + eps)`; `p ← p_0 + S·U`

    Args:
      base_optimizer: the optimizer, with a learning rate of 1 at its peak.
      weight_decay: pulls towards zero; has nothing to do with the optimizer's own.
      eps: keeps quotients finite, above 0.
      s_init: the scale to start from, above 0.
      num_betas: how many decays there are, 1 or more.
      axis_name: mapped axes over which the parameters are sharded.

    Raises:
      ArgumentError: if an argument is outside its range.
      MissingArgumentError: if `update` gets no parameters.

    Source: Cutkosky, Defazio & Mehta 2023, arXiv:2306.00144, Algorithm 1.
    """
    base_optimizer = as_transformation(base_optimizer)
    check_count(1, num_betas=num_betas)
    check_positive(eps=eps, s_init=s_init)
    check_non_negative(weight_decay=weight_decay)

    def init(params):
        zero = scalar_like(params, axis_name=axis_name)
        wide = lambda value: jnp.stack([zero + value] * num_betas)
        return MechanicState(
            base_optimizer.init(params),
            zero_count(),
            wide(0.0),
            wide(0.0),
            wide(0.0),
            wide(s_init),
            copies(params),
        )

    def update(updates, state, params=None, **extra):
        made, inner = base_optimizer.update(
            updates, state.base_optimizer_state, params, **extra
        )
        real = state.s.dtype
        scale = jnp.sum(state.s)
        # at the start the base optimizer has moved nowhere, and the sum of its updates
        # is the way gone over the scale
        over = 1 / (scale + eps)
        pull = (
            weight_decay
            * scale
            * scaled_norm(updates, axis_name=axis_name).bounded.astype(real)
        )
        size = global_norm(params, axis_name=axis_name).astype(real)
        pull = pull / (size + eps)

        def product(g, p, start, *, pull):
            # not (start − p), nor times `over`: those are in the update (see `after`)
            return jnp.conj(g + pull * p) * (p - start)

        h = sum_leaves(
            product,
            updates,
            params,
            state.x0,
            axis_name=axis_name,
            apart=scale,
            pull=pull,
        )
        h = -over.astype(h.dtype) * h
        # so that squares stay finite
        limit = jnp.asarray(float(jnp.finfo(real).max) ** 0.5 / 2**12, real)
        h = jnp.clip(h.astype(real), -limit, limit)
        betas = jnp.asarray([1 - 0.1**i for i in range(1, num_betas + 1)], real)
        m = jnp.maximum(betas * state.m, abs(h) + eps)
        v = betas**2 * state.v + h**2
        r = betas * state.r + jnp.clip(h, -state.m, state.m) * state.s
        wealth = s_init / num_betas * m + jnp.maximum(r, 0)
        s = jnp.divide(wealth, safe_sqrt(v) + eps)

        def leaf(u, p, start, *, over, scale):
            total = u - (start - p) * over
            return start - p + scale * total

        made = map_leaves(leaf, made, params, state.x0, over=over, scale=jnp.sum(s))
        count = safe_increment(state.count)
        return made, MechanicState(inner, count, r, m, v, s, state.x0)

    return init, update
