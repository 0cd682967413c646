"""Kullback–Leibler divergences."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.losses._arrays import floats


def kl_divergence(
    log_predictions: Any,
    targets: Any,
    axis: int | tuple[int, ...] | None = -1,
    where: Any = None,
) -> jax.Array:
    """Return the divergence of predictions from targets.

    `Σ_k target_k·(log target_k − log_prediction_k)`, with `0·log 0 = 0`

    Args:
      log_predictions: floating array of logarithms, shape `(*batch, classes)`.
      targets: probabilities of that shape.
      axis: the axes of the classes.
      where: classes to include.

    Returns:
      An array of shape `(*batch,)`.

    Raises:
      DtypeError: if predictions are not floating.

    Source: Kullback & Leibler 1951, "On Information and Sufficiency".

    Differs from optax: derivatives by a target of 0 are finite.
    """
    log_predictions, targets = floats("kl_divergence", log_predictions, targets)
    there = targets > 0
    log_targets = jnp.where(there, jnp.log(jnp.where(there, targets, 1)), 0)
    return jnp.sum(targets * (log_targets - log_predictions), axis=axis, where=where)


def kl_divergence_with_log_targets(
    log_predictions: Any,
    log_targets: Any,
    axis: int | tuple[int, ...] | None = -1,
    where: Any = None,
) -> jax.Array:
    """Return the divergence of predictions from targets, both as logarithms.

    `Σ_k exp(log_target_k)·(log_target_k − log_prediction_k)`

    Args:
      log_predictions, axis, where: as in `kl_divergence`.
      log_targets: logarithms of probabilities.

    Source: Kullback & Leibler 1951, "On Information and Sufficiency".
    """
    log_predictions, log_targets = floats(
        "kl_divergence_with_log_targets", log_predictions, log_targets
    )
    loss = jnp.exp(log_targets) * (log_targets - log_predictions)
    return jnp.sum(loss, axis=axis, where=where)


def generalized_kl_divergence(
    log_predictions: Any,
    targets: Any,
    axis: int | tuple[int, ...] | None = -1,
    where: Any = None,
) -> jax.Array:
    """Return the divergence of measures that need not sum to 1.

    `kl_divergence + Σ_k (exp(log_prediction_k) − target_k)`

    Args:
      log_predictions, targets, axis, where: as in `kl_divergence`.

    Source: Csiszár 1991, "Why Least Squares and Maximum Entropy?", section 3.
    """
    log_predictions, targets = floats(
        "generalized_kl_divergence", log_predictions, targets
    )
    divergence = kl_divergence(log_predictions, targets, axis, where)
    excess = jnp.exp(log_predictions) - targets
    return divergence + jnp.sum(excess, axis=axis, where=where)


#: The older name.
convex_kl_divergence = generalized_kl_divergence
