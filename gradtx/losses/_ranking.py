"""Losses of rankings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.losses._arrays import floats


def ranking_softmax_loss(
    logits: Any,
    labels: Any,
    *,
    where: Any = None,
    weights: Any = None,
    reduce_fn: Callable[..., Any] | None = jnp.mean,
) -> jax.Array:
    """Return the cross entropy between relevances and the softmax of scores.

    `−Σ_k weight_k·label_k·log softmax(logits)_k` for each list

    Args:
      logits: floating array of shape `(*batch, items)`.
      labels: relevances of that shape.
      where: items to include; a list without any costs 0.
      weights: factors of the labels, of that shape.
      reduce_fn: `(losses, where=) -> loss`, such as `jax.numpy.mean`; `None` for none.

    Returns:
      A scalar, or an array of shape `(*batch,)`.

    Source: Xia et al. 2008, "Listwise Approach to Learning to Rank"; Jagerman et al.
    2022, "Rax: Composable Learning-to-Rank using JAX", section 3.
    """
    logits, labels = floats("ranking_softmax_loss", logits, labels)
    if where is not None:
        labels = jnp.where(where, labels, 0)
        logits = jnp.where(where, logits, -jnp.inf)
    if weights is not None:
        labels = labels * jnp.asarray(weights).astype(labels.dtype)
    loss = -jnp.sum(labels * jax.nn.log_softmax(logits, axis=-1), axis=-1, where=where)
    lists = None if where is None else jnp.any(where, axis=-1)
    if reduce_fn is None:
        return loss if lists is None else jnp.where(lists, loss, 0)
    reduced = reduce_fn(loss, where=lists)
    if reduce_fn is jnp.mean:  # of no list at all
        reduced = jnp.where(jnp.isnan(reduced) & ~jnp.any(jnp.isnan(loss)), 0, reduced)
    return reduced
