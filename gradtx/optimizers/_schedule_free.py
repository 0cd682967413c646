"""Gradient descent and AdamW without a schedule to tune."""

from __future__ import annotations

from gradtx.combinators import schedule_free
from gradtx.core import (
    ArgumentError,
    DTypeLike,
    Numeric,
    ScalarOrSchedule,
    bias_correction,
    chain,
    check_count,
    map_leaves,
    safe_sqrt,
    transformation,
)
from gradtx.optimizers._rmsprop import scale_by_rms
from gradtx.optimizers._sgd import sgd
from gradtx.schedules import warmup_constant_schedule
from gradtx.transforms import add_decayed_weights, scale_by_learning_rate


@transformation
def schedule_free_sgd(
    learning_rate: ScalarOrSchedule = 1.0,
    warmup_steps: int | None = None,
    b1: Numeric = 0.9,
    weight_decay: Numeric | None = None,
    weight_lr_power: Numeric = 2.0,
    state_dtype: DTypeLike | None = None,
):
    """Descend by plain gradients and average the iterates.

    `z ← z − learning_rate·(g + weight_decay·y)`, with `y` of `schedule_free`

    Args:
      learning_rate: a number, or a schedule that does not fall.
      warmup_steps: over how many updates it rises in equal steps from
        `learning_rate/warmup_steps`; by default none.
      b1, weight_lr_power, state_dtype: as in `schedule_free`.
      weight_decay: as in `add_decayed_weights`; by default none.

    Raises:
      ArgumentError: if `warmup_steps` is no integer of 1 or more.

    Source: Defazio et al. 2024, arXiv:2405.15682, Algorithm 1, and the authors' code.

    Differs from optax: the first update of a warm-up has a rate of
    `learning_rate/warmup_steps`, as in the authors' code; there it is 0.
    """
    rate = _warmed(learning_rate, warmup_steps)
    decay = () if weight_decay is None else (add_decayed_weights(weight_decay),)
    return schedule_free(
        chain(*decay, sgd(rate)), rate, b1, weight_lr_power, state_dtype
    )


@transformation(needs={"params"})
def schedule_free_adamw(
    learning_rate: ScalarOrSchedule = 0.0025,
    warmup_steps: int | None = None,
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-8,
    weight_decay: Numeric = 0.0,
    weight_lr_power: Numeric = 2.0,
    state_dtype: DTypeLike | None = None,
):
    """Descend by Adam without momentum and average the iterates.

    `z ← z − learning_rate·(g/(√(nu/(1 − b2^t)) + eps) + weight_decay·y)`, with `y` of
    `schedule_free` and `nu` of `scale_by_rms`

    Args:
      learning_rate, warmup_steps: as in `schedule_free_sgd`.
      b1, weight_lr_power, state_dtype: as in `schedule_free`.
      b2: the share of `nu` that one step keeps, in [0, 1).
      eps: added to the root.
      weight_decay: as in `add_decayed_weights`.

    Raises:
      ArgumentError: if `warmup_steps` is no integer of 1 or more.

    Source: Defazio et al. 2024, arXiv:2405.15682, Algorithm 1, and the authors' code.

    Differs from optax: as `schedule_free_sgd`.
    """
    rate = _warmed(learning_rate, warmup_steps)
    base = chain(
        scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True),
        add_decayed_weights(weight_decay),
        scale_by_learning_rate(rate),
    )
    averaged = schedule_free(base, rate, b1, weight_lr_power, state_dtype)

    def again(updates, state, params):
        """Return half of the update that `base` made, from its new state."""

        def leaf(g, nu, y, *, eps, c2, decay, rate):
            # by powers of two, which is exact, so that no root, no quotient is the same
            half = g / 4 / (safe_sqrt(nu / 4 / c2) + eps / 2)
            return -rate * (half + decay / 2 * y)

        rms, before = state.scale_by_rms, state.scale_by_learning_rate.count - 1
        return map_leaves(
            leaf,
            updates,
            rms.nu,
            params,
            eps=eps,
            c2=bias_correction(b2, rms.count),
            decay=weight_decay,
            rate=rate(before) if callable(rate) else rate,
        )

    def update(updates, state, params=None, **extra):
        return averaged.update(updates, state, params, **extra, again=again)

    return averaged.init, update


def _warmed(rate: ScalarOrSchedule, steps: int | None) -> ScalarOrSchedule:
    if steps is None:
        return rate
    check_count(1, warmup_steps=steps)
    if callable(rate):
        raise ArgumentError(
            "give a number as learning_rate beside warmup_steps, or a schedule that "
            "warms up by itself."
        )
    return warmup_constant_schedule(rate / steps, rate, steps - 1)
