"""Find a step at which the objective has fallen enough and is nearly flat."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

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
    cast,
    check_non_negative,
    check_positive,
    map_leaves,
    scalar_like,
    transformation,
    zero_count,
    zeros_like,
)
from gradtx.transforms._linesearch import Line, line_of, numbers

FLAG_INTERVAL_NOT_FOUND = (
    "No interval with a flat point was found. Allow larger steps by max_learning_rate."
)
FLAG_INTERVAL_TOO_SMALL = "The interval has become shorter than stepsize_precision."
FLAG_CURVATURE_COND_NOT_SATISFIED = (
    "The step decreases the objective enough, but is not flat enough."
)
FLAG_NO_STEPSIZE_FOUND = "No step decreases the objective enough."
FLAG_NOT_A_DESCENT_DIRECTION = "The direction does not descend."


class ZoomLinesearchInfo(NamedTuple):
    """What the last line search did.

    Attributes:
      num_linesearch_steps: steps that it tried.
      decrease_error: by how much the objective missed the decrease, 0 at success.
      curvature_error: by how much the slope missed its bound, 0 at success.
    """

    num_linesearch_steps: Count
    decrease_error: Scalar
    curvature_error: Scalar


class ScaleByZoomLinesearchState(NamedTuple):
    """The state of `scale_by_zoom_linesearch`.

    Attributes:
      learning_rate: the step that was chosen.
      value: the objective there; infinite before the first update.
      grad: its gradient there.
      info: what the search did.
    """

    learning_rate: Scalar
    value: Scalar
    grad: PerParam
    info: Inner


class _Point(NamedTuple):
    """A step, and the objective and its derivative by the step there."""

    step: jax.Array
    value: jax.Array
    slope: jax.Array


class _Search(NamedTuple):
    """A search under way. `ref` is a third point, for the cubic."""

    count: jax.Array
    last: _Point
    grad: list[jax.Array]
    low: _Point
    high: _Point
    ref: _Point
    safe: _Point
    safe_grad: list[jax.Array]
    decrease: jax.Array
    curvature: jax.Array
    bracketed: jax.Array
    done: jax.Array
    failed: jax.Array


class _Options(NamedTuple):
    """The numbers of a search, as in `scale_by_zoom_linesearch`."""

    steps: int
    largest: Numeric | None
    tol: Numeric
    increase: Numeric
    slope_rtol: Numeric
    curv_rtol: Numeric
    approximate: Numeric | None
    precision: Numeric


@transformation(
    needs={"params", "value", "grad", "value_fn"},
    reach="tree",
    differentiable=False,
    exempt={
        "P14 x64 float32": "along a direction that does not descend, the step found is "
        "of the size of rounding"
    },
)
def scale_by_zoom_linesearch(
    max_linesearch_steps: int,
    max_learning_rate: Numeric | None = None,
    tol: Numeric = 0.0,
    increase_factor: Numeric = 2.0,
    slope_rtol: Numeric = 1e-4,
    curv_rtol: Numeric = 0.9,
    approx_dec_rtol: Numeric | None = 1e-6,
    stepsize_precision: Numeric = 1e-5,
    initial_guess_strategy: Literal["keep", "one"] = "keep",
    verbose: bool = False,
):
    """Scale updates by a step that satisfies the strong Wolfe conditions.

    `u ← s·g`, with `φ(s) = f(p + s·g)`: `φ(s) ≤ φ(0) + slope_rtol·s·φ'(0)` and
    `|φ'(s)| ≤ curv_rtol·|φ'(0)|`. Where rounding hides the decrease, the first may be
    `(2·slope_rtol − 1)·φ'(0) ≥ φ'(s)` and `φ(s) ≤ φ(0) + approx_dec_rtol·|φ(0)|`.

    `update` needs `value=`, `grad=` and `value_fn=`: the objective at the parameters, its
    gradient, and the objective itself, which gets those extra arguments that it names.
    Updates must descend: this link comes last. The step grows until an interval holds a
    solution, which is then narrowed by cubics, parabolas or halves.

    Args:
      max_linesearch_steps: steps tried, 1 or more. If none satisfies both conditions,
        the last that decreases enough is taken, else the last; 0 if the objective was
        finite at none.
      max_learning_rate: the largest step; by default there is none.
      tol: by how much a condition may be missed.
      increase_factor: by which the step grows, above 1.
      slope_rtol, curv_rtol: of the conditions, 0 < slope_rtol < curv_rtol < 1.
      approx_dec_rtol: of the second form of the first; `None` for the first form only.
      stepsize_precision: the shortest interval.
      initial_guess_strategy: whether to start from the last step, or from 1.
      verbose: whether failures are printed.

    Raises:
      ArgumentError: if an argument is outside its range.
      MissingArgumentError: if `update` lacks one of its arguments.

    Source: Nocedal & Wright 2006, Algorithms 3.5 and 3.6; Hager & Zhang 2006,
    "Algorithm 851: CG_DESCENT", equation 4.

    Differs from optax: extra arguments that the objective does not name are ignored, so
    that the link can stand in a chain with others; a search starts from 1 where the last
    step was 0; types of the state never change.
    """
    check_positive(
        max_linesearch_steps=max_linesearch_steps,
        max_learning_rate=max_learning_rate,
        increase_factor=increase_factor,
    )
    check_non_negative(
        tol=tol,
        slope_rtol=slope_rtol,
        curv_rtol=curv_rtol,
        approx_dec_rtol=approx_dec_rtol,
        stepsize_precision=stepsize_precision,
    )
    if initial_guess_strategy not in ("keep", "one"):
        raise ArgumentError(
            "initial_guess_strategy must be 'keep' or 'one', got "
            f"{initial_guess_strategy!r}."
        )
    options = _Options(
        max_linesearch_steps,
        max_learning_rate,
        tol,
        increase_factor,
        slope_rtol,
        curv_rtol,
        approx_dec_rtol,
        stepsize_precision,
    )

    def init(params):
        never = lambda: scalar_like(params, jnp.inf)
        return ScaleByZoomLinesearchState(
            scalar_like(params, 1.0),
            never(),
            zeros_like(params),
            ZoomLinesearchInfo(zero_count(), never(), never()),
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
        guess = jnp.ones((), line.dtype)
        if initial_guess_strategy == "keep":
            last = state.learning_rate.astype(line.dtype)
            guess = jnp.where(last > 0, last, guess)
        value = jnp.asarray(value).astype(line.dtype)
        here = [
            cast(g, x.dtype)
            for g, x in zip(line.moving(grad), line.moving(params), strict=True)
        ]
        o = numbers(options, line.dtype)
        found = _search(line, value, here, guess, o)
        if verbose:
            _report(found, value, line.slope(here), o)
        found = _settled(found)

        def leaf(g, *, step):
            return step * g

        step = found.last.step
        info = ZoomLinesearchInfo(found.count, found.decrease, found.curvature)
        grads = [
            cast(g, x.dtype)
            for g, x in zip(found.grad, line.moving(state.grad), strict=True)
        ]
        kept = line.filled(grads, state.grad)
        made = map_leaves(leaf, updates, step=step)
        return made, ScaleByZoomLinesearchState(step, found.last.value, kept, info)

    return init, update


def _search(
    line: Line, value: jax.Array, grad: list[jax.Array], guess: jax.Array, o: _Options
) -> _Search:
    """Search until the conditions hold, or no longer."""
    zero, no = jnp.zeros((), line.dtype), jnp.zeros((), bool)
    start = _Point(zero, value, line.slope(grad))
    never = jnp.array(jnp.inf, line.dtype)
    first = _Search(
        zero_count(),
        *(start, grad, start, start, start, start, grad),
        *(never, never, no, no, no),
    )

    def body(s: _Search) -> _Search:
        larger = jnp.where(s.count == 0, guess, o.increase * s.last.step)
        capped = no
        if o.largest is not None:
            capped = larger >= o.largest
            larger = jnp.minimum(larger, o.largest)
        step = jnp.where(s.bracketed, _between(s.low, s.high, s.ref), larger)
        step = step.astype(line.dtype)
        found, grads = jax.value_and_grad(line.objective)(line.at(step))
        new = _Point(step, found, line.slope(grads))
        decrease = _decrease_error(new, start, o)
        curvature = jnp.abs(new.slope) - o.curv_rtol * jnp.abs(start.slope)
        curvature = _error(curvature)
        right = jnp.maximum(decrease, curvature) <= o.tol
        low, high, ref, bracketed = _narrowed(s, new, decrease)
        bracketed = bracketed | right
        better = ~s.bracketed | (new.value < s.safe.value)
        safe, safe_grad = _pick(
            (decrease <= o.tol) & better, (new, grads), (s.safe, s.safe_grad)
        )
        short = (jnp.abs(s.high.step - s.low.step) <= o.precision) & (safe.step > 0)
        over = (s.count + 1 >= o.steps) | (s.bracketed & short)
        done = right | (capped & ~bracketed)
        return _Search(
            s.count + 1,
            *(new, grads, low, high, ref, safe, safe_grad, decrease, curvature),
            *(bracketed, done, over & ~done),
        )

    return lax.while_loop(lambda s: ~(s.done | s.failed), body, first)


def _narrowed(
    s: _Search, new: _Point, decrease: jax.Array
) -> tuple[_Point, _Point, _Point, jax.Array]:
    """Return the ends of the interval after `new`, a third point, and if it is one."""
    # still growing: between the last step and this one, if this one is too high or rises
    high_new = (decrease > 0) | ((new.value >= s.last.value) & (s.count > 0))
    rises = ~high_new & (new.slope >= 0)
    low, high = _pick(rises, (new, s.last), (s.last, new))
    # inside an interval: this point replaces one of the ends
    too_high = (decrease > 0) | (new.value >= s.low.value)
    turned = ~too_high & (new.slope * (s.high.step - s.low.step) >= 0)
    inner_high = _pick(too_high, new, _pick(turned, s.low, s.high))
    inner_low = _pick(too_high, s.low, new)
    ref = _pick(too_high | turned, s.high, s.low)
    low, high, ref = _pick(s.bracketed, (inner_low, inner_high, ref), (low, high, low))
    return low, high, ref, s.bracketed | high_new | rises


def _between(low: _Point, high: _Point, ref: _Point) -> jax.Array:
    """Return a step inside the interval: of a cubic, else a parabola, else the middle."""
    left = jnp.minimum(low.step, high.step)
    right = jnp.maximum(low.step, high.step)
    width = right - left
    b, c = high.step - low.step, ref.step - low.step
    rise_b = high.value - low.value - low.slope * b
    rise_c = ref.value - low.value - low.slope * c
    scale = (b * c) ** 2 * (b - c)
    third = (c**2 * rise_b - b**2 * rise_c) / scale
    second = (b**3 * rise_c - c**3 * rise_b) / scale
    root = jnp.sqrt(second**2 - 3 * third * low.slope)
    cubic = low.step + (root - second) / (3 * third)
    parabola = low.step - low.slope * b**2 / (2 * rise_b)
    # NaN lies in no interval
    fits = lambda x, margin: (x > left + margin * width) & (x < right - margin * width)
    middle = (low.step + high.step) / 2
    step = jnp.where(fits(parabola, 0.1), parabola, middle)
    return jnp.where(fits(cubic, 0.2), cubic, step)


def _decrease_error(new: _Point, start: _Point, o: _Options) -> jax.Array:
    rise = new.value - start.value
    error = rise - o.slope_rtol * new.step * start.slope
    if o.approximate is not None:
        flat = new.slope - (2 * o.slope_rtol - 1) * start.slope
        near = rise - o.approximate * jnp.abs(start.value)
        error = jnp.minimum(jnp.maximum(flat, near), error)
    return _error(error)


def _error(missed: jax.Array) -> jax.Array:
    return jnp.where(jnp.isnan(missed), jnp.inf, jnp.maximum(missed, 0))


def _pick(condition: jax.Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _settled(s: _Search) -> _Search:
    """Return a failed search at the best step that decreases enough, if there is one."""
    back = s.failed & ((s.safe.step > 0) | jnp.isinf(s.decrease))
    last, grad = _pick(back, (s.safe, s.safe_grad), (s.last, s.grad))
    return s._replace(last=last, grad=grad)


def _report(s: _Search, value: jax.Array, slope: jax.Array, o: _Options) -> None:
    """Print why a search failed, where it did."""
    unbounded = s.done & ~s.bracketed
    short = jnp.abs(s.high.step - s.low.step) <= o.precision
    safe = s.safe.step > 0

    def say(condition: jax.Array, text: str) -> None:
        lax.cond(
            condition,
            lambda: jax.debug.print(
                "scale_by_zoom_linesearch: " + text + " Value {value}, slope {slope}, "
                "step {step}, errors {decrease} (decrease) and {curvature} (curvature).",
                value=value,
                slope=slope,
                step=s.last.step,
                decrease=s.decrease,
                curvature=s.curvature,
                ordered=True,
            ),
            lambda: None,
        )

    say(unbounded, FLAG_INTERVAL_NOT_FOUND)
    say(s.failed & short, FLAG_INTERVAL_TOO_SMALL)
    say(unbounded | (s.failed & safe), FLAG_CURVATURE_COND_NOT_SATISFIED)
    say(s.failed & ~safe, FLAG_NO_STEPSIZE_FOUND)
    say(s.failed & ~safe & ~(slope < 0), FLAG_NOT_A_DESCENT_DIRECTION)
