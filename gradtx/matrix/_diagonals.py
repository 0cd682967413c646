"""Replace the diagonals of matrices, and repeat their rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gradtx.core import ShapeError


def set_diags(a: jax.Array, new_diags: jax.Array) -> jax.Array:
    """Return matrices with other diagonals.

    Args:
      a: matrices, of shape (n, d, d).
      new_diags: a diagonal for each, of shape (n, d).

    Raises:
      ShapeError: if the shapes are not these.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.set_diags(jnp.zeros((1, 2, 2)), jnp.array([[1.0, 2.0]])).tolist()
      [[[1.0, 0.0], [0.0, 2.0]]]
    """
    if a.ndim != 3:
        _refuse(f"Expected `a` to be a 3D tensor (n, d, d), got {a.ndim}D instead.")
    if new_diags.ndim != 2:
        _refuse(
            f"Expected `new_diags` to be a 2D array, got {new_diags.ndim}D instead."
        )
    n, d, _ = a.shape
    if a.shape != (n, d, d):
        _refuse(f"Shape mismatch: expected `a.shape` to be {(n, d, d)}, got {a.shape}.")
    if new_diags.shape != (n, d):
        _refuse(
            f"Shape mismatch: expected `new_diags.shape` to be {(n, d)}, got "
            f"{new_diags.shape}."
        )
    here = jnp.eye(a.shape[1], dtype=bool)
    return jnp.where(here, new_diags[:, :, None].astype(a.dtype), a)


def tile_second_to_last_dim(a: jax.Array) -> jax.Array:
    """Return `a` of shape (…, d) as (…, d, d), each number repeated along a new last axis.

    Args:
      a: an array of one axis or more.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tile_second_to_last_dim(jnp.array([1.0, 2.0])).tolist()
      [[1.0, 1.0], [2.0, 2.0]]
    """
    return jnp.repeat(a[..., None], a.shape[-1], axis=-1)


def _refuse(message: str) -> None:
    raise ShapeError(message, "set_diags")
