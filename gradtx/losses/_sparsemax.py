"""Sparsemax: probabilities that are the projection of scores on the simplex."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.losses._arrays import check_integers, floats
from gradtx.projections import projection_simplex


def multiclass_sparsemax_loss(scores: Any, labels: Any) -> jax.Array:
    """Return the loss whose gradient is sparsemax probabilities minus the label.

    `½·(1 − ‖p‖²) + ⟨p, scores⟩ − scores_label`, `p` the projection of the scores on the
    simplex

    Args:
      scores: floating array of shape `(*batch, classes)`.
      labels: integers in [0, classes), of shape `(*batch,)`.

    Returns:
      An array of shape `(*batch,)`.

    Raises:
      DtypeError: if scores are not floating or labels not integer.

    Source: Martins & Astudillo 2016, arXiv:1602.02068, equation 17.
    """
    (scores,) = floats("multiclass_sparsemax_loss", scores)
    labels = jnp.asarray(labels)
    check_integers("multiclass_sparsemax_loss", labels)

    def one(score: jax.Array, label: jax.Array) -> jax.Array:
        p = projection_simplex(score)
        gaps = score - score[label]
        # where nothing is chosen, even an infinite gap counts nothing
        return jnp.sum(jnp.where(p > 0, p * gaps, 0)) + 0.5 * (1 - jnp.sum(p * p))

    return jnp.vectorize(one, signature="(n),()->()")(scores, labels)
