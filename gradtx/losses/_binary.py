"""Judge scores of two classes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import Numeric
from gradtx.losses._arrays import check_same, floats


def sigmoid_binary_cross_entropy(logits: Any, labels: Any) -> jax.Array:
    """Return the cross entropy of two classes, from logits.

    `−label·log σ(logit) − (1 − label)·log σ(−logit)`

    Args:
      logits: floating array of any shape.
      labels: array that broadcasts with it: probabilities of the class 1, in [0, 1].

    Returns:
      An array of the broadcast shape; nothing is summed.

    Raises:
      DtypeError: if logits are not floating.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> loss = gradtx.sigmoid_binary_cross_entropy(jnp.zeros(2), jnp.array([0.0, 1.0]))
      >>> loss.round(4).tolist()
      [0.6930999755859375, 0.6930999755859375]

    Source: Bishop 2006, "Pattern Recognition and Machine Learning", equation 4.90.
    """
    logits, labels = floats("sigmoid_binary_cross_entropy", logits, labels)
    return -labels * jax.nn.log_sigmoid(logits) - (1 - labels) * jax.nn.log_sigmoid(
        -logits
    )


def sigmoid_focal_loss(
    logits: Any, labels: Any, *, alpha: Numeric | None = None, gamma: Numeric = 2.0
) -> jax.Array:
    """Return the binary cross entropy, weighted down where it is small already.

    `(1 − q)^gamma·ce`, `q` the probability of the label; times `alpha` for the class 1
    and `1 − alpha` for the class 0 where given

    Args:
      logits, labels: as in `sigmoid_binary_cross_entropy`.
      alpha: weight of the class 1, in [0, 1].
      gamma: how fast the weight falls, 0 or more.

    Source: Lin et al. 2017, arXiv:1708.02002, equation 5.
    """
    logits, labels = floats("sigmoid_focal_loss", logits, labels)
    entropy = sigmoid_binary_cross_entropy(logits, labels)
    log_p, log_not = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    # log(1 − q): in logarithms, so that powers of a vanishing weight have derivatives
    log_miss = jax.scipy.special.logsumexp(
        jnp.stack(jnp.broadcast_arrays(log_p, log_not), -1),
        axis=-1,
        b=jnp.stack(jnp.broadcast_arrays(1 - labels, labels), -1),
    )
    loss = entropy * jnp.exp(gamma * log_miss)
    if alpha is None:
        return loss
    return (alpha * labels + (1 - alpha) * (1 - labels)) * loss


def hinge_loss(predictor_outputs: Any, targets: Any) -> jax.Array:
    """Return by how much scores miss a margin of 1: `max(0, 1 − score·target)`.

    Args:
      predictor_outputs: floating array of scores.
      targets: array of that shape, −1 or 1.

    Source: Cortes & Vapnik 1995, "Support-Vector Networks".
    """
    scores, targets = floats("hinge_loss", predictor_outputs, targets)
    return jnp.maximum(0, 1 - scores * targets)


def perceptron_loss(predictor_outputs: Any, targets: Any) -> jax.Array:
    """Return by how much scores are on the wrong side: `max(0, −score·target)`.

    Args:
      predictor_outputs, targets: as in `hinge_loss`.

    Raises:
      ShapeError: if the shapes differ.

    Source: Rosenblatt 1958, "The Perceptron".
    """
    scores, targets = floats("perceptron_loss", predictor_outputs, targets)
    check_same("perceptron_loss", predictor_outputs=scores, targets=targets)
    return jnp.maximum(0, -scores * targets)


def sparsemax_loss(logits: Any, labels: Any) -> jax.Array:
    """Return the loss whose probabilities are exactly 0 and 1 beyond a margin.

    `0` where `m ≤ −1`, `m` where `m ≥ 1`, else `¼·(m + 1)²`; `m` is `logit` for the
    class 0 and `−logit` for the class 1

    Args:
      logits: floating array of any shape.
      labels: array of that shape, 0 or 1, or bool.

    Source: Martins & Astudillo 2016, arXiv:1602.02068, section 3.
    """
    logits = jnp.asarray(logits)
    return jax.nn.sparse_plus(jnp.where(jnp.asarray(labels, bool), -logits, logits))
