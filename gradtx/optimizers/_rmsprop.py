"""RMSProp in all the forms in use: divide by the root of a mean of squares."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax.numpy as jnp

from gradtx.core import (
    ArgumentError,
    Count,
    Numeric,
    PerParam,
    ScalarOrSchedule,
    bias_correction as weight_seen,
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
from gradtx.transforms import add_decayed_weights, scale_by_learning_rate, trace


class ScaleByRmsState(NamedTuple):
    """The state of `scale_by_rms`: a running mean of squares."""

    nu: PerParam


class ScaleByRmsWithCountState(NamedTuple):
    """The state of `scale_by_rms` with bias correction: also the updates made."""

    count: Count
    nu: PerParam


class ScaleByRStdDevState(NamedTuple):
    """The state of `scale_by_stddev`: running means of updates and of squares."""

    mu: PerParam
    nu: PerParam


class ScaleByRStdDevWithCountState(NamedTuple):
    """The state of `scale_by_stddev` with bias correction: also the updates made."""

    count: Count
    mu: PerParam
    nu: PerParam


@transformation(stage="precondition")
def scale_by_rms(
    decay: Numeric = 0.9,
    eps: Numeric = 1e-8,
    initial_scale: Numeric = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
):
    """Divide updates by the root of a running mean of their squares.

    `nu ← decay·nu + (1 − decay)·|g|²`; `u ← g / √(nu + eps)`, or with the root
    outside `u ← g / (√nu + eps)`; with bias correction `nu / (1 − decay^t)` for `nu`.

    Args:
      decay: the share of the mean that one step keeps, in [0, 1).
      eps: keeps the quotient finite.
      initial_scale: the mean before the first update, 0 or more.
      eps_in_sqrt: whether `eps` stands under the root (optax, Keras, TensorFlow) or
        beside it (torch).
      bias_correction: whether to divide the mean by the weight it has seen.

    Raises:
      ArgumentError: if `decay` lies outside [0, 1), or another number is negative.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_rms(decay=0.75)
      >>> updates, _ = tx.update({"w": jnp.array([8.0])}, tx.init({"w": jnp.zeros(1)}))
      >>> updates["w"].tolist()
      [2.0]

    Source: Tieleman & Hinton 2012, Coursera lecture 6.5; Graves 2013,
    arXiv:1308.0850, equation 38.
    """
    return _normalised(
        decay, eps, initial_scale, eps_in_sqrt, bias_correction, centered=False
    )


@transformation(stage="precondition")
def scale_by_stddev(
    decay: Numeric = 0.9,
    eps: Numeric = 1e-8,
    initial_scale: Numeric = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
):
    """Divide updates by their running standard deviation.

    `mu ← decay·mu + (1 − decay)·g`; `nu ← decay·nu + (1 − decay)·|g|²`;
    `var = max(nu − |mu|², ulp·nu)`; `u ← g / √(var + eps)`, or `u ← g / (√var + eps)`,
    with `ulp` the relative rounding error of the dtype

    Args:
      decay, eps, eps_in_sqrt: as in `scale_by_rms`.
      initial_scale: `nu` before the first update, 0 or more.
      bias_correction: whether to divide both means by the weight they have seen.

    Raises:
      ArgumentError: if `decay` lies outside [0, 1), or another number is negative.

    The first variance under bias correction is that of one number: 0, and the first
    step as large as `eps` allows. Start from an `initial_scale` above 0 instead.

    Source: Graves 2013, arXiv:1308.0850, equations 38 to 40.

    Differs from Graves, torch and optax: the variance is kept from going below its
    own rounding error, or below 0, when the gradient is constant.
    """
    return _normalised(
        decay, eps, initial_scale, eps_in_sqrt, bias_correction, centered=True
    )


def _normalised(decay, eps, initial_scale, eps_in_sqrt, debias, centered):
    check_decay(decay=decay)
    check_non_negative(eps=eps, initial_scale=initial_scale)

    def init(params):
        nu = second_moment_like(params, initial_scale)
        if centered:
            mu = zeros_like(params)
            if debias:
                return ScaleByRStdDevWithCountState(zero_count(), mu, nu)
            return ScaleByRStdDevState(mu, nu)
        if debias:
            return ScaleByRmsWithCountState(zero_count(), nu)
        return ScaleByRmsState(nu)

    def update(updates, state, params=None, **extra):
        counted, weight = {}, 1.0
        if debias:
            counted = {"count": safe_increment(state.count)}
            weight = weight_seen(decay, counted["count"])

        def leaf(g, nu, *mu, decay, eps, weight):  # one leaf, all of one shape
            nu = decay * nu + (1 - decay) * capped_abs_sq(g)
            power = nu / weight
            if centered:
                mu = (decay * mu[0] + (1 - decay) * g,)
                # a variance is known only to rounding of the mean of squares
                known = jnp.finfo(power.dtype).eps * power
                power = jnp.maximum(power - capped_abs_sq(mu[0] / weight), known)
            root = jnp.sqrt(power + eps) if eps_in_sqrt else safe_sqrt(power) + eps
            return g / root, nu, *mu

        old = (state.nu, state.mu) if centered else (state.nu,)
        updates, *moments = map_leaves(
            leaf,
            updates,
            *old,
            outputs=1 + len(old),
            decay=decay,
            eps=eps,
            weight=weight,
        )
        made = dict(zip(("nu", "mu"), moments, strict=False))
        return updates, state._replace(**made, **counted)

    return init, update


@transformation
def rmsprop(
    learning_rate: ScalarOrSchedule,
    decay: Numeric = 0.9,
    eps: Numeric = 1e-8,
    initial_scale: Numeric = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Numeric | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    *,
    momentum_after: Literal["learning_rate", "scaling"] = "learning_rate",
    weight_decay: ScalarOrSchedule = 0.0,
):
    """Descend with gradients divided by the root of a running mean of their squares.

    `u` of `scale_by_rms`, or centered of `scale_by_stddev`; then
    `p ← p − learning_rate·u`, with momentum in one of two places:
    after the learning rate `trace ← momentum·trace + learning_rate·u`; `p ← p − trace`,
    after the scaling `trace ← momentum·trace + u`; `p ← p − learning_rate·trace`.

    The forms in use, and the arguments that make them:

    | form | eps_in_sqrt | decay, eps | momentum_after |
    |---|---|---|---|
    | lecture (Tieleman & Hinton) | either | 0.9, – | none |
    | torch | `False` | 0.99, 1e-8 | `"scaling"` |
    | Keras 3 | `True` | 0.9, 1e-7 | `"learning_rate"` |
    | TensorFlow 1 (with `initial_scale=1`) | `True` | 0.9, 1e-10 | `"learning_rate"` |
    | optax | `True` | 0.9, 1e-8 | `"learning_rate"` |

    The two places for momentum differ only while the learning rate changes.

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      decay, eps, initial_scale, eps_in_sqrt: as in `scale_by_rms`.
      centered: whether to divide by the standard deviation instead.
      momentum: the share of the buffer that one step keeps, in [0, 1); `None` for no
        buffer at all.
      nesterov: whether the momentum looks one step ahead.
      bias_correction: as in `scale_by_rms`.
      momentum_after: where the buffer stands, see above.
      weight_decay: coupled decay, added to the gradient before its square is taken:
        `g ← g + weight_decay·p` (torch).

    Raises:
      ArgumentError: if a decay or the momentum lies outside [0, 1), a number is
        negative, `nesterov` has no momentum, or `momentum_after` names no place.

    Example:
      >>> import gradtx
      >>> tx = gradtx.rmsprop(
      ...     1e-2, decay=0.99, eps_in_sqrt=False, momentum=0.9,
      ...     momentum_after="scaling", weight_decay=1e-4,
      ... )  # torch.optim.RMSprop(params, momentum=0.9, weight_decay=1e-4)

    Source: Tieleman & Hinton 2012, Coursera lecture 6.5; Graves 2013,
    arXiv:1308.0850, equations 38 to 41.
    """
    if nesterov and momentum is None:
        raise ArgumentError("nesterov needs a momentum, such as momentum=0.9.")
    check_decay(momentum=momentum)
    if momentum_after not in ("learning_rate", "scaling"):
        raise ArgumentError(
            'momentum_after must be "learning_rate" or "scaling", got '
            f"{momentum_after!r}."
        )
    scaling = scale_by_stddev if centered else scale_by_rms
    links = [scaling(decay, eps, initial_scale, eps_in_sqrt, bias_correction)]
    if callable(weight_decay) or weight_decay != 0.0:
        links.insert(0, add_decayed_weights(weight_decay))
    links.append(scale_by_learning_rate(learning_rate))
    if momentum is not None:
        place = len(links) - (momentum_after == "scaling")
        links.insert(place, trace(momentum, nesterov))
    return chain(*links)
