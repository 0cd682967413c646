"""Compare directions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import Numeric
from gradtx.losses._arrays import floats


def cosine_similarity(
    predictions: Any,
    targets: Any,
    *,
    epsilon: Numeric = 0.0,
    axis: int | tuple[int, ...] | None = -1,
    where: Any = None,
) -> jax.Array:
    """Return the cosine of the angle between vectors.

    `⟨p, t⟩ / (√max(‖p‖², epsilon)·√max(‖t‖², epsilon))`, 0 for a zero vector

    Args:
      predictions: floating array of vectors along `axis`.
      targets: array that broadcasts with it.
      epsilon: the least squared norm.
      axis: the axes of a vector.
      where: elements to include.

    Returns:
      An array without `axis`, in [−1, 1].

    Source: Wu et al. 2018, arXiv:1805.01978, section 3.1.

    Differs from optax: a zero vector is orthogonal to all, where it would be NaN.
    """
    a, b = floats("cosine_similarity", predictions, targets)
    unit_a, unit_b = _unit(a, epsilon, axis, where), _unit(b, epsilon, axis, where)
    with jax.numpy_rank_promotion("allow"):
        return jnp.sum(unit_a * unit_b, axis=axis, where=where)


def cosine_distance(
    predictions: Any,
    targets: Any,
    *,
    epsilon: Numeric = 0.0,
    axis: int | tuple[int, ...] | None = -1,
    where: Any = None,
) -> jax.Array:
    """Return one minus the cosine of the angle between vectors, in [0, 2].

    `1 − cosine_similarity(predictions, targets)`

    Args:
      predictions, targets, epsilon, axis, where: as in `cosine_similarity`.

    Source: Wu et al. 2018, arXiv:1805.01978, section 3.1.
    """
    return 1.0 - cosine_similarity(
        predictions, targets, epsilon=epsilon, axis=axis, where=where
    )


def _unit(x: jax.Array, epsilon: Numeric, axis: Any, where: Any) -> jax.Array:
    squares = jnp.sum(x * x, axis=axis, where=where, keepdims=True)
    squares = jnp.maximum(squares, jnp.asarray(epsilon).astype(x.dtype))
    filled = jnp.where(squares > 0, squares, 1)
    return x / jnp.sqrt(filled)
