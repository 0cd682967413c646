"""Losses made of a regularised maximum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def make_fenchel_young_loss(
    max_fun: Callable[..., Any],
) -> Callable[..., jax.Array]:
    """Make the Fenchel–Young loss of a regularised maximum.

    `loss(scores, targets) = max_fun(scores) − ⟨targets, scores⟩`

    Args:
      max_fun: `(scores of shape (n,), …) -> scalar`, such as
        `jax.scipy.special.logsumexp`.

    Returns:
      `(scores, targets, *args, **kwargs) -> losses`, on arrays of shape `(*batch, n)`;
      further arguments go to `max_fun`. Up to the regulariser at the targets, which is
      constant in the scores.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> loss = gradtx.make_fenchel_young_loss(jax.scipy.special.logsumexp)
      >>> loss(jnp.zeros(4), jnp.eye(4)[0]).round(3).tolist()
      1.3860000371932983

    Source: Blondel, Martins & Niculae 2019, arXiv:1901.02324, definition 2.
    """
    of_vectors = jnp.vectorize(max_fun, signature="(n)->()")
    inner = jnp.vectorize(jnp.vdot, signature="(n),(n)->()")

    def fenchel_young_loss(scores: Any, targets: Any, *args: Any, **kwargs: Any):
        return of_vectors(scores, *args, **kwargs) - inner(targets, scores)

    return fenchel_young_loss
