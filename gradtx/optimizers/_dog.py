"""DoG, DoWG and layer-wise DoG: steps of the distance travelled over the gradients."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import (
    ArgumentError,
    AxisName,
    DTypeLike,
    Factored,
    Flag,
    MaskOrFn,
    Numeric,
    PerParam,
    Scalar,
    ScalarOrSchedule,
    any_shape,
    bits,
    capped_abs_sq,
    cast,
    chain,
    check_non_negative,
    copies,
    global_norm,
    leaf_norm,
    map_leaves,
    safe_sqrt,
    scalar_like,
    sum_of_squares,
    transformation,
    working,
)
from gradtx.transforms import add_decayed_weights, scale_by_learning_rate

#: How DoG takes its first step: what is given, and its value.
InitStep = tuple[Literal["distance", "learning_rate", "heuristic"], Numeric]


class DoGState(NamedTuple):
    """The state of `scale_by_dog`.

    Attributes:
      is_init_step: whether no update has been made.
      init_params: the parameters at the start.
      max_dist: the largest distance from there so far.
      sum_sq_norm_grads: the sum of the squared norms of the gradients.
    """

    is_init_step: Flag
    init_params: PerParam
    max_dist: Scalar
    sum_sq_norm_grads: Scalar


class DoWGState(NamedTuple):
    """The state of `scale_by_dowg`.

    Attributes:
      init_params: the parameters at the start.
      weighted_sq_norm_grads: the sum of the squared norms of the gradients, each times
        the squared distance at its step.
      estim_sq_dist: the largest squared distance from the start so far.
    """

    init_params: PerParam
    weighted_sq_norm_grads: Scalar
    estim_sq_dist: Scalar


class ScaleByDistanceOverGradientsState(NamedTuple):
    """The state of `scale_by_distance_over_gradients`.

    Attributes:
      max_dist: for each leaf, the largest distance from its start so far.
      grad_sum_of_squares: for each leaf, the sum of the squares of its gradients.
      init_params: the parameters at the start.
    """

    max_dist: Factored
    grad_sum_of_squares: Factored
    init_params: PerParam


@transformation(stage="precondition", needs={"params"}, reach="tree")
def scale_by_dog(
    init_step: InitStep = ("heuristic", 1e-6),
    eps: Numeric = 1e-8,
    *,
    axis_name: AxisName | None = None,
):
    """Scale updates by the distance from the start over the root of all squares.

    `r ← max(r, ‖p − p_0‖)`; `G ← G + ‖g‖²`; `u ← g·r/√(G + eps)`

    Args:
      init_step: what starts it: `("distance", r)`, `("learning_rate", size)` of the
        first step, or `("heuristic", c)` for `r = c·(1 + ‖p_0‖)`.
      eps: added under the root.
      axis_name: mapped axes over which the parameters are sharded.

    Raises:
      ArgumentError: for another kind of `init_step`.
      MissingArgumentError: if `update` gets no parameters.

    Source: Ivgi, Hinder & Carmon 2023, arXiv:2302.12022, Algorithm 1.
    """
    kind, size = init_step
    if kind not in ("distance", "learning_rate", "heuristic"):
        raise ArgumentError(
            "init_step must be a pair of 'distance', 'learning_rate' or 'heuristic' and "
            f"a number, got {init_step!r}."
        )
    check_non_negative(eps=eps, init_step=size)

    def init(params):
        kept = copies(params)
        start = {"distance": size, "learning_rate": 0.0}.get(kind)
        if start is None:
            start = size * (1 + global_norm(kept, axis_name=axis_name))
        return DoGState(
            jnp.ones((), bool),
            kept,
            scalar_like(params, start, axis_name=axis_name),
            scalar_like(params, axis_name=axis_name),
        )

    def update(updates, state, params=None, **extra):
        real = state.max_dist.dtype
        far = sum_of_squares(params, state.init_params, axis_name=axis_name)
        far = jnp.maximum(state.max_dist, safe_sqrt(far).astype(real))
        squares = sum_of_squares(updates, axis_name=axis_name).astype(real)
        total = jnp.minimum(state.sum_sq_norm_grads + squares, jnp.finfo(real).max)
        rate = _quotient(far, safe_sqrt(total + eps))
        if kind == "learning_rate":
            rate = jnp.where(state.is_init_step, jnp.asarray(size, real), rate)
        updates = map_leaves(_scaled, updates, rate=rate)
        first = jnp.zeros((), bool)
        return updates, DoGState(first, state.init_params, far, total)

    return init, update


@transformation
def dog(
    learning_rate: ScalarOrSchedule = 1.0,
    init_step: InitStep = ("heuristic", 1e-6),
    eps: Numeric = 1e-8,
    weight_decay: ScalarOrSchedule | None = None,
    mask: MaskOrFn | None = None,
    *,
    axis_name: AxisName | None = None,
):
    """Descend with steps of the distance travelled over the gradients met.

    `p ← p − learning_rate·u`, with `u` of `scale_by_dog` for `g + weight_decay·p`

    The authors average the parameters over the steps.

    Args:
      learning_rate: a factor of the step; a number, or a schedule.
      init_step, eps, axis_name: as in `scale_by_dog`. With batch normalisation the
        authors advise `("heuristic", 1e-4)`.
      weight_decay, mask: as in `add_decayed_weights`; by default none.

    Source: Ivgi, Hinder & Carmon 2023, arXiv:2302.12022, Algorithm 1.
    """
    return chain(
        *_decay(weight_decay, mask),
        scale_by_dog(init_step, eps, axis_name=axis_name),
        scale_by_learning_rate(learning_rate),
    )


@transformation(stage="precondition", needs={"params"}, reach="tree")
def scale_by_dowg(
    init_estim_sq_dist: Numeric | None = None,
    eps: Numeric = 1e-4,
    *,
    axis_name: AxisName | None = None,
):
    """Scale updates by the squared distance over the root of weighted squares.

    `r² ← max(r², ‖p − p_0‖²)`; `V ← V + r²·‖g‖²`; `u ← g·r²/(√V + eps)`

    Args:
      init_estim_sq_dist: where `r²` starts; by default at `eps`.
      eps: added to the root.
      axis_name: mapped axes over which the parameters are sharded.

    Raises:
      ArgumentError: if an argument is negative.
      MissingArgumentError: if `update` gets no parameters.

    Source: Khaled, Mishchenko & Jin 2023, arXiv:2305.16284, Algorithm 1.
    """
    start = eps if init_estim_sq_dist is None else init_estim_sq_dist
    check_non_negative(eps=eps, init_estim_sq_dist=start)

    def init(params):
        return DoWGState(
            copies(params),
            scalar_like(params, axis_name=axis_name),
            scalar_like(params, start, axis_name=axis_name),
        )

    def update(updates, state, params=None, **extra):
        real = state.estim_sq_dist.dtype
        far = sum_of_squares(params, state.init_params, axis_name=axis_name)
        far = jnp.maximum(state.estim_sq_dist, far.astype(real))
        squares = far * sum_of_squares(updates, axis_name=axis_name).astype(real)
        total = state.weighted_sq_norm_grads + squares
        total = jnp.minimum(total, jnp.finfo(real).max)
        rate = _quotient(far, safe_sqrt(total) + eps)
        updates = map_leaves(_scaled, updates, rate=rate)
        return updates, DoWGState(state.init_params, total, far)

    return init, update


@transformation
def dowg(
    learning_rate: ScalarOrSchedule = 1.0,
    init_estim_sq_dist: Numeric | None = None,
    eps: Numeric = 1e-4,
    weight_decay: ScalarOrSchedule | None = None,
    mask: MaskOrFn | None = None,
    *,
    axis_name: AxisName | None = None,
):
    """Descend with steps of the squared distance over weighted gradients.

    `p ← p − learning_rate·u`, with `u` of `scale_by_dowg` for `g + weight_decay·p`

    Args:
      learning_rate: a factor of the step; a number, or a schedule.
      init_estim_sq_dist, eps, axis_name: as in `scale_by_dowg`.
      weight_decay, mask: as in `add_decayed_weights`; by default none.

    Source: Khaled, Mishchenko & Jin 2023, arXiv:2305.16284, Algorithm 1.
    """
    return chain(
        *_decay(weight_decay, mask),
        scale_by_dowg(init_estim_sq_dist, eps, axis_name=axis_name),
        scale_by_learning_rate(learning_rate),
    )


@transformation(stage="precondition", needs={"params"}, reach="leaf")
def scale_by_distance_over_gradients(
    reps_rel: Numeric = 1e-6,
    eps: Numeric = 1e-8,
    param_dtype: DTypeLike | None = "float32",
    global_scale: Numeric = 1.0,
    *,
    axis_name: AxisName | None = None,
):
    """Scale each leaf by its distance from the start over the root of its squares.

    `r ← max(r, ‖p − p_0‖)`; `G ← G + ‖g‖²`; `u ← g·global_scale·r/√(G + eps)`, for
    each leaf; `r` starts at `reps_rel·(1 + ‖p_0‖)`

    Args:
      reps_rel: sets the first step; with batch normalisation the authors advise 1e-4.
      eps: added under the root.
      param_dtype: dtype in which the parameters at the start are kept; `None` for
        their own.
      global_scale: a factor of all updates; −1 to descend.
      axis_name: mapped axes over which the parameters are sharded.

    Raises:
      ArgumentError: if `reps_rel` or `eps` is negative.
      MissingArgumentError: if `update` gets no parameters.

    Source: Ivgi, Hinder & Carmon 2023, arXiv:2302.12022, section 3.3 (L-DoG).
    """
    check_non_negative(reps_rel=reps_rel, eps=eps)

    def init(params):
        def far(p):
            if not bits(p):
                return jnp.zeros(())
            size = leaf_norm(working(p), axis_name=axis_name).value
            return reps_rel * (1 + size)

        def kept(p):
            whole = jnp.iscomplexobj(p) or not bits(p)
            return p if whole or param_dtype is None else cast(p, param_dtype)

        params = copies(params)
        return ScaleByDistanceOverGradientsState(
            jax.tree.map(far, params),
            jax.tree.map(lambda p: jnp.zeros_like(far(p)), params),
            copies(jax.tree.map(kept, params)),
        )

    def update(updates, state, params=None, **extra):
        def leaf(g, far, total, start, p, *, eps, factor):
            gone = leaf_norm(p - start, axis_name=axis_name).value
            far = jnp.maximum(far, gone)
            total = total + capped_abs_sq(leaf_norm(g, axis_name=axis_name).value)
            total = jnp.minimum(total, jnp.finfo(total.dtype).max)
            return factor * _quotient(far, safe_sqrt(total + eps)) * g, far, total

        updates, far, total = map_leaves(
            leaf,
            updates,
            any_shape(state.max_dist),
            any_shape(state.grad_sum_of_squares),
            state.init_params,
            params,
            outputs=3,
            eps=eps,
            factor=global_scale,
        )
        return updates, ScaleByDistanceOverGradientsState(far, total, state.init_params)

    return init, update


def _quotient(far, length):
    return far / jnp.where(length > 0, length, 1)  # 0 with no eps and no gradient yet


def _decay(weight_decay, mask):
    return () if weight_decay is None else (add_decayed_weights(weight_decay, mask),)


def _scaled(g, *, rate):
    return rate * g
