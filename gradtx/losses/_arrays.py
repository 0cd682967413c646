"""Bring the arrays of a loss to one dtype and check their shapes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import DtypeError, ShapeError


def floats(name: str, *arrays: Any) -> list[jax.Array]:
    """Return arrays in the float dtype that all promote to.

    Raises:
      DtypeError: if the first of them, the predictions, is not floating.
    """
    made = [jnp.asarray(x) for x in arrays]
    if not jnp.issubdtype(made[0].dtype, jnp.floating):
        raise DtypeError(
            f"predictions must be floating, got {made[0].dtype}. Convert them.", name
        )
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*made)
    return [x.astype(dtype) for x in made]


def check_same(name: str, **arrays: jax.Array) -> None:
    """Raise where two arrays differ in shape; scalars go with everything.

    Raises:
      ShapeError: with both names and shapes.
    """
    (first, a), (second, b) = arrays.items()
    if a.shape != b.shape and a.ndim and b.ndim:
        raise ShapeError(
            f"{first} has shape {a.shape} and {second} {b.shape}: they must be equal.",
            name,
        )


def check_integers(name: str, labels: jax.Array) -> None:
    """Raise unless labels are integers.

    Raises:
      DtypeError: with their dtype.
    """
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise DtypeError(f"labels must be integers, got {labels.dtype}.", name)


def spread_where(where: Any, ndim: int, axis: Any) -> Any:
    """Return a mask with the class axis that it may lack."""
    if where is None:
        return None
    where = jnp.asarray(where, bool)
    return where if where.ndim == ndim else jnp.expand_dims(where, axis)
