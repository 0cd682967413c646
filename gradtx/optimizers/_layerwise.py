"""LARS, LAMB and Fromage: steps in proportion to each layer's own size."""

from __future__ import annotations

from gradtx.combinators import masked
from gradtx.core import (
    MaskOrFn,
    Numeric,
    ScalarOrSchedule,
    chain,
    transformation,
    value_at,
)
from gradtx.optimizers._adam import scale_by_adam
from gradtx.transforms import (
    add_decayed_weights,
    scale_by_learning_rate,
    scale_by_trust_ratio,
    trace,
)


@transformation
def lars(
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: MaskOrFn = True,
    trust_coefficient: Numeric = 0.001,
    eps: Numeric = 0.0,
    trust_ratio_mask: MaskOrFn = True,
    momentum: Numeric = 0.9,
    nesterov: bool = False,
):
    """Descend with momentum by gradients that have a share of each layer's norm.

    `r ← g + weight_decay·p`; `r ← r·trust_coefficient·‖p‖/(‖r‖ + eps)`;
    `trace ← learning_rate·r + momentum·trace`; `p ← p − trace`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      weight_decay: as in `add_decayed_weights`.
      weight_decay_mask: which leaves decay.
      trust_coefficient, eps: as in `scale_by_trust_ratio`.
      trust_ratio_mask: which leaves get the ratio.
      momentum, nesterov: `decay` and `nesterov` of `trace`.

    Source: You, Gitman & Ginsburg 2017, arXiv:1708.03888, Algorithm 1.
    """
    return chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        masked(
            scale_by_trust_ratio(trust_coefficient=trust_coefficient, eps=eps),
            trust_ratio_mask,
        ),
        scale_by_learning_rate(learning_rate),
        trace(momentum, nesterov),
    )


@transformation
def lamb(
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-6,
    eps_root: Numeric = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
):
    """Descend with Adam's direction at each layer's own norm.

    `r ← u + weight_decay·p`, `u` of `scale_by_adam`;
    `p ← p − learning_rate·r·‖p‖/‖r‖`, without the ratio where one of the norms is 0

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      b1, b2, eps, eps_root: as in `scale_by_adam`.
      weight_decay, mask: as in `add_decayed_weights`.

    Source: You et al. 2019, arXiv:1904.00962, Algorithm 2, with the identity for phi.
    """
    # The norm and the update both read Adam's direction. Its root and its quotient are
    # computed once, so XLA keeps it in memory: 4 bytes per parameter on a CPU.
    return chain(
        scale_by_adam(b1, b2, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_trust_ratio(),
        scale_by_learning_rate(learning_rate),
    )


@transformation
def fromage(learning_rate: ScalarOrSchedule, min_norm: Numeric = 1e-6):
    """Descend at each layer's own norm, and shrink the layer so that it keeps it.

    `p ← (p − learning_rate·g·‖p‖/‖g‖) / √(1 + learning_rate²)`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      min_norm: the norm that gradient and parameter have at least.

    Source: Bernstein et al. 2020, arXiv:2002.03432, Algorithm 1.
    """

    def at(step):
        return value_at(learning_rate, step)

    def shrunk(step):
        return 1 / (1 + at(step) ** 2) ** 0.5

    def rate(step):
        return at(step) * shrunk(step)

    def growth(step):
        return shrunk(step) - 1

    return chain(
        scale_by_trust_ratio(min_norm),
        scale_by_learning_rate(rate),
        add_decayed_weights(growth),
        deliberate=True,  # the paper shrinks layers by a number of its own
    )
