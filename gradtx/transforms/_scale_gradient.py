"""Scale derivatives without changing values."""

from __future__ import annotations

from typing import Any

import jax

from gradtx.core import Numeric


@jax.custom_vjp
def scale_gradient(inputs: Any, scale: Numeric) -> Any:
    """Return the inputs as they are, and multiply the gradient through them.

    Forward `x`; backward `scale·dx`

    Args:
      inputs: a pytree of arrays.
      scale: the factor; 0 stops the gradient.

    Example:
      >>> import jax, gradtx
      >>> float(jax.grad(lambda x: gradtx.scale_gradient(x, -0.5) ** 2)(3.0))
      -3.0

    Source: Ganin & Lempitsky 2015, arXiv:1409.7495, section 3 (gradient reversal).
    """
    return inputs


def _forward(inputs: Any, scale: Numeric) -> tuple[Any, Numeric]:
    return inputs, scale


def _backward(scale: Numeric, cotangents: Any) -> tuple[Any, None]:
    return jax.tree.map(lambda g: g * scale, cotangents), None


scale_gradient.defvjp(_forward, _backward)
