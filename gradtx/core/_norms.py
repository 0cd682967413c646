"""Measure pytrees by their norm, without overflow, underflow or lost leaves."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core._call import dtype_of
from gradtx.core._collectives import (
    all_max,
    all_sum,
    check_axes,
    varies_over,
    varying_like,
)
from gradtx.core._numerics import (
    abs_sq,
    bits,
    capped_abs_sq,
    cast,
    real_dtype,
    widened,
    working,
)
from gradtx.core._sums import add_up, fits_float64, varying_sum
from gradtx.core._tree import size
from gradtx.core._types import AxisName

# A norm between `low` and infinity is exact to rounding as it is. Below `low` squares
# may have been flushed to zero, and above all range they overflow: the numbers are then
# multiplied by `up` or `down`, powers of two, and summed again. A norm under `low` holds
# no number above it, so `up` cannot make one overflow, and `down` leaves room for 2^31
# of the largest numbers.
_SCALES = {
    "float32": (2.0**-40, 2.0**100, 2.0**-80),
    "float64": (2.0**-350, 2.0**800, 2.0**-600),
}
# Squares are summed in float64 where there is one, which needs no second look: a
# conditional over 1,000 leaves doubled compile and call time, and puts them in memory.
# For large leaves that are there anyway float32 is faster on a CPU, 0.9 times the whole
# step of clip + AdamW, and so it is for few. A GPU's queue runs dry at a conditional.
_LARGE, _FEW = 2**16, 16
#: Elements of a row that is summed by one thread, at least.
_ROW = 256
#: Up to so many elements XLA sums on a CPU in windows: it writes the squares to memory
#: and runs two kernels more. A reduction of two results it leaves as it is.
_WINDOWED = 4096


class ScaledNorm(NamedTuple):
    """A norm as the quotient of two numbers that are both in range.

    The norm is `root / scale`. It may exceed the largest float although `root` does
    not; code that divides by a norm multiplies by `scale` and divides by `root`.
    """

    root: jax.Array
    scale: jax.Array

    @property
    def value(self) -> jax.Array:
        """The norm itself, infinite only where no float holds it."""
        return self.root / self.scale

    @property
    def bounded(self) -> jax.Array:
        """The norm; of finite numbers whose norm no float holds, the largest float."""
        norm = self.root / self.scale
        largest = jnp.finfo(norm.dtype).max
        return jnp.where(jnp.isfinite(self.root), jnp.minimum(norm, largest), norm)


def global_norm(updates: Any, *, axis_name: AxisName | None = None) -> jax.Array:
    """Return the Euclidean norm of all elements of all leaves.

    `‖updates‖ = √(Σ_leaves Σ_i |x_i|²)`, summed in float32 (float64 if a leaf has 64
    bits) whatever the leaves' dtype: a thousand bfloat16 leaves are not lost in one
    another, float16 does not overflow, and float32 numbers of 1e20 or 1e-30 neither
    overflow nor vanish.

    Args:
      updates: a pytree of arrays. `None`, empty and integer leaves count nothing.
      axis_name: mapped axes over which the leaves are sharded; the norm is that of
        the whole tree. A leaf that `shard_map` knows to be replicated counts once.

    Returns:
      A scalar of float32, or of float64.

    Raises:
      AxisNameError: if an axis is not mapped here.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> norm = gradtx.global_norm({"a": jnp.full(9, 1e20), "b": jnp.zeros(3)})
      >>> f"{norm:.4g}"
      '3e+20'
    """
    return scaled_norm(updates, axis_name=axis_name).value


def scaled_norm(
    tree: Any, *, axis_name: AxisName | None = None, kept: bool = False
) -> ScaledNorm:
    """Return the global norm of `tree` as a quotient that stays in range.

    The sum of squares is taken once; only where it leaves the safe range is it taken
    again with the numbers scaled by a power of two.

    Args:
      tree: the updates, as in `global_norm`.
      axis_name: as in `global_norm`.
      kept: whether the leaves are in memory anyway, as gradients are. What is computed
        for its norm alone should not be put there.
    """
    check_axes(axis_name)
    leaves = [x for x in jax.tree.leaves(tree) if bits(x)]
    if not leaves:
        return ScaledNorm(jnp.zeros(()), jnp.ones(()))
    dtype = real_dtype(widened(dtype_of(max(leaves, key=bits))))

    def in_float64() -> ScaledNorm:
        with jax.enable_x64(True):
            squares = add_up([_in_float64(x) for x in leaves], axis_name)
            return _from_float64(squares)

    def root(scale: jax.Array | None) -> jax.Array:
        parts = [_sum_of_squares(x, scale).astype(dtype) for x in leaves]
        return _root(add_up(parts, axis_name))

    doubles = fits_float64(dtype)
    cheap = len(leaves) <= _FEW or size(leaves) >= _LARGE * len(leaves)
    if doubles and not (kept and cheap and jax.default_backend() == "cpu"):
        return in_float64()
    low, up, down = _SCALES[jnp.dtype(dtype).name]
    plain = root(None)
    scale = jnp.where(plain < low, up, jnp.where(jnp.isinf(plain), down, 1.0))
    scale = lax.stop_gradient(scale.astype(dtype))
    again = in_float64 if doubles else lambda: ScaledNorm(root(scale), scale)
    return lax.cond(scale == 1, lambda: ScaledNorm(plain, scale), again)


def zero_norm(params: Any, *, axis_name: AxisName | None = None) -> jax.Array:
    """Return 0 of the type that the global norm of updates of `params` will have.

    In a `shard_map` that knows what varies between devices, the norm of what varies
    varies too, but for the axes over which it is summed.

    Args:
      params: a pytree of parameters.
      axis_name: as in `global_norm`.
    """
    return varying_sum(jnp.zeros((), jnp.float32), params, axis_name)


def leaf_norm(
    x: jax.Array, axis: Any = None, *, axis_name: AxisName | None = None
) -> ScaledNorm:
    """Return the norm of one leaf over `axis` as a quotient that stays in range.

    Args:
      x: an array of 32 bits or more.
      axis: the axes to reduce, kept with length 1; `None` for all, to a scalar.
      axis_name: mapped axes over which the leaf is sharded along `axis`.
    """
    check_axes(axis_name)
    keep = axis is not None
    if fits_float64(real_dtype(x.dtype)):
        with jax.enable_x64(True):
            return _from_float64(all_sum(_in_float64(x, axis), axis_name))
    # a leaf can be of any size, so the largest magnitude itself sets the scale
    largest = jnp.max(jnp.abs(x), axis=axis, keepdims=keep, initial=0)
    largest = lax.stop_gradient(all_max(largest, axis_name))
    usable = jnp.isfinite(largest) & (largest > 0)
    exponent = jnp.frexp(jnp.where(usable, largest, 1))[1]
    limit = jnp.finfo(largest.dtype).maxexp - 3  # so that 2^-exponent is normal
    scale = jnp.ldexp(jnp.ones_like(largest), -jnp.clip(exponent, -limit, limit))
    scaled = x * scale.astype(x.dtype)
    parts = jnp.sum(abs_sq(scaled), axis=axis, keepdims=keep)
    return ScaledNorm(_root(all_sum(parts, axis_name)), scale)


def mean_square(x: jax.Array, axis: int) -> jax.Array:
    """Return the mean of `|x|²` over one axis, at most an eighth of the largest float.

    The reciprocal of that is no denormal, which would be flushed to 0.

    Args:
      x: an array of 32 bits or more.
      axis: the axis to reduce.
    """
    dtype = real_dtype(x.dtype)
    most = float(jnp.finfo(dtype).max) / 8
    if fits_float64(dtype):
        with jax.enable_x64(True):
            squares = jnp.squeeze(_in_float64(x, axis), axis) / x.shape[axis]
            squares = jnp.minimum(squares, jnp.asarray(most, squares.dtype))
            return lax.convert_element_type(squares, jnp.float32)
    # divided first: the sum of the largest numbers would overflow
    squares = jnp.minimum(capped_abs_sq(x), most) / x.shape[axis]
    return jnp.minimum(jnp.sum(squares, axis=axis), most)


def leaf_sums(
    blocks: Sequence[jax.Array],
    pairs: Sequence[tuple[jax.Array, jax.Array]] = (),
    *,
    axis_name: AxisName | None = None,
) -> jax.Array:
    """Return what can be summed of the leaves of several trees, in one pass over them.

    Sums over arrays of one shape are taken together, so that none is computed or read
    twice.

    Args:
      blocks: for each tree, leaves of one shape in 32 bits or more, `(leaves, *shape)`.
      pairs: blocks to multiply with one another; the two of a pair have one shape.
      axis_name: mapped axes over which the leaves are sharded.

    Returns:
      float32 numbers of shape (sums, leaves): the norms of each block's leaves, and
      the inner products of each pair. A norm is finite only where all elements are.
    """
    check_axes(axis_name)
    if not all(fits_float64(real_dtype(x.dtype)) for x in blocks):
        return _leaf_sums(blocks, pairs, axis_name)
    with jax.enable_x64(True):
        wide = lambda x: [
            lax.convert_element_type(part, jnp.float64)
            for part in ((x.real, x.imag) if jnp.iscomplexobj(x) else (x,))
        ]
        product = lambda a, b: functools.reduce(
            jnp.add, [x * y for x, y in zip(wide(a), wide(b), strict=True)]
        )
        terms = [product(x, x) for x in blocks]
        terms += [product(a, b) for a, b in pairs]
        sums = [all_sum(x, axis_name) for x in _summed_together(terms)]
        sums[: len(blocks)] = [jnp.sqrt(x) for x in sums[: len(blocks)]]
        return cast(jnp.stack(sums), jnp.float32)


def _leaf_sums(
    blocks: Sequence[jax.Array],
    pairs: Sequence[tuple[jax.Array, jax.Array]],
    axis_name: AxisName | None,
) -> jax.Array:
    """Return the same where there is no wider type to sum in."""
    axes = lambda x: tuple(range(1, x.ndim))
    keep = lambda norm: norm.value.reshape(-1)
    norms = [
        keep(leaf_norm(x, axes(x), axis_name=axis_name)) if x.ndim > 1 else jnp.abs(x)
        for x in blocks
    ]
    sums = [jnp.sum(jnp.real(a * b.conj()), axes(a)) for a, b in pairs]
    sums = [all_sum(cast(x, jnp.float32), axis_name) for x in sums]
    return jnp.stack([*(cast(x, jnp.float32) for x in norms), *sums])


def leaf_nonfinite(
    blocks: Sequence[jax.Array], *, axis_name: AxisName | None = None
) -> jax.Array:
    """Return how many elements of the leaves of several trees are not finite.

    Args:
      blocks: as in `leaf_sums`.
      axis_name: as in `leaf_sums`.

    Returns:
      float32 numbers of shape (blocks, leaves).
    """
    check_axes(axis_name)
    wrong = [(~jnp.isfinite(x)).astype(jnp.float32) for x in blocks]
    return jnp.stack([all_sum(x, axis_name) for x in _summed_together(wrong)])


def _summed_together(terms: Sequence[jax.Array]) -> list[jax.Array]:
    """Sum each array over all axes but the first; equal shapes in one reduction."""
    together: dict[Any, list[int]] = {}
    for i, x in enumerate(terms):
        together.setdefault((x.shape, varies_over(x)), []).append(i)
    sums = list(terms)
    for (shape, _), places in together.items():
        if len(shape) == 1:
            continue
        parts = [terms[i] for i in places]
        zeros = [varying_like(x, jnp.zeros((), x.dtype)) for x in parts]
        plus = lambda a, b: [x + y for x, y in zip(a, b, strict=True)]
        # rows first: XLA gives each thread of a CPU some results, not parts of one
        first = len(shape) - 1
        while first > 1 and math.prod(shape[first:]) < _ROW:
            first -= 1
        made = lax.reduce(parts, zeros, plus, tuple(range(first, len(shape))))
        for i, rows in zip(places, made, strict=True):
            sums[i] = jnp.sum(rows, tuple(range(1, first)))
    return sums


def _sum_of_squares(x: Any, scale: jax.Array | None) -> jax.Array:
    x = working(x)
    if scale is not None:
        x = x * scale.astype(real_dtype(x.dtype)).astype(x.dtype)
    return jnp.sum(abs_sq(x))


def _in_float64(x: Any, axis: Any = None) -> jax.Array:
    """Sum the squares of `x` over `axis`, kept with length 1, or over all axes."""
    parts = (x.real, x.imag) if jnp.iscomplexobj(x) else (x,)
    wide = [lax.convert_element_type(part, jnp.float64) for part in parts]
    squares = functools.reduce(jnp.add, [part * part for part in wide])
    if axis is None and 1 < x.size <= _WINDOWED and jax.default_backend() == "cpu":
        return _sum_in_one(squares)
    return jnp.sum(squares, axis=axis, keepdims=axis is not None)


@jax.custom_jvp
def _summed(squares: jax.Array) -> jax.Array:
    """Sum numbers that are not negative, in one kernel with what computes them."""
    zero = varying_like(squares, jnp.zeros((), squares.dtype))
    both = lambda a, b: (a[0] + b[0], jnp.maximum(a[1], b[1]))
    axes = tuple(range(squares.ndim))
    found = lax.reduce((squares, squares), (zero, zero), both, axes)
    return lax.optimization_barrier(found)[0]  # else the other one is dropped at once


@_summed.defjvp
def _summed_jvp(primals: Any, tangents: Any) -> Any:
    with jax.enable_x64(True):  # as for the root
        return _summed(*primals), jnp.sum(tangents[0])


_sum_in_one = jax.jit(_summed)  # traced once for each type


def _from_float64(squares: jax.Array) -> ScaledNorm:
    """Return the root of a sum in float64 as a quotient of two float32 numbers."""
    norm = _root(squares)
    # All that follows starts from the root: XLA computes what is cheap once for each
    # of its readers, a sum of scalars from all leaves too, but a root only once.
    low, up, down = _SCALES["float32"]
    scale = jnp.where(norm < low, up, jnp.where(norm < 2.0**64, 1, down))
    scale = jnp.where(jnp.isnan(norm), 1, lax.stop_gradient(scale))
    single = lambda x: lax.convert_element_type(x, jnp.float32)
    return ScaledNorm(single(norm * scale), single(scale))


@jax.custom_jvp
def _root(squares: jax.Array) -> jax.Array:
    """Return the square root, with derivative 0 rather than infinity at 0."""
    return jnp.sqrt(squares)


@_root.defjvp
def _root_jvp(primals: Any, tangents: Any) -> Any:
    with jax.enable_x64(True):  # JAX may come here after that of the root has ended
        root = _root(*primals)
        slope = jnp.where(root > 0, 0.5 / jnp.where(root > 0, root, 1), 0)
        return root, slope * tangents[0]
