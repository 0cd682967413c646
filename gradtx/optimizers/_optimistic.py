"""Optimistic methods: gradients looked ahead by their last change, for games."""

from __future__ import annotations

import warnings

from gradtx.core import (
    ArgumentError,
    DTypeLike,
    Numeric,
    ScalarOrSchedule,
    chain,
    transformation,
)
from gradtx.optimizers._adam import scale_by_adam
from gradtx.transforms import scale_by_learning_rate, scale_by_optimistic_gradient


@transformation
def optimistic_gradient_descent(
    learning_rate: ScalarOrSchedule,
    alpha: ScalarOrSchedule = 1.0,
    beta: ScalarOrSchedule = 1.0,
):
    """Descend by gradients looked ahead by their last change.

    `p ← p − learning_rate·((alpha + beta)·g − beta·g_before)`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      alpha, beta: as in `scale_by_optimistic_gradient`.

    Source: Mokhtari, Ozdaglar & Pattathil 2019, arXiv:1901.08511, equation 11 (OGDA).
    """
    return chain(
        scale_by_optimistic_gradient(alpha, beta),
        scale_by_learning_rate(learning_rate),
    )


@transformation
def optimistic_adam(
    learning_rate: Numeric,
    optimism: Numeric | None = None,
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
):
    """Descend by Adam's direction looked ahead: the older form, with a constant rate.

    `p ← p − ((learning_rate + optimism)·u − optimism·u_before)`, `u` of `scale_by_adam`

    Args:
      learning_rate: a number.
      optimism: weight of the last change; by default the learning rate.
      b1, b2, eps, eps_root, mu_dtype, nesterov: as in `scale_by_adam`.

    Raises:
      ArgumentError: if the learning rate is a schedule: use `optimistic_adam_v2`.

    Source: Daskalakis et al. 2017, arXiv:1711.00141, Algorithm 1.
    """
    warnings.warn(
        "optimistic_adam is the older form: use `optimistic_adam_v2` instead, which "
        "takes schedules.",
        DeprecationWarning,
        stacklevel=3,  # past what remembers the call
    )
    if callable(learning_rate):
        raise ArgumentError(
            "learning_rate must be a number here. optimistic_adam_v2 takes schedules."
        )
    ahead = learning_rate if optimism is None else optimism
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        scale_by_optimistic_gradient(learning_rate, ahead),
        scale_by_learning_rate(1.0),
    )


@transformation
def optimistic_adam_v2(
    learning_rate: ScalarOrSchedule,
    *,
    alpha: ScalarOrSchedule = 1.0,
    beta: ScalarOrSchedule = 1.0,
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
    mu_dtype: DTypeLike | None = None,
    nesterov: bool = True,
):
    """Descend by Adam's direction looked ahead by its last change.

    `p ← p − learning_rate·((alpha + beta)·u − beta·u_before)`, `u` of `scale_by_adam`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      alpha, beta: as in `scale_by_optimistic_gradient`.
      b1, b2, eps, eps_root, mu_dtype, nesterov: as in `scale_by_adam`.

    Source: Daskalakis et al. 2017, arXiv:1711.00141, Algorithm 1.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        scale_by_optimistic_gradient(alpha, beta),
        scale_by_learning_rate(learning_rate),
    )
