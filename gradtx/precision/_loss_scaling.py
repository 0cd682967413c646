"""Scale the loss, so that small gradients do not underflow in float16."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import (
    ArgumentError,
    AxisName,
    GradientTransformation,
    Link,
    as_transformation,
    check_count,
    is_static,
    links_of,
    safe_increment,
    transformation,
    update_if,
    varying_like,
    zero_count,
    zero_norm,
)
from gradtx.precision._gradients import examined, unscaled
from gradtx.precision._scale import LossScaleState, Rule, moved

#: Between these powers of two a scale and its reciprocal are normal float32 numbers.
_LEAST, _MOST = 2.0**-126, 2.0**126
#: An interval that no run reaches.
_NEVER = 2**31 - 1
#: Wrappers that hand a gradient that is not finite to a guard inside, and nothing else.
_OPEN = {"accumulate", "compiled", "flatten", "observe"}


@transformation(stage="loss_scale", reach="tree")
def dynamic_loss_scaling(
    inner: Link,
    *,
    initial: float = 2**16,
    growth: float = 2,
    backoff: float = 0.5,
    interval: int = 2000,
    hysteresis: int = 1,
    minimum: float = 1,
    maximum: float = 2**24,
    axis_name: AxisName | None = None,
):
    """Apply `inner` to gradients of a scaled loss, with a scale that finds its size.

    `g` all finite: `u ← inner(g/scale)`; after each `interval` of them in a row,
    `scale ← min(growth·scale, maximum)`

    else: `u ← 0`, and where `hysteresis` is used up,
    `scale ← max(backoff·scale, minimum)`

    Multiply the loss by the scale, in float32, before it is differentiated:
    `precision.scale_loss(loss, opt_state)`, or `precision.value_and_grad`. All else
    stays in its own units: `inner`, which sees float32 gradients also where they come
    in float16, and the loss that is given as `value=`. Scales are powers of two, so
    that nothing is rounded: where nothing over- or underflows, training is that without
    a scale, bit for bit.

    A gradient that is not finite is left out with all that it would move: moments,
    counts and accumulators inside stand still. Where the scale is at `minimum` already,
    the loss diverges, whatever its scale. The gradient then goes, unscaled, to the
    guard that encloses all of `inner`, if there is one: it counts, backs off and
    rolls back. Else it is left out like the others, `at_min` counts, and
    `precision.check(opt_state)` raises.

    Inside `accumulate`, the scale changes between windows only. Around it, each
    gradient is unscaled before it is added, and one that is not finite is no part of
    the window.

    Beside what `inner` takes, gradients are read once more, and the updates lie in
    memory once, as with `apply_if_finite`.

    Args:
      inner: what to apply to unscaled gradients: clipping, an optimizer, a guard.
      initial: the first scale.
      growth: the factor by which the scale grows, above 1.
      backoff: the factor by which it is lowered, below 1.
      interval: updates with finite gradients in a row before it grows, 1 or more.
      hysteresis: gradients that are not finite from one growth to the next before it
        is lowered, 1 or more.
      minimum: the smallest scale.
      maximum: the largest scale. It, `initial`, `growth`, `backoff` and `minimum` are
        powers of two between 2^−126 and 2^126.
      axis_name: mapped axes whose devices decide together: an overflow on one device
        leaves the gradient out on all. Needed where each has gradients of its own.

    Raises:
      ArgumentError: if an argument is no such number, or `initial` lies outside of
        [minimum, maximum].

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.dynamic_loss_scaling(gradtx.sgd(1.0), initial=8)
      >>> params = jnp.ones(1, jnp.float16)
      >>> state = tx.init(params)
      >>> updates, state = tx.update(jnp.array([jnp.inf], jnp.float16), state, params)
      >>> updates.tolist(), float(state.scale)
      ([0.0], 4.0)

    Source: Micikevicius et al. 2017, arXiv:1710.03740, section 3.2 (loss scaling). The
    sizes and the interval are those of torch's `GradScaler`; the smallest scale, the
    largest and the hysteresis those of Megatron-LM.
    """
    check_count(1, interval=interval, hysteresis=hysteresis)
    scales = {"initial": initial, "minimum": minimum, "maximum": maximum}
    _check_powers(growth=growth, backoff=backoff, **scales)
    if is_static(growth) and growth <= 1:
        raise ArgumentError(f"growth must be above 1, such as 2, got {growth!r}.")
    if is_static(backoff) and backoff >= 1:
        raise ArgumentError(f"backoff must be below 1, such as 0.5, got {backoff!r}.")
    if all(map(is_static, scales.values())) and not minimum <= initial <= maximum:
        raise ArgumentError(
            f"initial must lie in [minimum, maximum] = [{minimum}, {maximum}], got "
            f"{initial!r}. Move it, or the bound."
        )
    rule = Rule(initial, growth, backoff, interval, hysteresis, minimum, maximum)
    return _scaled(as_transformation(inner), rule, axis_name)


@transformation(stage="loss_scale", reach="tree")
def static_loss_scaling(
    inner: Link, scale: float, *, axis_name: AxisName | None = None
):
    """Apply `inner` to gradients of a loss that is multiplied by a fixed scale.

    `u ← inner(g/scale)` where all of `g` is finite, else `u ← 0`

    It is `dynamic_loss_scaling` with a scale that never moves: the state, what `inner`
    sees and what is left out are the same. As the scale cannot be lowered, each
    gradient that is not finite goes to a guard inside, or counts in `at_min`.

    Args:
      inner: what to apply to unscaled gradients.
      scale: the scale, a power of two between 2^−126 and 2^126.
      axis_name: as in `dynamic_loss_scaling`.

    Raises:
      ArgumentError: if `scale` is no such number.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.static_loss_scaling(gradtx.sgd(1.0), 1024)
      >>> updates, state = tx.update(jnp.array([512.0]), tx.init(jnp.zeros(1)))
      >>> updates.tolist()
      [-0.5]

    Source: Micikevicius et al. 2017, arXiv:1710.03740, section 3.2 (a constant factor).
    """
    _check_powers(scale=scale)
    rule = Rule(scale, 1, 1, _NEVER, 1, scale, scale)
    return _scaled(as_transformation(inner), rule, axis_name)


def _check_powers(**numbers: Any) -> None:
    for name, value in numbers.items():
        if not is_static(value):
            continue
        if math.frexp(value)[0] != 0.5 or not _LEAST <= value <= _MOST:
            near = value if math.isfinite(value) and value > 0 else 1
            near = 2.0 ** min(max(round(math.log2(near)), -126), 126)
            raise ArgumentError(
                f"{name} must be a power of two between 2^-126 and 2^126, so that "
                f"scaling rounds nothing, got {value!r}. The nearest is {near:g}."
            )


def _scaled(inner: GradientTransformation, rule: Rule, axis_name: AxisName | None):
    """Return `(init, update)` of a scale that moves by a rule."""
    escalates = _is_guarded(inner)

    def init(params):
        state = LossScaleState(
            scale=jnp.asarray(rule.initial, jnp.float32),
            good_steps=zero_count(),
            hysteresis_left=jnp.array(rule.hysteresis, jnp.int32),
            consecutive_skips=zero_count(),
            total_skips=zero_count(),
            at_min=zero_count(),
            underflows=zero_count(),
            inner_state=inner.init(params),
        )
        # in a shard_map, what each device decides for itself differs between them
        own = zero_norm(params, axis_name=axis_name)
        return jax.tree.map(lambda x: varying_like(own, x), state)

    def update(updates, state, params=None, **extra):
        finite, vanished = examined(updates, axis_name)
        new = moved(state, rule, finite)
        stuck = new.at_min > 0
        updates, inner_state = update_if(
            finite | stuck if escalates else finite,
            inner,
            updates,
            state.inner_state,
            params,
            extra,
            else_zero=True,
            prepare=lambda scaled: unscaled(scaled, state.scale),
        )
        seen = safe_increment(state.underflows)
        underflows = jnp.where(finite & vanished, seen, state.underflows)
        return updates, new._replace(underflows=underflows, inner_state=inner_state)

    return init, update


def _is_guarded(tx: GradientTransformation) -> bool:
    """Say whether a guard keeps gradients that are not finite from all that moves.

    It is a guard, or leads to one by links that average or clip, which keep nothing.
    A guard of a part, such as one under `masked`, does not protect the rest.
    """
    if tx.traits.stage == "guard":
        return True
    if links := links_of(tx):
        *before, last = links
        harmless = all(x.traits.stage in ("reduce", "clip") for x in before)
        return harmless and _is_guarded(last)
    parts = [
        x for x in tx.call.arguments.values() if isinstance(x, GradientTransformation)
    ]
    return tx.name in _OPEN and len(parts) == 1 and _is_guarded(parts[0])
