"""L-BFGS: descend along the inverse Hessian that past steps suggest."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core import (
    Count,
    Factored,
    Link,
    PerParam,
    ScalarOrSchedule,
    bits,
    cast,
    chain,
    check_count,
    check_shapes,
    check_structure,
    dtype_of,
    global_norm,
    real_dtype,
    safe_increment,
    scalar_like,
    shape_of,
    sum_leaves,
    transformation,
    widened,
    working,
    zero_count,
    zeros_like,
)
from gradtx.transforms import (
    scale,
    scale_by_learning_rate,
    scale_by_zoom_linesearch,
)


class ScaleByLBFGSState(NamedTuple):
    """The state of `scale_by_lbfgs`.

    Attributes:
      count: updates made so far.
      params: the parameters at the last one.
      updates: what came in then.
      diff_params_memory: the last differences of the parameters, stacked on axis 0.
      diff_updates_memory: those of what came in, likewise.
      weights_memory: `1/(s·y)` of each pair, 0 where it is not used.
    """

    count: Count
    params: PerParam
    updates: PerParam
    diff_params_memory: Factored
    diff_updates_memory: Factored
    weights_memory: Factored


@transformation(stage="precondition", needs={"params"}, reach="tree")
def scale_by_lbfgs(memory_size: int = 10, scale_init_precond: bool = True):
    """Multiply the update by an estimate of the inverse Hessian.

    `u ← H·g`, by the two-loop recursion over the last `memory_size` pairs
    `s = p − params`, `y = g − updates`, from `H = (s·y)/(y·y)·I`.

    Args:
      memory_size: how many pairs to keep, at least 1.
      scale_init_precond: whether to start from `(s·y)/(y·y)·I`, and at the first step
        from `min(1, 1/‖g‖)·I`; otherwise from the identity.

    Raises:
      ArgumentError: if `memory_size` is below 1.
      MissingArgumentError: if `update` is called without parameters.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.scale_by_lbfgs(), jnp.array([3.0, 4.0])
      >>> updates, state = tx.update(params, tx.init(params), params)
      >>> print(updates)
      [0.6 0.8]

    Source: Liu and Nocedal 1989; Nocedal and Wright 2006, Algorithms 7.4 and 7.5.

    Differs from optax: a pair with `s·y ≤ 0`, or with products that overflow, gets weight
    0, so that the estimate stays positive and finite; there only `s·y = 0` does.
    """

    check_count(1, memory_size=memory_size)

    def init(params):
        def stacked(p):
            return jnp.zeros((memory_size, *shape_of(p)), widened(dtype_of(p)))

        real = scalar_like(params).dtype
        return ScaleByLBFGSState(
            zero_count(),
            zeros_like(params),
            zeros_like(params, wide=True),
            jax.tree.map(stacked, params),
            jax.tree.map(stacked, params),
            jnp.zeros(memory_size, real),
        )

    def update(updates, state, params=None, **extra):
        check_structure(state.params, updates, "state", "updates")
        check_shapes(state.params, updates, "updates")
        real = state.weights_memory.dtype
        started = state.count > 0

        def difference(new, old):
            precise = bits(old) == 64 or bits(new) == 64
            gap = working(new, precise) - working(old, precise)
            return jnp.where(started, gap, jnp.zeros_like(gap))

        g, free = _moving(updates)
        inside = lambda tree: [jax.tree.leaves(tree)[i] for i in free]
        s = list(map(difference, inside(params), inside(state.params)))
        y = list(map(difference, g, inside(state.updates)))
        along, square = _dot(s, y).astype(real), _dot(y, y).astype(real)
        fits = jnp.isfinite(along) & jnp.isfinite(square)
        # where their products overflow, the pair is left out as a whole
        y = [jnp.where(fits, x, jnp.zeros_like(x)) for x in y]
        good = (along > 0) & fits
        weight = jnp.where(good, 1 / jnp.where(good, along, 1), 0)
        slot = (state.count - 1) % memory_size
        put = lambda memory, x: memory.at[slot].set(cast(x, memory.dtype))
        past_s = list(map(put, inside(state.diff_params_memory), s))
        past_y = list(map(put, inside(state.diff_updates_memory), y))
        weights = state.weights_memory.at[slot].set(weight)
        scale = jnp.ones((), real)
        if scale_init_precond:
            first = 1 / jnp.maximum(global_norm(g).astype(real), 1)
            first = jnp.maximum(first, jnp.finfo(real).tiny)
            usable = good & (square > 0)
            later = jnp.where(usable, along / jnp.where(usable, square, 1), 1)
            scale = jnp.where(started, later, first)
        order = (state.count + jnp.arange(memory_size, dtype=jnp.int32)) % memory_size
        made = _two_loops(list(map(working, g)), past_s, past_y, weights, scale, order)
        return _filled(updates, free, made), ScaleByLBFGSState(
            safe_increment(state.count),
            _filled(state.params, free, inside(params)),
            _filled(state.updates, free, g),
            _filled(state.diff_params_memory, free, past_s),
            _filled(state.diff_updates_memory, free, past_y),
            weights,
        )

    return init, update


def _moving(updates: Any) -> tuple[list[Any], list[int]]:
    """Return the leaves that are numbers, and where they stand."""
    leaves = jax.tree.leaves(updates)
    free = [i for i, g in enumerate(leaves) if bits(g)]
    return [leaves[i] for i in free], free


def _filled(tree: Any, free: list[int], leaves: list[Any]) -> Any:
    """Return `tree` with other leaves at some places, each in its old dtype."""
    whole, structure = jax.tree.flatten(tree)
    for i, x in zip(free, leaves, strict=True):
        whole[i] = cast(x, dtype_of(whole[i]))
    return structure.unflatten(whole)


def _two_loops(g: Any, s: Any, y: Any, weights: Any, scale: Any, order: Any) -> Any:
    """Return `H·g`; `order` lists the memory's slots from the oldest to the newest."""

    def newest_first(q, i):
        alpha = weights[i] * _dot([x[i] for x in s], q).astype(weights.dtype)
        return _add(q, -alpha, [x[i] for x in y]), alpha

    def oldest_first(r, step):
        i, alpha = step
        beta = weights[i] * _dot([x[i] for x in y], r).astype(weights.dtype)
        return _add(r, alpha - beta, [x[i] for x in s]), None

    q, alphas = lax.scan(newest_first, g, order, reverse=True)
    r = [x * _factor(scale, x) for x in q]
    return lax.scan(oldest_first, r, (order, alphas))[0]


def _add(xs: Any, factor: Any, others: Any) -> Any:
    return [
        x + _factor(factor, x) * cast(other, x.dtype)
        for x, other in zip(xs, others, strict=True)
    ]


def _factor(scalar: Any, x: Any) -> Any:
    return scalar.astype(real_dtype(x.dtype)).astype(x.dtype)


def _dot(xs: Any, ys: Any) -> Any:
    """Return the real part of the inner product."""
    return sum_leaves(lambda x, y: jnp.conj(x) * y, xs, ys)


_LINESEARCH = scale_by_zoom_linesearch(20, initial_guess_strategy="one")


@transformation
def lbfgs(
    learning_rate: ScalarOrSchedule | None = None,
    memory_size: int = 10,
    scale_init_precond: bool = True,
    linesearch: Link | None = _LINESEARCH,
):
    """Descend along L-BFGS directions by a line search.

    `p ← p − s·H·g`, with `H` of `scale_by_lbfgs` and the step s of the line search

    `update` needs `value=`, `grad=` and `value_fn=`, as in `scale_by_zoom_linesearch`.

    Args:
      learning_rate: a factor of the direction; a number, or a schedule. By default 1.
      memory_size, scale_init_precond: as in `scale_by_lbfgs`.
      linesearch: a link that scales the descent direction; `None` for none.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> tx, p = gradtx.lbfgs(), {"w": jnp.array([1.0, 2.0])}
      >>> f, state = lambda p: jnp.sum((p["w"] - 3) ** 2), tx.init(p)
      >>> for _ in range(3):
      ...     value, grad = gradtx.value_and_grad_from_state(f)(p, state=state)
      ...     u, state = tx.update(grad, state, p, value=value, grad=grad, value_fn=f)
      ...     p = gradtx.apply_updates(p, u)
      >>> [f"{x:.3f}" for x in p["w"]]
      ['3.000', '3.000']

    Source: Liu & Nocedal 1989, "On the limited memory BFGS method", Algorithm 2.1;
    Nocedal & Wright 2006, Algorithm 7.5.
    """
    rate = (
        scale(-1.0) if learning_rate is None else scale_by_learning_rate(learning_rate)
    )
    search = () if linesearch is None else (linesearch,)
    return chain(scale_by_lbfgs(memory_size, scale_init_precond), rate, *search)
