"""Losses of embeddings."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import Numeric, ShapeError, check_positive
from gradtx.losses._arrays import floats
from gradtx.losses._cosine import cosine_similarity


def ntxent(embeddings: Any, labels: Any, temperature: Numeric = 0.07) -> jax.Array:
    """Return the normalised, temperature-scaled cross entropy of matching pairs.

    `−mean over pairs i ≠ j of one label of log(e^s_ij / (e^s_ij + Σ_k e^s_ik))`, `s` the
    cosine similarity over the temperature, k over other labels; 0 without pairs

    Args:
      embeddings: floating array of shape `(batch, features)`.
      labels: array of shape `(batch,)`; equal ones match.
      temperature: above 0.

    Returns:
      A scalar.

    Raises:
      ShapeError: if labels are more or fewer than embeddings.

    Source: Sohn 2016, "Improved Deep Metric Learning with Multi-class N-pair Loss
    Objective"; Chen et al. 2020, arXiv:2002.05709, equation 1.

    Differs from optax: a batch without pairs costs 0, where it would be NaN.
    """
    check_positive(temperature=temperature)
    (embeddings,) = floats("ntxent", embeddings)
    labels = jnp.asarray(labels)
    if labels.shape[0] != embeddings.shape[0]:
        raise ShapeError(
            f"{labels.shape[0]} labels for {embeddings.shape[0]} embeddings.", "ntxent"
        )
    near = cosine_similarity(
        embeddings[None],
        embeddings[:, None],
        epsilon=float(jnp.finfo(embeddings.dtype).eps),
    )
    near = near / jnp.asarray(temperature).astype(near.dtype)
    same = labels[:, None] == labels[None]
    pairs = same & ~jnp.eye(len(labels), dtype=bool)
    others = jax.nn.logsumexp(near, axis=1, keepdims=True, where=~same)
    log_share = near - jnp.logaddexp(near, others)
    count = jnp.sum(pairs, dtype=near.dtype)
    return -jnp.sum(log_share, where=pairs) / jnp.maximum(count, 1)


def triplet_margin_loss(
    anchors: Any,
    positives: Any,
    negatives: Any,
    axis: int = -1,
    norm_degree: Numeric = 2,
    margin: Numeric = 1.0,
    eps: Numeric = 1e-6,
) -> jax.Array:
    """Return by how much positives are not nearer than negatives by a margin.

    `max(d(a, p) − d(a, n) + margin, 0)`, `d(x, y) = (Σ |x − y|^k + eps)^(1/k)`

    Args:
      anchors: floating array of shape `(*batch, features)`.
      positives, negatives: arrays of that shape.
      axis: the axis of the features.
      norm_degree: k, above 0.
      margin: how much nearer they shall be.
      eps: added under the root.

    Returns:
      An array of shape `(*batch,)`.

    Source: Balntas et al. 2016, "Learning local feature descriptors with triplets and
    shallow convolutional neural networks", equation 2.

    Differs from optax: differences count by magnitude, for odd degrees too.
    """
    anchors, positives, negatives = floats(
        "triplet_margin_loss", anchors, positives, negatives
    )

    def distance(x: jax.Array) -> jax.Array:
        powers = jnp.square(x) if norm_degree == 2 else jnp.abs(x) ** norm_degree
        return (jnp.sum(powers, axis) + eps) ** (1 / norm_degree)

    gap = distance(anchors - positives) - distance(anchors - negatives)
    return jnp.maximum(gap + margin, 0)
