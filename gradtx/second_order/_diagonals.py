"""Take the diagonals of the Hessian and of the Fisher information."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from gradtx.core import Params, check_count


def hessian_diag(
    loss: Callable[[Any, Any, Any], jax.Array],
    params: Params,
    inputs: Any,
    targets: Any,
    *,
    batch_size: int = 64,
) -> jax.Array:
    """Return the diagonal of the Hessian of a loss in the parameters.

    `diag_i = ⟨e_i, H·e_i⟩`, one product with the Hessian for every parameter

    Args:
      loss: `(params, inputs, targets) -> scalar`.
      params: a pytree of arrays with `n` elements in all.
      inputs, targets: what the loss takes.
      batch_size: how many products are computed at once: the memory is that of so many
        unit vectors, not of `n`.

    Returns:
      A vector (n,) in the order of `jax.flatten_util.ravel_pytree`.

    Raises:
      ArgumentError: if `batch_size` is no positive integer.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> loss = lambda w, x, y: (w @ x - y) ** 2
      >>> x = jnp.array([1.0, 2.0])
      >>> gradtx.second_order.hessian_diag(loss, jnp.zeros(2), x, 0.0).tolist()
      [2.0, 8.0]

    Source: Pearlmutter 1994, "Fast Exact Multiplication by the Hessian".
    """
    check_count(1, batch_size=batch_size)
    flat, unravel = ravel_pytree(params)
    places = jnp.arange(flat.size)
    gradient = jax.grad(lambda p: loss(p, inputs, targets))
    _, product = jax.linearize(gradient, params)

    def element(i):
        unit = (places == i).astype(flat.dtype)
        return ravel_pytree(product(unravel(unit)))[0][i]

    return lax.map(element, places, batch_size=min(batch_size, max(flat.size, 1)))


def fisher_diag(
    negative_log_likelihood: Callable[[Any, Any, Any], jax.Array],
    params: Params,
    inputs: Any,
    targets: Any,
) -> jax.Array:
    """Return the diagonal of the observed Fisher information: the gradient squared.

    Args:
      negative_log_likelihood: `(params, inputs, targets) -> scalar`, for one example.
      params: a pytree of arrays with `n` elements in all.
      inputs, targets: what the likelihood takes.

    Returns:
      A vector (n,) in the order of `jax.flatten_util.ravel_pytree`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> loss = lambda w, x, y: (w @ x - y) ** 2
      >>> x = jnp.array([1.0, 2.0])
      >>> gradtx.second_order.fisher_diag(loss, jnp.zeros(2), x, 1.0).tolist()
      [4.0, 16.0]

    Source: Kunstner, Balles & Hennig 2019, arXiv:1905.12558, section 2.
    """
    gradient = jax.grad(negative_log_likelihood)(params, inputs, targets)
    return jnp.square(ravel_pytree(gradient)[0])
