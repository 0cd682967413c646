"""Shorten a step until the objective falls enough."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core import (
    ArgumentError,
    Count,
    Inner,
    Numeric,
    PerParam,
    Scalar,
    check_non_negative,
    check_positive,
    is_static,
    map_leaves,
    scalar_like,
    transformation,
    zero_count,
    zeros_like,
)
from gradtx.transforms._linesearch import line_of, numbers


class BacktrackingLinesearchInfo(NamedTuple):
    """What the last line search did.

    Attributes:
      num_linesearch_steps: steps that it tried.
      decrease_error: by how much the objective missed the decrease, 0 at success.
    """

    num_linesearch_steps: Count
    decrease_error: Scalar


class ScaleByBacktrackingLinesearchState(NamedTuple):
    """The state of `scale_by_backtracking_linesearch`.

    Attributes:
      learning_rate: the step that was chosen.
      value: the objective there; infinite before the first update.
      grad: its gradient there, or `None` if it is not kept.
      info: what the search did.
    """

    learning_rate: Scalar
    value: Scalar
    grad: PerParam
    info: Inner


@transformation(needs={"params", "value", "grad", "value_fn"}, reach="tree")
def scale_by_backtracking_linesearch(
    max_backtracking_steps: int,
    slope_rtol: Numeric = 1e-4,
    decrease_factor: Numeric = 0.8,
    increase_factor: Numeric = 1.5,
    max_learning_rate: Numeric = 1.0,
    atol: Numeric = 0.0,
    rtol: Numeric = 0.0,
    store_grad: bool = False,
    verbose: bool = False,
):
    """Scale updates by the first step in a falling row that decreases enough.

    `u ← s·g`, s the first of `s_0·decrease_factor^k`, k = 0, 1, …, with
    `f(p + s·g) ≤ (1 + rtol)·f(p) + slope_rtol·s·⟨∇f(p), g⟩ + atol`,
    `s_0 = min(increase_factor·(last s), max_learning_rate)`

    `update` needs `value=`, `grad=` and `value_fn=`: the objective at the parameters, its
    gradient, and the objective itself, which gets those extra arguments that it names.
    Updates must descend: this link comes last.

    Args:
      max_backtracking_steps: steps tried after the first one; then the last is taken.
        A step is 0 if the objective was finite at none.
      slope_rtol: the share of the decrease along the slope that is asked for.
      decrease_factor: from one step to the next that is tried, in (0, 1).
      increase_factor: from the step of the last update to the first that is tried.
      max_learning_rate: the largest step.
      atol, rtol: what the objective may rise by, absolutely and relatively.
      store_grad: whether the state keeps the gradient at the end, for
        `value_and_grad_from_state`.
      verbose: whether failures are printed.

    Raises:
      ArgumentError: if an argument is outside its range.
      MissingArgumentError: if `update` lacks one of its arguments.

    Source: Armijo 1966; Nocedal & Wright 2006, Algorithm 3.1.

    Differs from optax: extra arguments that the objective does not name are ignored, so
    that the link can stand in a chain with others; types of the state never change.
    """
    check_positive(max_learning_rate=max_learning_rate, increase_factor=increase_factor)
    check_non_negative(slope_rtol=slope_rtol, atol=atol, rtol=rtol)
    if is_static(decrease_factor) and not 0 < decrease_factor < 1:
        raise ArgumentError(
            f"decrease_factor must lie in (0, 1), got {decrease_factor!r}."
        )

    options = (
        *(slope_rtol, decrease_factor, increase_factor, max_learning_rate),
        *(atol, rtol),
    )

    def init(params):
        info = BacktrackingLinesearchInfo(zero_count(), scalar_like(params, jnp.inf))
        return ScaleByBacktrackingLinesearchState(
            scalar_like(params, 1.0),
            scalar_like(params, jnp.inf),
            zeros_like(params) if store_grad else None,
            info,
        )

    def update(
        updates,
        state,
        params=None,
        *,
        value,
        grad,
        value_fn,
        **extra,
    ):
        line = line_of(value_fn, params, updates, value, grad, extra, state.grad)
        real = line.dtype
        share, shrink, grow, most, free, part = numbers(options, real)
        value = jnp.asarray(value).astype(real)
        slope = line.slope(line.moving(grad))

        def error_of(step, found):
            missed = found - (1 + part) * value - step * share * slope
            return jnp.maximum(jnp.where(jnp.isnan(missed), jnp.inf, missed), 0)

        def open_(carry):
            _, _, _, error, tried = carry
            return ~(error <= free) & (tried <= max_backtracking_steps)

        def attempt(carry):
            step, _, grads, _, tried = carry
            step = jnp.where(tried > 0, shrink * step, step).astype(real)
            if not store_grad:
                found = line.objective(line.at(step))
                return step, found, grads, error_of(step, found), tried + 1
            found, pull = jax.vjp(line.objective, line.at(step))
            error = error_of(step, found)
            last = (error <= free) | (tried == max_backtracking_steps)
            grads = lax.cond(last, lambda: pull(jnp.ones_like(found))[0], lambda: grads)
            return step, found, grads, error, tried + 1

        first = jnp.minimum(grow * state.learning_rate.astype(real), most).astype(real)
        blank = jax.tree.map(jnp.zeros_like, line.at(first)) if store_grad else []
        start = (first, value, blank, jnp.array(jnp.inf, real), zero_count())
        step, found, grads, error, tried = lax.while_loop(open_, attempt, start)
        if verbose:
            _report(error, free, step, value, slope)
        stuck = jnp.isinf(error)  # and remains where it is
        tried_last = step  # where the next search goes on: from 0 it never would
        step = jnp.where(stuck, 0, step).astype(real)
        found = jnp.where(stuck, value, found)

        def leaf(g, *, step):
            return step * g

        kept = None
        if store_grad:
            here = line.moving(grad)
            ends = [
                jnp.where(stuck, old.astype(x.dtype), new.astype(x.dtype))
                for x, old, new in zip(
                    line.moving(state.grad), here, grads, strict=True
                )
            ]
            kept = line.filled(ends, state.grad)
        info = BacktrackingLinesearchInfo(tried, error)
        return map_leaves(leaf, updates, step=step), ScaleByBacktrackingLinesearchState(
            tried_last, found, kept, info
        )

    return init, update


def _report(error, atol, step, value, slope):
    """Print why a search failed, where it did."""
    lax.cond(
        error > atol,
        lambda: jax.debug.print(
            "scale_by_backtracking_linesearch: no step decreases the objective enough. "
            "Value {value}, slope {slope}, last step {step}, missed by {error}.",
            value=value,
            slope=slope,
            step=step,
            error=error,
            ordered=True,
        ),
        lambda: None,
    )
    lax.cond(
        jnp.isinf(error),
        lambda: jax.debug.print(
            "Taking a step of 0: the objective was finite at none.", ordered=True
        ),
        lambda: None,
    )
