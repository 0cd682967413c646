"""Stochastic gradient descent, plain, with momentum, or with Nesterov's."""

from __future__ import annotations

from gradtx.core import (
    ArgumentError,
    DTypeLike,
    Numeric,
    ScalarOrSchedule,
    chain,
    check_decay,
    transformation,
)
from gradtx.transforms import scale_by_learning_rate, trace


@transformation
def sgd(
    learning_rate: ScalarOrSchedule,
    momentum: Numeric | None = None,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
):
    """Descend along the gradient, or along its decayed sum.

    `p ← p − learning_rate·g`; with momentum `p ← p − learning_rate·trace(g)`, where
    `trace` is the link of that name.

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      momentum: the share of the sum that one step keeps, in [0, 1); `None` for none.
      nesterov: whether to look one step ahead.
      accumulator_dtype: dtype of the sum; by default the parameters'.

    Raises:
      ArgumentError: if `momentum` lies outside [0, 1), or `nesterov` has no momentum.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.sgd(0.25, momentum=0.9), {"w": jnp.array([1.0])}
      >>> updates, state = tx.update({"w": jnp.array([2.0])}, tx.init(params))
      >>> gradtx.apply_updates(params, updates)["w"].tolist()
      [0.5]

    Source: Robbins & Monro 1951; Polyak 1964; Sutskever et al. 2013, section 2. Equal
    to torch.optim.SGD with dampening 0.
    """
    if nesterov and momentum is None:
        raise ArgumentError("nesterov needs a momentum, such as momentum=0.9.")
    check_decay(momentum=momentum)
    descend = scale_by_learning_rate(learning_rate)
    if momentum is None:
        return chain(descend)
    return chain(trace(momentum, nesterov, accumulator_dtype), descend)
