"""Sign descent, its momentum form, and descent with noise."""

from __future__ import annotations

from typing import Any

from gradtx.core import DTypeLike, Numeric, ScalarOrSchedule, chain, transformation
from gradtx.transforms import add_noise, ema, scale_by_learning_rate, scale_by_sign


@transformation(scale_free=True)
def sign_sgd(learning_rate: ScalarOrSchedule):
    """Descend by the sign of the gradient.

    `p ← p − learning_rate·sign(g)`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.

    Source: Bernstein et al. 2018, arXiv:1802.04434, Algorithm 1.
    """
    return chain(scale_by_sign(), scale_by_learning_rate(learning_rate))


@transformation(scale_free=True)
def signum(
    learning_rate: ScalarOrSchedule,
    beta: Numeric = 0.9,
    accumulator_dtype: DTypeLike | None = None,
):
    """Descend by the sign of a running mean of gradients.

    `mu ← beta·mu + (1 − beta)·g`; `p ← p − learning_rate·sign(mu)`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      beta: the share of the mean that one step keeps, in [0, 1).
      accumulator_dtype: dtype of the mean; by default the parameters'.

    Source: Bernstein et al. 2018, arXiv:1802.04434, Algorithm 2.
    """
    return chain(
        ema(beta, debias=False, accumulator_dtype=accumulator_dtype),
        scale_by_sign(),
        scale_by_learning_rate(learning_rate),
    )


@transformation
def noisy_sgd(
    learning_rate: ScalarOrSchedule,
    eta: Numeric = 0.01,
    gamma: Numeric = 0.55,
    key: Any = None,
    *,
    seed: int | None = None,
):
    """Descend by the gradient and annealed Gaussian noise.

    `p ← p − learning_rate·(g + noise)`, with the noise of `add_noise`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      eta, gamma, key, seed: as in `add_noise`.

    Source: Neelakantan et al. 2015, arXiv:1511.06807, section 3.
    """
    return chain(
        add_noise(eta, gamma, key, seed=seed), scale_by_learning_rate(learning_rate)
    )
