"""DP-SGD: stochastic gradient descent that hides what one example contributed."""

from __future__ import annotations

from gradtx.core import (
    ArgumentError,
    Numeric,
    ScalarOrSchedule,
    chain,
    check_decay,
    transformation,
)
from gradtx.transforms import (
    differentially_private_aggregate,
    scale_by_learning_rate,
    trace,
)


@transformation
def dpsgd(
    learning_rate: ScalarOrSchedule,
    l2_norm_clip: Numeric,
    noise_multiplier: Numeric,
    seed: int,
    momentum: Numeric | None = None,
    nesterov: bool = False,
):
    """Descend along bounded, noisy means of gradients per example.

    `p ← p − learning_rate·u`, with `u` of `differentially_private_aggregate`, or its
    decayed sum

    Updates are gradients per example, of shape `(batch, *shape)`.

    Args:
      learning_rate, momentum, nesterov: as in `sgd`.
      l2_norm_clip, noise_multiplier: as in `differentially_private_aggregate`.
      seed: its `key`: an integer that nobody else knows, or a key of `jax.random`.

    Raises:
      ArgumentError: if there is no seed, or as `sgd` and the link do.

    Source: Abadi et al. 2016, arXiv:1607.00133, Algorithm 1.

    Differs from optax: as `differentially_private_aggregate` does; `nesterov` without a
    momentum raises, where it did nothing.
    """
    if seed is None:
        raise ArgumentError(
            "give a seed: noise that anybody can compute hides nothing."
        )
    if nesterov and momentum is None:
        raise ArgumentError("nesterov needs a momentum, such as momentum=0.9.")
    check_decay(momentum=momentum)
    return chain(
        differentially_private_aggregate(l2_norm_clip, noise_multiplier, seed),
        *(() if momentum is None else (trace(momentum, nesterov),)),
        scale_by_learning_rate(learning_rate),
    )
