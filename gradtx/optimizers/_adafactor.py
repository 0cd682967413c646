"""Adafactor: Adam's second moment as the product of a row and a column."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import (
    Count,
    DTypeLike,
    Factored,
    MaskOrFn,
    Numeric,
    ScalarOrSchedule,
    ShapeError,
    any_shape,
    capped_abs_sq,
    chain,
    check_count,
    check_non_negative,
    check_structure,
    dtype_of,
    map_leaves,
    mean_square,
    path_of,
    real_dtype,
    safe_increment,
    scalar_dtype,
    shape_of,
    transformation,
    widened,
    zero_count,
)
from gradtx.transforms import (
    add_decayed_weights,
    clip_by_block_rms,
    ema,
    scale,
    scale_by_learning_rate,
    scale_by_param_block_rms,
)


class FactoredState(NamedTuple):
    """The state of `scale_by_factored_rms`; what a leaf does not use has shape (1,).

    Attributes:
      count: updates made so far.
      v_row: second moment averaged over the largest axis, of each leaf that is factored.
      v_col: the same over the second largest axis.
      v: second moment of each other leaf.
    """

    count: Count
    v_row: Factored
    v_col: Factored
    v: Factored


@transformation(stage="precondition", reach="leaf")
def scale_by_factored_rms(
    factored: bool = True,
    decay_rate: Numeric = 0.8,
    step_offset: Numeric = 0,
    min_dim_size_to_factor: int = 128,
    epsilon: Numeric = 1e-30,
    decay_rate_fn: Callable[[Numeric, Numeric], Numeric] | None = None,
):
    """Divide updates by the root of a second moment that is kept as row and column.

    `b ← 1 − t^(−decay_rate)`, t = count − step_offset + 1, at least 1;
    `v_row ← b·v_row + (1 − b)·(mean_cols(|g|²) + epsilon)`, `v_col` alike;
    `u ← g·(1/√v_col)·(1/√(v_row/mean(v_row)))`; without factors
    `v ← b·v + (1 − b)·(|g|² + epsilon)`, `u ← g/√v`

    The two largest axes of a leaf are factored, the others stay.

    Args:
      factored: whether to factor at all.
      decay_rate: how fast the share that one step keeps goes to 1, above 0.
      step_offset: the number of updates at which counting starts, as when fine-tuning.
      min_dim_size_to_factor: the second largest axis must be at least this long.
      epsilon: added to the squares.
      decay_rate_fn: `(count − step_offset, decay_rate) -> b` instead.

    Raises:
      ArgumentError: if `epsilon` is negative or the least size no integer of 1 or more.

    Source: Shazeer & Stern 2018, arXiv:1804.04235, Algorithm 4 and section 7.2.

    Differs from optax: moments are float32 for parameters of fewer bits, and updates
    before `step_offset` count as the first one, where they would be NaN.
    """
    check_non_negative(epsilon=epsilon)
    check_count(1, min_dim_size_to_factor=min_dim_size_to_factor)

    def axes(shape):
        return _largest_axes(shape, min_dim_size_to_factor) if factored else None

    def shapes(p):
        """Return the shapes of `v_row`, `v_col` and `v` of one leaf."""
        shape, two = shape_of(p), axes(shape_of(p))
        if two is None:
            return (1,), (1,), shape
        return _without(shape, two[1]), _without(shape, two[0]), (1,)

    def check(path, g, *moments):
        if dtype_of(g) != jax.dtypes.float0 and shapes(g) != tuple(
            map(shape_of, moments)
        ):
            raise ShapeError(
                f"updates{path_of(path)}: expected moments of shapes {shapes(g)} for "
                f"shape {shape_of(g)}, got {tuple(map(shape_of, moments))}. Was the "
                "state made by init from these parameters?"
            )

    def init(params):
        def field(index: int):
            def leaf(p):
                shape = shapes(p)[index]
                dtype = widened(real_dtype(dtype_of(p)))
                if shape == shape_of(p):
                    return jnp.zeros_like(p, dtype)  # keeps the sharding
                return jnp.zeros(shape, dtype)

            return jax.tree.map(leaf, params)

        return FactoredState(zero_count(), field(0), field(1), field(2))

    def update(updates, state, params=None, **extra):
        def leaf(g, v_row, v_col, v, *, b, epsilon):
            two = axes(g.shape)
            if two is None:
                v = b * v + ((1 - b) * (_square(g) + epsilon))
                return g / jnp.sqrt(v), v_row, v_col, v
            small, large = two  # axes: the second largest, the largest
            # of |g|, so that XLA does not keep what both means have in common
            v_row = b * v_row + (1 - b) * (mean_square(g, large) + epsilon)
            v_col = b * v_col + (1 - b) * (mean_square(jnp.abs(g), small) + epsilon)
            among = small - 1 if small > large else small  # its place in v_row
            row = v_row / _mean(v_row, among, keepdims=True)
            # vectors are divided, not the leaf: a quotient that the clip's norm and the
            # update share would be kept
            col = jnp.expand_dims(1 / jnp.sqrt(v_col), small)
            return g * col * jnp.expand_dims(1 / jnp.sqrt(row), large), v_row, v_col, v

        check_structure(state.v, updates, "state", "updates")
        jax.tree_util.tree_map_with_path(
            check, updates, state.v_row, state.v_col, state.v
        )
        count = state.count.astype(scalar_dtype())
        since = count - jnp.asarray(step_offset).astype(count.dtype)
        if decay_rate_fn is None:
            b = 1 - jnp.maximum(since + 1, 1) ** -decay_rate
        else:
            b = decay_rate_fn(since, decay_rate)
        updates, v_row, v_col, v = map_leaves(
            leaf,
            updates,
            any_shape(state.v_row),
            any_shape(state.v_col),
            any_shape(state.v),
            outputs=4,
            b=b,
            epsilon=epsilon,
        )
        return updates, FactoredState(safe_increment(state.count), v_row, v_col, v)

    return init, update


def _largest_axes(shape: tuple[int, ...], least: int) -> tuple[int, int] | None:
    """Return the second largest and the largest axis, or `None` if they are short."""
    if len(shape) < 2:
        return None
    order = np.argsort(shape)
    if shape[order[-2]] < least:
        return None
    return int(order[-2]), int(order[-1])


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _square(g: jax.Array) -> jax.Array:
    # so small that a mean over the leaf is in range
    most = jnp.finfo(real_dtype(g.dtype)).max / (2 * max(g.size, 1))
    return jnp.minimum(capped_abs_sq(g), most)


def _mean(x: Any, axis: int, keepdims: bool = False) -> jax.Array:
    # divided first: the sum of the largest numbers would overflow
    return jnp.sum(x / x.shape[axis], axis=axis, keepdims=keepdims)


@transformation
def adafactor(
    learning_rate: ScalarOrSchedule | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: Numeric = 0.8,
    decay_offset: Numeric = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: Numeric | None = 1.0,
    momentum: Numeric | None = None,
    dtype_momentum: DTypeLike = jnp.float32,
    weight_decay_rate: ScalarOrSchedule | None = None,
    eps: Numeric = 1e-30,
    factored: bool = True,
    weight_decay_mask: MaskOrFn | None = None,
):
    """Descend with Adafactor: factored moments, clipped updates, relative steps.

    `p ← p − (ema(learning_rate·max(1e-3, rms(p))·clip(u)) + weight_decay_rate·p)`, with
    `u` of `scale_by_factored_rms`; each part only where asked

    Args:
      learning_rate: a number, a schedule of the number of updates made, or `None` for 1.
      min_dim_size_to_factor, decay_rate, factored: as in `scale_by_factored_rms`.
      decay_offset: its `step_offset`.
      multiply_by_parameter_scale: whether steps are relative to the parameter's size.
      clipping_threshold: as in `clip_by_block_rms`; `None` for none.
      momentum: `decay` of `ema`, without debiasing; `None` for none.
      dtype_momentum: dtype of the momentum.
      weight_decay_rate: a share of the parameter, not multiplied by the learning rate;
        `None` for none.
      eps: `epsilon` of `scale_by_factored_rms`.
      weight_decay_mask: which leaves decay.

    Source: Shazeer & Stern 2018, arXiv:1804.04235, Algorithm 4.
    """
    links: list[Any] = [
        scale_by_factored_rms(
            factored, decay_rate, decay_offset, min_dim_size_to_factor, eps
        )
    ]
    if clipping_threshold is not None:
        links.append(clip_by_block_rms(clipping_threshold))
    if learning_rate is not None:
        links.append(scale_by_learning_rate(learning_rate, flip_sign=False))
    if multiply_by_parameter_scale:
        links.append(scale_by_param_block_rms())
    if momentum is not None:
        links.append(ema(momentum, debias=False, accumulator_dtype=dtype_momentum))
    if weight_decay_rate is not None:
        links.append(add_decayed_weights(weight_decay_rate, weight_decay_mask))
    # the paper's relative steps do not scale the decay
    return chain(*links, scale(-1.0), deliberate=True)
