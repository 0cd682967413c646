"""Overlap of regions, for segmentation."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradtx.core import ArgumentError, Numeric, ShapeError
from gradtx.losses._arrays import check_same, floats

Reduction = Literal["mean", "sum", "none"]


def dice_loss(
    predictions: Any,
    targets: Any,
    *,
    class_weights: Any = None,
    smooth: Numeric = 1.0,
    alpha: Numeric = 0.5,
    beta: Numeric = 0.5,
    apply_softmax: bool = True,
    reduction: Reduction = "mean",
    ignore_background: bool = False,
    axis: int | tuple[int, ...] | None = None,
) -> jax.Array:
    """Return one minus the overlap of predicted and true regions, class by class.

    `1 − (I + smooth) / (I + alpha·(P − I) + beta·(T − I) + smooth)`, with `I` the sum
    of `p·t`, `P` of `p` and `T` of `t` over the axes of space

    Args:
      predictions: floating array of shape `(batch, *space, classes)`: logits, or
        probabilities without `apply_softmax`.
      targets: array of that shape, one-hot; a class axis of 1 may be left out of one.
      class_weights: array of shape `(classes,)`.
      smooth: added above and below.
      alpha: weight of false positives; ½ for both gives Dice, 1 the Jaccard index.
      beta: weight of false negatives.
      apply_softmax: whether to take the softmax, or the sigmoid of a single class.
      reduction: over classes: "mean", "sum" or "none".
      ignore_background: whether to leave the first class out.
      axis: the axes of space; by default all but the first and the last.

    Returns:
      An array of shape `(batch,)`, or `(batch, classes)` without reduction.

    Raises:
      ShapeError: if the shapes differ, or weights are no vector.
      ArgumentError: if probabilities, where they are known, do not sum to 1, or the
        reduction is unknown.

    Source: Milletari, Navab & Ahmadi 2016, arXiv:1606.04797, section 3; Salehi,
    Erdogmus & Gholipour 2017, arXiv:1706.05721, equation 3 (alpha and beta).
    """
    predictions, targets = floats("dice_loss", predictions, targets)
    if predictions.ndim == targets.ndim - 1:
        predictions = predictions[..., None]
    if targets.ndim == predictions.ndim - 1:
        targets = targets[..., None]
    check_same("dice_loss", predictions=predictions, targets=targets)
    if reduction not in ("mean", "sum", "none"):
        raise ArgumentError(
            f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}.",
            "dice_loss",
        )
    if apply_softmax:
        single = predictions.shape[-1] == 1
        probs = jax.nn.sigmoid(predictions) if single else jax.nn.softmax(predictions)
    else:
        probs = _probabilities(predictions)
    axes = tuple(range(1, probs.ndim - 1)) if axis is None else axis
    both = jnp.sum(probs * targets, axis=axes)
    found, true = jnp.sum(probs, axis=axes), jnp.sum(targets, axis=axes)
    below = both + alpha * (found - both) + beta * (true - both) + smooth
    loss = 1 - (both + smooth) / below
    if class_weights is not None:
        weights = jnp.asarray(class_weights).astype(loss.dtype)
        if weights.ndim != 1:
            raise ShapeError(
                f"class_weights must be a vector, got shape {weights.shape}.",
                "dice_loss",
            )
        with jax.numpy_rank_promotion("allow"):
            loss = loss * weights
    if ignore_background and probs.shape[-1] > 1:
        loss = loss[..., 1:]
    if reduction == "none":
        return loss
    return (jnp.mean if reduction == "mean" else jnp.sum)(loss, axis=-1)


def _probabilities(x: jax.Array) -> jax.Array:
    """Return probabilities as they are; those that are known must sum to 1."""
    if not isinstance(x, Tracer):
        sums = jnp.sum(x, axis=-1)
        if not bool(jnp.allclose(sums, 1.0, rtol=1e-5)):
            raise ArgumentError(
                "without apply_softmax predictions must be valid probability "
                "distributions, which sum to 1 over the classes: got sums "
                f" from {float(jnp.min(sums)):.6f} to "
                f"{float(jnp.max(sums)):.6f}.",
                "dice_loss",
            )
    return x


def multiclass_generalized_dice_loss(
    predictions: Any,
    targets: Any,
    *,
    smooth: Numeric = 1.0,
    apply_softmax: bool = True,
    ignore_background: bool = False,
) -> jax.Array:
    """Return the Dice loss with classes weighted by the inverse square of their size.

    `mean(w_k·dice_k)`, `w_k ∝ 1/(size_k² + 1e-7)`, with a mean of 1

    Args:
      predictions, targets, smooth, apply_softmax, ignore_background: as in `dice_loss`.

    Returns:
      A scalar.

    Source: Sudre et al. 2017, arXiv:1707.03237, section 2.
    """
    predictions, targets = floats(
        "multiclass_generalized_dice_loss", predictions, targets
    )
    check_same(
        "multiclass_generalized_dice_loss", predictions=predictions, targets=targets
    )
    sizes = jnp.sum(targets, axis=tuple(range(targets.ndim - 1)))
    weights = 1 / (jnp.square(sizes) + 1e-7)
    weights = weights / jnp.sum(weights) * len(weights)
    losses = dice_loss(
        predictions,
        targets,
        class_weights=weights,
        smooth=smooth,
        apply_softmax=apply_softmax,
        reduction="none",
        ignore_background=ignore_background,
    )
    return jnp.mean(losses)


def binary_dice_loss(
    predictions: Any,
    targets: Any,
    *,
    smooth: Numeric = 1.0,
    apply_sigmoid: bool = True,
) -> jax.Array:
    """Return the Dice loss of one class.

    `1 − (2·Σ p·t + 2·smooth) / (Σ p + Σ t + 2·smooth)`

    Args:
      predictions: floating array of shape `(batch, *space)` or `(batch, *space, 1)`.
      targets: array of that shape, 0 or 1.
      smooth: as in `dice_loss`.
      apply_sigmoid: whether predictions are logits.

    Returns:
      An array of shape `(batch,)`.

    Source: Milletari, Navab & Ahmadi 2016, arXiv:1606.04797, section 3.
    """
    predictions, targets = floats("binary_dice_loss", predictions, targets)
    if predictions.ndim == targets.ndim and predictions.shape[-1] != 1:
        predictions, targets = predictions[..., None], targets[..., None]
    return dice_loss(predictions, targets, smooth=smooth, apply_softmax=apply_sigmoid)
