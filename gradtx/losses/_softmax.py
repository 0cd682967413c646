"""Cross entropies of several classes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import ArgumentError, Numeric
from gradtx.losses._arrays import check_integers, floats, spread_where


def softmax_cross_entropy(
    logits: Any,
    labels: Any,
    axis: int | tuple[int, ...] | None = -1,
    where: Any = None,
) -> jax.Array:
    """Return the cross entropy between probabilities and the softmax of logits.

    `−Σ_k label_k·log softmax(logits)_k`

    Args:
      logits: floating array of shape `(*batch, classes)`.
      labels: probabilities that broadcast with it, such as one-hot vectors.
      axis: the axes of the classes.
      where: classes, or whole examples, to include.

    Returns:
      An array of shape `(*batch,)`; nothing is averaged.

    Raises:
      DtypeError: if logits are not floating.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> loss = gradtx.softmax_cross_entropy(jnp.zeros((1, 4)), jnp.eye(4)[:1])
      >>> loss.round(3).tolist()
      [1.3860000371932983]

    Source: Bishop 2006, "Pattern Recognition and Machine Learning", equation 4.108.
    """
    logits, labels = floats("softmax_cross_entropy", logits, labels)
    where = spread_where(where, logits.ndim, axis)
    log_probs = jax.nn.log_softmax(logits, axis, where)
    return -jnp.sum(labels * log_probs, axis, where=where)


def softmax_cross_entropy_with_integer_labels(
    logits: Any, labels: Any, axis: int | tuple[int, ...] = -1, where: Any = None
) -> jax.Array:
    """Return the cross entropy between a class and the softmax of logits.

    `log Σ_k exp(logits_k) − logits_label`

    Args:
      logits: floating array of shape `(*batch, classes)`.
      labels: integers in [0, classes), of shape `(*batch,)`. Others give NaN.
      axis: the axes of the classes; with several, a label counts through them in order.
      where: classes, or whole examples, to include. An example without any costs 0.

    Returns:
      An array of shape `(*batch,)`; nothing is averaged.

    Raises:
      DtypeError: if logits are not floating or labels not integer.
      ArgumentError: if `axis` is neither an integer nor a tuple of them.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> logits, labels = jnp.zeros((2, 4)), jnp.array([0, 3])
      >>> gradtx.softmax_cross_entropy_with_integer_labels(logits, labels).shape
      (2,)

    Source: Bishop 2006, "Pattern Recognition and Machine Learning", equation 4.108.

    Differs from optax: a negative label is NaN; there −1 is the last class.
    """
    name = "softmax_cross_entropy_with_integer_labels"
    (logits,) = floats(name, logits)
    labels = jnp.asarray(labels)
    check_integers(name, labels)
    where = spread_where(where, logits.ndim, axis)
    axes = (axis,) if isinstance(axis, int) else axis
    if not isinstance(axes, tuple):
        raise ArgumentError(f"axis must be an int or a tuple of them, got {axis!r}.")
    axes = tuple(a % logits.ndim for a in _checked(axes, logits.ndim))
    logits = _last(logits, axes)
    where = None if where is None else _last(jnp.broadcast_to(where, where.shape), axes)
    classes = logits.shape[-1]
    inside = (labels >= 0) & (labels < classes)
    index = jnp.where(inside, labels, 0)[..., None]
    chosen = jnp.take_along_axis(logits, index, axis=-1)[..., 0]
    loss = jax.nn.logsumexp(logits, axis=-1, where=where) - chosen
    loss = jnp.where(inside, loss, jnp.nan)
    return loss if where is None else jnp.where(jnp.any(where, -1), loss, 0)


def _checked(axes: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    for axis in axes:
        if not -ndim <= axis < ndim:
            raise ArgumentError(
                f"axis {axis} is out of bounds for logits of {ndim} axes."
            )
    return axes


def _last(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Move axes to the end and join them."""
    batch = tuple(a for a in range(x.ndim) if a not in axes)
    x = x.transpose(batch + axes)
    return x.reshape((*x.shape[: len(batch)], -1))


def safe_softmax_cross_entropy(logits: Any, labels: Any) -> jax.Array:
    """Return the cross entropy, in which a class of probability 0 costs nothing.

    `−Σ_k label_k·log softmax(logits)_k`, with `0·(−∞) = 0`

    Args:
      logits: floating array of shape `(*batch, classes)`; −∞ excludes a class.
      labels: probabilities of that shape.

    Returns:
      An array of shape `(*batch,)`.

    Source: Bishop 2006, "Pattern Recognition and Machine Learning", equation 4.108.
    """
    logits, labels = floats("safe_softmax_cross_entropy", logits, labels)
    return -jnp.sum(_weighted_log_softmax(logits, labels), axis=-1)


@jax.custom_jvp
def _weighted_log_softmax(x: jax.Array, weights: jax.Array) -> jax.Array:
    log_probs = jax.nn.log_softmax(x, axis=-1)
    return jnp.where(weights != 0, weights * log_probs, 0)


@_weighted_log_softmax.defjvp
def _weighted_log_softmax_jvp(primals: Any, tangents: Any) -> Any:
    (x, weights), (dx, dw) = primals, tangents
    log_probs = jax.nn.log_softmax(x, axis=-1)
    mean = jnp.sum(dx * jnp.exp(log_probs), axis=-1, keepdims=True)
    out = jnp.where(weights != 0, weights * log_probs, 0)
    return out, weights * (dx - mean) + dw * log_probs


def poly_loss_cross_entropy(
    logits: Any,
    labels: Any,
    *,
    epsilon: Numeric = 2.0,
    axis: int | tuple[int, ...] | None = -1,
    where: Any = None,
) -> jax.Array:
    """Return the cross entropy with another weight of its first power of the miss.

    `ce + epsilon·Σ_k label_k·(1 − softmax(logits)_k)`

    Args:
      logits, labels, axis, where: as in `softmax_cross_entropy`.
      epsilon: what is added to the weight, −1 or more.

    Source: Leng et al. 2022, arXiv:2204.12511, equation 5 (Poly-1).
    """
    logits, labels = floats("poly_loss_cross_entropy", logits, labels)
    mask = spread_where(where, logits.ndim, axis)
    probs = jax.nn.softmax(logits, axis=axis, where=mask)
    miss = jnp.sum(labels * (1 - probs), axis=axis, where=mask)
    entropy = softmax_cross_entropy(logits, labels, axis, where)
    return entropy + jnp.asarray(epsilon).astype(miss.dtype) * miss


def multiclass_hinge_loss(scores: Any, labels: Any) -> jax.Array:
    """Return by how much the best wrong class comes within a margin of 1.

    `max_k(scores_k + [k ≠ label]) − scores_label`

    Args:
      scores: floating array of shape `(*batch, classes)`.
      labels: integers in [0, classes), of shape `(*batch,)`.

    Source: Crammer & Singer 2001, "On the Algorithmic Implementation of Multiclass
    Kernel-based Vector Machines".
    """
    scores, one_hot = _with_one_hot("multiclass_hinge_loss", scores, labels)
    best = jnp.max(scores + 1 - one_hot, axis=-1)
    return best - jnp.sum(scores * one_hot, axis=-1)


def multiclass_perceptron_loss(scores: Any, labels: Any) -> jax.Array:
    """Return by how much the best class beats the label: `max_k scores_k − scores_label`.

    Args:
      scores, labels: as in `multiclass_hinge_loss`.

    Source: Collins 2002, "Discriminative Training Methods for Hidden Markov Models".
    """
    scores, one_hot = _with_one_hot("multiclass_perceptron_loss", scores, labels)
    return jnp.max(scores, axis=-1) - jnp.sum(scores * one_hot, axis=-1)


def _with_one_hot(name: str, scores: Any, labels: Any) -> tuple[jax.Array, jax.Array]:
    (scores,) = floats(name, scores)
    labels = jnp.asarray(labels)
    check_integers(name, labels)
    return scores, jax.nn.one_hot(labels, scores.shape[-1], dtype=scores.dtype)


def smooth_labels(
    labels: Any,
    alpha: Numeric,
    *,
    axis: int | tuple[int, ...] | None = -1,
    where: Any = None,
) -> jax.Array:
    """Move labels towards equal probabilities: `(1 − alpha)·label + alpha/classes`.

    Args:
      labels: floating probabilities of shape `(*batch, classes)`.
      alpha: how far, in [0, 1].
      axis: the axes of the classes.
      where: classes to count.

    Raises:
      DtypeError: if labels are not floating.

    Source: Müller, Kornblith & Hinton 2019, arXiv:1906.02629, section 1.
    """
    (labels,) = floats("smooth_labels", labels)
    if where is None:
        shape = labels.shape
        axes = range(labels.ndim) if axis is None else axis
        axes = (axes,) if isinstance(axes, int) else axes
        count: Any = 1
        for a in axes:
            count *= shape[a]
    else:
        count = jnp.sum(where, axis, keepdims=True, dtype=labels.dtype)
    alpha = jnp.asarray(alpha).astype(labels.dtype)
    return (1 - alpha) * labels + alpha / count
