"""Multiply the Hessian of a loss with a vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.flatten_util import ravel_pytree

from gradtx.core import Params


def hvp(
    loss: Callable[[Any, Any, Any], jax.Array],
    v: jax.Array,
    params: Params,
    inputs: Any,
    targets: Any,
) -> Params:
    """Return `H·v`, `H` being the Hessian of the loss in the parameters.

    The derivative of the gradient along `v`: forward over reverse, at the cost of a few
    gradients, without `H`.

    Args:
      loss: `(params, inputs, targets) -> scalar`.
      v: a vector with as many elements as the parameters have, in the order of
        `jax.flatten_util.ravel_pytree`.
      params: a pytree of arrays, where the Hessian is taken.
      inputs, targets: what the loss takes.

    Returns:
      A pytree like the parameters.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> loss = lambda w, x, y: (w @ x - y) ** 2
      >>> x, w, v = jnp.array([1.0, 2.0]), jnp.zeros(2), jnp.array([1.0, 1.0])
      >>> gradtx.second_order.hvp(loss, v, w, x, 0.0).tolist()
      [6.0, 12.0]

    Source: Pearlmutter 1994, "Fast Exact Multiplication by the Hessian".
    """
    _, unravel = ravel_pytree(params)
    gradient = jax.grad(lambda p: loss(p, inputs, targets))
    return jax.jvp(gradient, (params,), (unravel(v),))[1]
