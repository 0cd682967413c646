"""Rise to a peak and fall far below the start, once."""

from __future__ import annotations

from typing import Any

from gradtx.core import ArgumentError, Numeric, check_positive, is_static, schedule
from gradtx.schedules._piecewise import interpolated
from gradtx.schedules._steps import as_scalar, check_steps


@schedule
def linear_onecycle_schedule(
    transition_steps: int,
    peak_value: Numeric,
    pct_start: float = 0.3,
    pct_final: float = 0.85,
    div_factor: Numeric = 25.0,
    final_div_factor: Numeric = 1e4,
):
    """Rise to a peak, fall back to the start and then far below it, in three lines.

    Lines through `peak/div_factor` at step 0, `peak` at step `⌊pct_start·T⌋`,
    `peak/div_factor` at step `⌊pct_final·T⌋` and `peak/div_factor/final_div_factor`
    from step `T = transition_steps` on

    Args:
      transition_steps: length of the cycle in updates, above 0.
      peak_value: the highest value.
      pct_start: share of the cycle spent rising, in [0, 1].
      pct_final: share of the cycle at whose end the value is back at its start, in
        [pct_start, 1].
      div_factor: ratio of the peak to the start, above 0.
      final_div_factor: ratio of the start to the end, above 0.

    Raises:
      ArgumentError: if an argument is out of its range.

    Example:
      >>> import gradtx
      >>> cycle = gradtx.schedules.linear_onecycle_schedule(10, 4.0, 0.2, 0.6, 4.0, 2.0)
      >>> [float(cycle(t)) for t in (0, 1, 2, 4, 6, 8, 10)]
      [1.0, 2.5, 4.0, 2.5, 1.0, 0.75, 0.5]

    Source: Smith & Topin 2017, arXiv:1708.07120, section 3 (the 1cycle policy). The
    factors are the defaults of `torch.optim.lr_scheduler.OneCycleLR`.

    Differs from optax where two knots fall on one step: both their factors count.
    """
    _check(transition_steps, div_factor, final_div_factor)
    _check_shares(pct_start=pct_start, pct_final=pct_final)
    if pct_final < pct_start:
        raise ArgumentError(
            f"pct_final must be at least pct_start, got {pct_final!r} < {pct_start!r}."
        )
    down, last = as_scalar(div_factor), as_scalar(final_div_factor)
    rise, fall = int(pct_start * transition_steps), int(pct_final * transition_steps)
    return interpolated(
        "linear",
        as_scalar(peak_value) / down,
        [rise, fall, transition_steps],
        [down, 1.0 / down, 1.0 / last],
    )


@schedule
def cosine_onecycle_schedule(
    transition_steps: int,
    peak_value: Numeric,
    pct_start: float = 0.3,
    div_factor: Numeric = 25.0,
    final_div_factor: Numeric = 1e4,
):
    """Rise to a peak and fall far below the start, along two half cosines.

    Half cosines through `peak/div_factor` at step 0, `peak` at step `⌊pct_start·T⌋`
    and `peak/div_factor/final_div_factor` from step `T = transition_steps` on

    Args:
      transition_steps: length of the cycle in updates, above 0.
      peak_value: the highest value.
      pct_start: share of the cycle spent rising, in [0, 1].
      div_factor: ratio of the peak to the start, above 0.
      final_div_factor: ratio of the start to the end, above 0.

    Raises:
      ArgumentError: if an argument is out of its range.

    Example:
      >>> import gradtx
      >>> cycle = gradtx.schedules.cosine_onecycle_schedule(8, 4.0, 0.5, 4.0, 2.0)
      >>> [float(cycle(t)) for t in (0, 2, 4, 6, 8)]
      [1.0, 2.5, 4.0, 2.25, 0.5]

    Source: Smith & Topin 2017, arXiv:1708.07120, section 3 (the 1cycle policy). The
    factors are the defaults of `torch.optim.lr_scheduler.OneCycleLR`.

    Differs from the paper: two phases, along cosines, as in fastai and torch.

    Differs from optax where two knots fall on one step: both their factors count.
    """
    _check(transition_steps, div_factor, final_div_factor)
    _check_shares(pct_start=pct_start)
    down, last = as_scalar(div_factor), as_scalar(final_div_factor)
    return interpolated(
        "cosine",
        as_scalar(peak_value) / down,
        [int(pct_start * transition_steps), transition_steps],
        [down, 1.0 / (down * last)],
    )


def _check(transition_steps: int, div_factor: Any, final_div_factor: Any) -> None:
    check_steps(transition_steps=transition_steps)
    check_positive(
        transition_steps=transition_steps,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
    )


def _check_shares(**shares: Any) -> None:
    for name, share in shares.items():
        if not is_static(share) or not 0 <= share <= 1:
            raise ArgumentError(
                f"{name} must be a plain number in [0, 1], got {share!r}. It is a "
                "share of transition_steps."
            )
