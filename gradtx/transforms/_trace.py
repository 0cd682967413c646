"""Accumulate updates over time: heavy-ball momentum and running means."""

from __future__ import annotations

from typing import NamedTuple

from gradtx.core import (
    ArgumentError,
    Count,
    DTypeLike,
    Numeric,
    PerParam,
    bias_correction,
    check_decay,
    is_static,
    map_leaves,
    safe_increment,
    transformation,
    zero_count,
    zeros_like,
)


class TraceState(NamedTuple):
    """The state of `trace`: a decayed sum of past updates."""

    trace: PerParam


class EmaState(NamedTuple):
    """The state of `ema`: a running mean that starts at 0, not yet corrected."""

    count: Count
    ema: PerParam


@transformation(stage="average")
def trace(
    decay: Numeric,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
):
    """Replace updates by their decayed sum: momentum.

    `trace ← g + decay·trace`; `u ← trace`, or with Nesterov `u ← g + decay·trace`.

    Args:
      decay: the share of the sum that one step keeps, in [0, 1]; 1 keeps it all.
      nesterov: whether to look one step ahead.
      accumulator_dtype: dtype of the sum; by default the parameters'.

    Raises:
      ArgumentError: if `decay` lies outside [0, 1].

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.trace(0.5)
      >>> state = tx.init({"w": jnp.zeros(1)})
      >>> for _ in range(2):
      ...     updates, state = tx.update({"w": jnp.ones(1)}, state)
      >>> updates["w"].tolist()
      [1.5]

    Source: Polyak 1964 (heavy ball); Nesterov 1983 in the form of Sutskever et al.
    2013, section 2, as in torch.optim.SGD with dampening 0.
    """
    if is_static(decay) and not 0 <= decay <= 1:
        raise ArgumentError(f"decay must lie in [0, 1], got {decay!r}.")

    def init(params):
        return TraceState(trace=zeros_like(params, accumulator_dtype))

    def update(updates, state, params=None, **extra):
        def leaf(g, tr, *, decay):  # g, tr: one leaf, same shape
            tr = g + decay * tr
            return (g + decay * tr if nesterov else tr), tr

        updates, tr = map_leaves(leaf, updates, state.trace, outputs=2, decay=decay)
        return updates, TraceState(tr)

    return init, update


@transformation(stage="average")
def ema(
    decay: Numeric,
    debias: bool = True,
    accumulator_dtype: DTypeLike | None = None,
):
    """Replace updates by their exponential running mean.

    `ema ← decay·ema + (1 − decay)·g`; `u ← ema / (1 − decay^t)`, t = 1, 2, …, or
    `u ← ema` without debiasing.

    Args:
      decay: the share of the mean that one step keeps, in [0, 1).
      debias: whether to divide by the weight that the mean has seen.
      accumulator_dtype: dtype of the mean; by default the parameters'.

    Raises:
      ArgumentError: if `decay` lies outside [0, 1).

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.ema(0.75)
      >>> updates, state = tx.update({"w": jnp.ones(1)}, tx.init({"w": jnp.zeros(1)}))
      >>> updates["w"].round(3).tolist(), state.ema["w"].tolist()
      ([1.0], [0.25])

    Source: Kingma & Ba 2014, arXiv:1412.6980, section 3 (the debiased mean).
    """
    check_decay(decay=decay)

    def init(params):
        return EmaState(zero_count(), zeros_like(params, accumulator_dtype))

    def update(updates, state, params=None, **extra):
        count = safe_increment(state.count)
        weight = bias_correction(decay, count) if debias else 1.0

        def leaf(g, mean, *, decay, weight):  # g, mean: one leaf, same shape
            mean = decay * mean + (1 - decay) * g
            return mean / weight, mean

        updates, mean = map_leaves(
            leaf, updates, state.ema, outputs=2, decay=decay, weight=weight
        )
        return updates, EmaState(count, mean)

    return init, update
