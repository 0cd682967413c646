"""L-BFGS: descend along the inverse Hessian that past steps suggest."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core import (
    ArgumentError,
    Count,
    Factored,
    Link,
    MissingArgumentError,
    PerParam,
    ScalarOrSchedule,
    chain,
    safe_increment,
    transformation,
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


@transformation
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

    Differs from optax: a pair with `s·y ≤ 0` gets weight 0, so that the estimate stays
    positive; there only `s·y = 0` does.
    """
    if memory_size < 1:
        raise ArgumentError(
            f"memory_size must be at least 1, got {memory_size}. Give 5 to 20."
        )

    def init(params):
        def stacked(p):
            return jnp.zeros((memory_size, *jnp.shape(p)), jnp.result_type(p))

        return ScaleByLBFGSState(
            zero_count(),
            zeros_like(params),
            zeros_like(params),
            jax.tree.map(stacked, params),
            jax.tree.map(stacked, params),
            jnp.zeros(memory_size, _scalar_dtype(jax.tree.leaves(params))),
        )

    def update(updates, state, params=None, **extra):
        if params is None:
            raise MissingArgumentError(
                "update needs the parameters. Call update(updates, state, params)."
            )
        tree = jax.tree.structure(updates)
        old = [jax.tree.leaves(field) for field in state[1:5]]
        g, p = jax.tree.leaves(updates), jax.tree.leaves(params)
        moves = [i for i, x in enumerate(g) if jnp.issubdtype(x.dtype, jnp.inexact)]
        dtype = state.weights_memory.dtype
        s = [jnp.where(state.count > 0, p[i] - old[0][i], 0) for i in moves]
        y = [jnp.where(state.count > 0, g[i] - old[1][i], 0) for i in moves]
        curvature, square = _dot(s, y, dtype), _dot(y, y, dtype)
        good = curvature > 0
        weight = jnp.where(good, 1 / jnp.where(good, curvature, 1), 0).astype(dtype)
        slot = (state.count - 1) % memory_size
        for k, i in enumerate(moves):
            old[2][i] = old[2][i].at[slot].set(s[k].astype(old[2][i].dtype))
            old[3][i] = old[3][i].at[slot].set(y[k].astype(old[3][i].dtype))
        weights = state.weights_memory.at[slot].set(weight)
        scale = jnp.ones((), dtype)
        if scale_init_precond:
            norm = jnp.sqrt(_dot([g[i] for i in moves], [g[i] for i in moves], dtype))
            first = 1 / jnp.maximum(norm, 1)
            usable = good & (square > 0)
            later = jnp.where(usable, curvature / jnp.where(usable, square, 1), 1)
            scale = jnp.where(state.count > 0, later, first).astype(dtype)
        made = _two_loops(
            [g[i] for i in moves],
            [old[2][i] for i in moves],
            [old[3][i] for i in moves],
            weights,
            scale,
            (state.count + jnp.arange(memory_size)) % memory_size,
        )
        out = list(g)
        for k, i in enumerate(moves):
            out[i] = made[k]
        kept = [
            new.astype(was.dtype) if jnp.issubdtype(was.dtype, jnp.inexact) else was
            for new, was in zip(p + g, old[0] + old[1], strict=True)
        ]
        like = [jax.tree.structure(field) for field in state[1:5]]
        return tree.unflatten(out), ScaleByLBFGSState(
            safe_increment(state.count),
            like[0].unflatten(kept[: len(p)]),
            like[1].unflatten(kept[len(p) :]),
            like[2].unflatten(old[2]),
            like[3].unflatten(old[3]),
            weights,
        )

    return init, update


def _two_loops(g: Any, s: Any, y: Any, weights: Any, scale: Any, order: Any) -> Any:
    """Return `H·g`; `order` lists the memory's slots from the oldest to the newest."""
    dtype = weights.dtype

    def newest_first(q, i):
        alpha = weights[i] * _dot([x[i] for x in s], q, dtype)
        return _add(q, -alpha, [x[i] for x in y]), alpha

    def oldest_first(r, step):
        i, alpha = step
        beta = weights[i] * _dot([x[i] for x in y], r, dtype)
        return _add(r, alpha - beta, [x[i] for x in s]), None

    q, alphas = lax.scan(newest_first, g, order, reverse=True)
    r = [(scale * x.astype(jnp.result_type(x, scale))).astype(x.dtype) for x in q]
    return lax.scan(oldest_first, r, (order, alphas))[0]


def _add(xs: Any, factor: Any, others: Any) -> Any:
    def leaf(x, other):
        wide = jnp.result_type(x, factor)
        return (x.astype(wide) + factor * other.astype(wide)).astype(x.dtype)

    return [leaf(x, other) for x, other in zip(xs, others, strict=True)]


def _dot(xs: Any, ys: Any, dtype: Any) -> Any:
    """Return the real part of the inner product, computed in 32 bits or more."""
    total = jnp.zeros((), dtype)
    for x, y in zip(xs, ys, strict=True):
        wide = jnp.result_type(x, dtype)
        part = jnp.vdot(x.astype(wide), y.astype(wide)).real
        total = total + part.astype(dtype)
    return total


def _scalar_dtype(leaves: Any) -> Any:
    double = any(
        jnp.issubdtype(x.dtype, jnp.inexact) and jnp.finfo(x.dtype).bits == 64
        for x in leaves
    )
    return jnp.float64 if double else jnp.float32


@transformation
def lbfgs(
    learning_rate: ScalarOrSchedule | None = None,
    memory_size: int = 10,
    scale_init_precond: bool = True,
    linesearch: Link | None = scale_by_zoom_linesearch(
        20, initial_guess_strategy="one"
    ),
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
      >>> p["w"].round(3).tolist()
      [3.0, 3.0]

    Source: Liu & Nocedal 1989, "On the limited memory BFGS method", Algorithm 2.1;
    Nocedal & Wright 2006, Algorithm 7.5.
    """
    rate = scale(-1.0) if learning_rate is None else scale_by_learning_rate(learning_rate)
    search = () if linesearch is None else (linesearch,)
    return chain(scale_by_lbfgs(memory_size, scale_init_precond), rate, *search)
