"""Adam: steps of the size of the learning rate, whatever the gradient's scale."""

from __future__ import annotations

from typing import NamedTuple

from gradtx.core import (
    Count,
    DTypeLike,
    MaskOrFn,
    Numeric,
    PerParam,
    ScalarOrSchedule,
    bias_correction,
    capped_abs_sq,
    chain,
    check_decay,
    check_non_negative,
    map_leaves,
    safe_increment,
    safe_sqrt,
    second_moment_like,
    transformation,
    zero_count,
    zeros_like,
)
from gradtx.transforms import add_decayed_weights, scale_by_learning_rate


class ScaleByAdamState(NamedTuple):
    """The state of `scale_by_adam` and of relatives that keep the same two moments.

    Attributes:
      count: updates made so far.
      mu: running mean of the gradients, not yet corrected for its start at 0.
      nu: running mean of their squares, likewise; real, and float32 or wider.
    """

    count: Count
    mu: PerParam
    nu: PerParam


def init_moments(params, mu_dtype: DTypeLike | None = None) -> ScaleByAdamState:
    """Return a count and two moments at 0 for `params`."""
    return ScaleByAdamState(
        count=zero_count(),
        mu=zeros_like(params, mu_dtype),
        nu=second_moment_like(params),
    )


def next_moments(g, mu, nu, b1, b2):  # one leaf, all of one shape
    """Return the running means `mu` of `g` and `nu` of its squares, one step on."""
    return b1 * mu + (1 - b1) * g, b2 * nu + (1 - b2) * capped_abs_sq(g)


def corrected_mean(g, mu, b1, c1, c1_next, nesterov: bool):  # g, mu: one leaf
    """Return `mu` without its start at 0, looked one step ahead if asked."""
    return b1 * mu / c1_next + (1 - b1) * g / c1 if nesterov else mu / c1


def decays(b1: Numeric, b2: Numeric, count: Numeric) -> dict[str, Numeric]:
    """Return what the leaf functions need of the decays at update `count`."""
    return {
        "b1": b1,
        "b2": b2,
        "c1": bias_correction(b1, count),
        "c2": bias_correction(b2, count),
        "c1_next": bias_correction(b1, safe_increment(count)),
    }


@transformation(stage="precondition")
def scale_by_adam(
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
):
    """Divide a running mean of updates by the root of a running mean of squares.

    `mu ← b1·mu + (1 − b1)·g`; `nu ← b2·nu + (1 − b2)·|g|²`;
    `u ← (mu / (1 − b1^t)) / (√(nu / (1 − b2^t) + eps_root) + eps)`, t = 1, 2, …

    With Nesterov the numerator is `b1·mu / (1 − b1^(t+1)) + (1 − b1)·g / (1 − b1^t)`.

    Args:
      b1: the share of `mu` that one step keeps, in [0, 1).
      b2: the share of `nu` that one step keeps, in [0, 1).
      eps: added to the root.
      eps_root: added under the root. Above 0, derivatives through the update are
        finite where the gradient is zero.
      mu_dtype: dtype of `mu`; by default the parameters'.
      nesterov: whether the numerator looks one step ahead.

    Raises:
      ArgumentError: if a decay lies outside [0, 1) or an eps is negative.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_adam()
      >>> g = {"w": jnp.array([1e-3, -5.0])}
      >>> tx.update(g, tx.init(g))[0]["w"].round(3).tolist()
      [1.0, -1.0]

    Source: Kingma & Ba 2014, arXiv:1412.6980, Algorithm 1; Dozat 2016, "Incorporating
    Nesterov Momentum into Adam", Algorithm 2.

    Differs from Dozat: b1 is constant and `nu` is not looked ahead, as in optax.
    """
    check_decay(b1=b1, b2=b2)
    check_non_negative(eps=eps, eps_root=eps_root)

    def init(params):
        return init_moments(params, mu_dtype)

    def update(updates, state, params=None, **extra):
        count = safe_increment(state.count)

        def leaf(g, mu, nu, *, b1, b2, eps, eps_root, c1, c2, c1_next):
            mu, nu = next_moments(g, mu, nu, b1, b2)
            mean = corrected_mean(g, mu, b1, c1, c1_next, nesterov)
            return mean / (safe_sqrt(nu / c2 + eps_root) + eps), mu, nu

        updates, mu, nu = map_leaves(
            leaf,
            updates,
            state.mu,
            state.nu,
            outputs=3,
            eps=eps,
            eps_root=eps_root,
            **decays(b1, b2, count),
        )
        return updates, ScaleByAdamState(count, mu, nu)

    return init, update


@transformation
def adam(
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
):
    """Descend with Adam's direction: `scale_by_adam`, then the learning rate.

    `p ← p − learning_rate·u`, with `u` of `scale_by_adam`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      b1, b2, eps, eps_root, mu_dtype, nesterov: as in `scale_by_adam`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.adam(1e-3), {"w": jnp.array([1.0])}
      >>> updates, state = tx.update({"w": jnp.array([7.0])}, tx.init(params))
      >>> f"{updates['w'][0]:.6f}"
      '-0.001000'

    Source: Kingma & Ba 2014, arXiv:1412.6980, Algorithm 1.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        scale_by_learning_rate(learning_rate),
    )


@transformation
def adamw(
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: MaskOrFn | None = None,
    *,
    nesterov: bool = False,
):
    """Descend with Adam's direction and decoupled weight decay.

    `p ← p − learning_rate·(u + weight_decay·p)`, with `u` of `scale_by_adam`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      b1, b2, eps, eps_root, mu_dtype: as in `scale_by_adam`.
      weight_decay: share of the parameter that one step of learning rate 1 removes.
        torch's default is 1e-2.
      mask: which leaves decay, as in `add_decayed_weights`. By default all.
      nesterov: as in `scale_by_adam`.

    Example:
      >>> import gradtx
      >>> gradtx.adamw(1e-3, weight_decay=0.1, mask=gradtx.ndim_at_least(2))
      adamw(0.001, weight_decay=0.1, mask=ndim_at_least(2))

    Source: Loshchilov & Hutter 2017, arXiv:1711.05101, Algorithm 2.

    Differs from the paper: the decay is multiplied by the learning rate, as in torch.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


@transformation
def nadam(
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
):
    """Descend with Adam's direction, looked one step ahead: `adam` with Nesterov.

    `p ← p − learning_rate·u`, with `u` of `scale_by_adam(nesterov=True)`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      b1, b2, eps, eps_root, mu_dtype, nesterov: as in `scale_by_adam`.

    Source: Dozat 2016, "Incorporating Nesterov Momentum into Adam", Algorithm 2.

    Differs from torch.optim.NAdam: there b1 grows with the step.
    """
    return adam(learning_rate, b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)


@transformation
def nadamw(
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: MaskOrFn | None = None,
    *,
    nesterov: bool = True,
):
    """Descend with `nadam`'s direction and decoupled weight decay.

    `p ← p − learning_rate·(u + weight_decay·p)`, `u` of `scale_by_adam(nesterov=True)`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      b1, b2, eps, eps_root, mu_dtype, weight_decay, mask, nesterov: as in `adamw`.

    Source: Dahl et al. 2023, arXiv:2306.07179, appendix D (NAdamW).
    """
    return adamw(
        learning_rate,
        b1,
        b2,
        eps,
        eps_root,
        mu_dtype,
        weight_decay,
        mask,
        nesterov=nesterov,
    )
