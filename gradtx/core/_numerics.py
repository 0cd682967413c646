"""Keep the dtype rules and the arithmetic that must not overflow, in one place."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core._call import dtype_of
from gradtx.core._errors import ArgumentError
from gradtx.core._types import Numeric


def scalar_dtype() -> Any:
    """Return the dtype in which scalars are computed: the widest float enabled."""
    return jax.dtypes.canonicalize_dtype(float)


def canonicalize_dtype(dtype: Any) -> Any:
    """Return the dtype that JAX has for `dtype`: 32 bits of 64 that are not enabled.

    Args:
      dtype: a dtype, its name, or `None`, which stays.
    """
    return None if dtype is None else jax.dtypes.canonicalize_dtype(dtype)


def real_dtype(dtype: Any) -> Any:
    """Return the dtype of the real part of a number of `dtype`."""
    return jnp.finfo(dtype).dtype if jnp.issubdtype(dtype, jnp.inexact) else dtype


def widened(dtype: Any) -> Any:
    """Return the dtype in which a leaf of `dtype` is computed: 32 bits or more."""
    if not jnp.issubdtype(dtype, jnp.inexact):
        return jnp.dtype(dtype)
    double = jnp.finfo(dtype).bits == 64
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return jnp.complex128 if double else jnp.complex64
    return jnp.float64 if double else jnp.float32


def cast(x: Any, dtype: Any) -> jax.Array:
    """Convert `x` to `dtype`; finite numbers beyond its range stay finite.

    A float32 number above 65504 becomes the largest float16, not infinity. Infinities
    and NaN remain what they are. Complex to real keeps the real part.
    """
    x, dtype = jnp.asarray(x), jnp.dtype(dtype)
    if x.dtype == dtype:
        return lax.convert_element_type(x, dtype)
    if jnp.issubdtype(x.dtype, jnp.complexfloating) and not jnp.issubdtype(
        dtype, jnp.complexfloating
    ):
        x = x.real
    if jnp.issubdtype(dtype, jnp.floating) and jnp.issubdtype(x.dtype, jnp.floating):
        largest = float(jnp.finfo(dtype).max)
        if largest < float(jnp.finfo(x.dtype).max):
            x = jnp.where(jnp.isfinite(x), jnp.clip(x, -largest, largest), x)
    return lax.convert_element_type(x, dtype)


def safe_increment(count: Numeric) -> jax.Array:
    """Return `count + 1`, or the largest number of its dtype once that is reached.

    Args:
      count: an integer or floating scalar.

    Raises:
      ArgumentError: if `count` is of another kind.
    """
    count = jnp.asarray(count)
    whole = jnp.issubdtype(count.dtype, jnp.integer)
    if not whole and not jnp.issubdtype(count.dtype, jnp.floating):
        raise ArgumentError(
            f"a count must be integer or floating, got {count.dtype}.", "safe_increment"
        )
    largest = (jnp.iinfo if whole else jnp.finfo)(count.dtype).max
    one = jnp.ones((), count.dtype)
    top = jnp.array(largest, count.dtype)
    return jnp.where(count < top, count + one, top)


#: optax's older spelling.
safe_int32_increment = safe_increment


def bias_correction(decay: Numeric, count: Numeric) -> jax.Array:
    """Return `1 − decay^count`, the weight that a running mean has seen so far.

    Computed as `−expm1(count·log(decay))`, which is exact to rounding: the plain form
    is off by 1e-5 in float32 for a decay of 0.999, since 0.999 is no float32.

    Args:
      decay: the share of the mean that one step keeps, in [0, 1).
      count: how many steps the mean has seen, at least 1.
    """
    count = jnp.asarray(count, scalar_dtype())
    if isinstance(decay, (int, float)):
        log = math.log(decay) if decay > 0 else -math.inf
    else:
        log = jnp.log(jnp.asarray(decay, scalar_dtype()))
    return -jnp.expm1(count * log)


def abs_sq(x: jax.Array) -> jax.Array:
    """Return `|x|²`, real, with derivative 0 at 0."""
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        return x.real * x.real + x.imag * x.imag
    return x * x


def safe_sqrt(x: jax.Array) -> jax.Array:
    """Return `√x` for x ≥ 0, with a derivative that is finite at 0.

    Below the smallest normal number, about 1e-38 in float32, the root is that of this
    number, so that 0 / √0 is 0 and no NaN.
    """
    return jnp.sqrt(jnp.maximum(x, jnp.finfo(x.dtype).tiny))


def capped(x: jax.Array) -> jax.Array:
    """Return `x` with finite magnitudes of 8e28 at most in float32; complex as it is.

    Sums of products with numbers of usual size then stay in range: of the largest float
    to the power 3/4, the rest is room. Infinity and NaN stay what they are.
    """
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        return x
    most = float(jnp.finfo(x.dtype).max) ** 0.75
    return jnp.where(jnp.isinf(x), x, jnp.clip(x, -most, most))


def capped_abs_sq(x: jax.Array) -> jax.Array:
    """Return `|x|²`, real, and the largest finite number where it would overflow.

    A running mean of squares thus survives one gradient of 1e20 in float32. The
    largest is half of what the dtype holds, so that a mean divided by its weight does
    not round to infinity. The square of an infinity stays infinite.
    """
    squares = abs_sq(x)
    largest = jnp.finfo(squares.dtype).max / 2
    return jnp.where(jnp.isfinite(x), jnp.minimum(squares, largest), squares)


def working(x: Any, precise: bool = False) -> Any:
    """Return `x` in the dtype in which it is computed; keys, flags and ints as is.

    Args:
      x: an array or a Python number.
      precise: whether that dtype has 64 bits even if `x` has fewer.
    """
    dtype = dtype_of(x)
    if not jnp.issubdtype(dtype, jnp.inexact):
        return x
    dtype = widened(dtype)
    if precise:
        whole = jnp.issubdtype(dtype, jnp.complexfloating)
        dtype = jnp.complex128 if whole else jnp.float64
    return lax.convert_element_type(jnp.asarray(x), dtype)


def bits(x: Any) -> int:
    """Return how many bits each real number in `x` has; 0 where `x` is not inexact."""
    dtype = dtype_of(x)
    return jnp.finfo(dtype).bits if jnp.issubdtype(dtype, jnp.inexact) else 0
