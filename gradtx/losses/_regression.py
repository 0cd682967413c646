"""Compare numbers with numbers: squares, Huber, log-cosh."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import Numeric
from gradtx.losses._arrays import check_same, floats


def squared_error(predictions: Any, targets: Any = None) -> jax.Array:
    """Return the square of each error: `(prediction − target)²`.

    Args:
      predictions: floating array of any shape.
      targets: array of that shape; zeros if left out.

    Returns:
      An array of that shape; nothing is summed.

    Raises:
      ShapeError: if the shapes differ.
      DtypeError: if predictions are not floating.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.losses.squared_error(jnp.array([1.0, 4.0]), jnp.array([3.0, 4.0])).tolist()
      [4.0, 0.0]

    Source: Gauss 1809, the method of least squares.
    """
    errors = _errors("squared_error", predictions, targets)
    return errors * errors


def l2_loss(predictions: Any, targets: Any = None) -> jax.Array:
    """Return half the square of each error: `½·(prediction − target)²`.

    Args:
      predictions, targets: as in `squared_error`.

    Source: Bishop 2006, "Pattern Recognition and Machine Learning", equation 1.2.
    """
    return 0.5 * squared_error(predictions, targets)


def huber_loss(
    predictions: Any, targets: Any = None, *, delta: Numeric = 1.0
) -> jax.Array:
    """Return a loss that is quadratic for small errors and linear for large ones.

    `½·e²` where `|e| ≤ delta`, else `delta·(|e| − ½·delta)`, `e = prediction − target`

    Args:
      predictions, targets: as in `squared_error`.
      delta: where it becomes linear, above 0.

    Source: Huber 1964, "Robust Estimation of a Location Parameter", section 3.

    Differs from optax: shapes that differ raise instead of being broadcast.
    """
    size = jnp.abs(_errors("huber_loss", predictions, targets))
    delta = jnp.asarray(delta).astype(size.dtype)
    inner = jnp.minimum(size, delta)
    return 0.5 * inner * inner + delta * (size - inner)


def log_cosh(predictions: Any, targets: Any = None) -> jax.Array:
    """Return the logarithm of the hyperbolic cosine of each error, without overflow.

    `log(cosh(e))`, near `½·e²` for small errors and `|e| − log 2` for large ones

    Args:
      predictions, targets: as in `squared_error`.

    Source: Chen, Wang & Lin 2019, "Log Hyperbolic Cosine Loss Improves Variational
    Auto-Encoder", section 3.

    Differs from optax: shapes that differ raise instead of being broadcast.
    """
    errors = _errors("log_cosh", predictions, targets)
    return jnp.logaddexp(errors, -errors) - jnp.log(2.0).astype(errors.dtype)


def _errors(name: str, predictions: Any, targets: Any) -> jax.Array:
    if targets is None:
        return floats(name, predictions)[0]
    predictions, targets = floats(name, predictions, targets)
    check_same(name, predictions=predictions, targets=targets)
    return predictions - targets
