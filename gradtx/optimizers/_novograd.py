"""NovoGrad: momentum of gradients that each layer divides by its own norm."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import (
    AxisName,
    Count,
    DTypeLike,
    Factored,
    Numeric,
    PerParam,
    ScalarOrSchedule,
    any_shape,
    chain,
    check_decay,
    check_non_negative,
    dtype_of,
    is_static,
    leaf_norm,
    map_leaves,
    real_dtype,
    safe_increment,
    safe_sqrt,
    transformation,
    value_at,
    widened,
    zero_count,
    zeros_like,
)
from gradtx.transforms import scale_by_learning_rate


class ScaleByNovogradState(NamedTuple):
    """The state of `scale_by_novograd`.

    Attributes:
      count: updates made so far.
      mu: the momentum.
      nu: running mean of the squared norm of each leaf: one number per
        leaf, float32 or wider.
    """

    count: Count
    mu: PerParam
    nu: Factored


def _decays(weight_decay: ScalarOrSchedule) -> bool:
    return not (is_static(weight_decay) and weight_decay == 0)


@transformation(
    stage="precondition",
    reach="leaf",
    adjust=lambda traits, given: (
        traits.replace(needs={"params"}) if _decays(given["weight_decay"]) else traits
    ),
)
def scale_by_novograd(
    b1: Numeric = 0.9,
    b2: Numeric = 0.25,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    axis_name: AxisName | None = None,
):
    """Sum updates that each leaf divides by a running mean of its norm.

    `nu ← b2·nu + (1 − b2)·‖g‖²`, `‖g‖²` at first;
    `mu ← b1·mu + g/(√(nu + eps_root) + eps) + weight_decay·p`; `u ← mu`

    Args:
      b1: the share of `mu` that one step keeps, in [0, 1).
      b2: the share of `nu` that one step keeps, in [0, 1).
      eps: added to the root.
      eps_root: added under the root.
      weight_decay: a number or a schedule; joins the momentum.
      mu_dtype: dtype of the momentum; by default the parameters'.
      axis_name: mapped axes over which the leaves are sharded.

    Raises:
      ArgumentError: if a decay lies outside [0, 1) or an eps is negative.
      MissingArgumentError: if weights decay and `update` gets no parameters.

    Source: Ginsburg et al. 2019, arXiv:1905.11286, Algorithm 1.
    """
    check_decay(b1=b1, b2=b2)
    check_non_negative(eps=eps, eps_root=eps_root)
    decays = _decays(weight_decay)

    def init(params):
        return ScaleByNovogradState(
            count=zero_count(),
            mu=zeros_like(params, mu_dtype),
            nu=jax.tree.map(
                lambda p: jnp.zeros((), widened(real_dtype(dtype_of(p)))), params
            ),
        )

    def update(updates, state, params=None, **extra):
        def leaf(g, mu, nu, p=0, *, b1, b2, eps, eps_root, wd, first):
            norm = leaf_norm(g, axis_name=axis_name).bounded
            top = jnp.finfo(norm.dtype).max ** 0.5 * (1 - 1e-3)
            square = jnp.square(
                jnp.where(jnp.isinf(norm), norm, jnp.minimum(norm, top))
            )
            nu = jnp.where(first > 0, square, b2 * nu + (1 - b2) * square)
            mu = b1 * mu + g / (safe_sqrt(nu + eps_root) + eps) + wd * p
            return mu, mu, nu

        read = (params,) if decays else ()
        updates, mu, nu = map_leaves(
            leaf,
            updates,
            state.mu,
            any_shape(state.nu),
            *read,
            outputs=3,
            b1=b1,
            b2=b2,
            eps=eps,
            eps_root=eps_root,
            wd=value_at(weight_decay, state.count)
            if callable(weight_decay)
            else weight_decay,
            first=state.count == 0,
        )
        return updates, ScaleByNovogradState(safe_increment(state.count), mu, nu)

    return init, update


@transformation
def novograd(
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.9,
    b2: Numeric = 0.25,
    eps: Numeric = 1e-6,
    eps_root: Numeric = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
):
    """Descend with NovoGrad's direction: `scale_by_novograd`, then the learning rate.

    `p ← p − learning_rate·u`, with `u` of `scale_by_novograd`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      b1, b2, eps, eps_root, weight_decay: as in `scale_by_novograd`.

    Source: Ginsburg et al. 2019, arXiv:1905.11286, Algorithm 1.
    """
    return chain(
        scale_by_novograd(b1, b2, eps, eps_root, weight_decay),
        scale_by_learning_rate(learning_rate),
    )
