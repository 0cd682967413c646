"""Define the schedule value: a function from the step to a scalar, with its call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp

from gradtx.core import _call
from gradtx.core._errors import ArgumentError
from gradtx.core._numerics import scalar_dtype
from gradtx.core._types import Numeric, ScalarOrSchedule

P = ParamSpec("P")


@dataclasses.dataclass(frozen=True, repr=False)
class Schedule(_call.Remembered):
    """A function from the step, counted from 0, to a scalar.

    It prints as the call that made it, compares and hashes by that call, pickles by
    name and can be described as data. Any function of the step may stand where a
    schedule is asked for, but only a `Schedule` does all that.

    Args:
      function: `step -> value`, which gets a scalar array: int32, or floating where
        the caller counts in fractions.

    Example:
      >>> import gradtx
      >>> warm = gradtx.linear_schedule(0.0, 1.0, transition_steps=4)
      >>> warm, float(warm(1))
      (linear_schedule(0.0, 1.0, 4), 0.25)
    """

    function: Callable[[jax.Array], Any] = dataclasses.field(compare=False)

    def __call__(self, step: Numeric) -> jax.Array:
        """Return the value at `step`, a scalar of the widest float enabled."""
        return jnp.asarray(self.function(_as_step(step)), scalar_dtype())


def schedule(
    factory: Callable[P, Callable[[jax.Array], Any]],
) -> Callable[P, Schedule]:
    """Turn a factory of functions of the step into a factory of schedules.

    Args:
      factory: a function that returns `step -> value`, or a whole schedule.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> @gradtx.schedule
      ... def sawtooth(peak, period):
      ...     return lambda step: peak * (step % period / period)
      >>> sawtooth(1.0, period=4), float(sawtooth(1.0, period=4)(6))
      (sawtooth(1.0, 4), 0.5)
    """

    def finish(returned: Any, call: _call.Call) -> Schedule:
        if not callable(returned):
            raise ArgumentError(
                f"the factory must return a function of the step, got {returned!r}.",
                factory.__name__,
            )
        return Schedule(getattr(returned, "function", returned), call=call)

    return _call.remembering(factory, Schedule, finish)


def value_at(value: ScalarOrSchedule, step: Numeric) -> jax.Array:
    """Return a number, or a schedule's value at `step`, as a scalar array."""
    found = value(step) if callable(value) else value
    return jnp.asarray(found).astype(scalar_dtype())


def _as_step(step: Numeric) -> jax.Array:
    """Return the step as a scalar array; a Python int beyond int32 stays at its end."""
    if isinstance(step, int):
        step = min(step, jnp.iinfo(jnp.int32).max)
        return jnp.asarray(step, jnp.int32)
    return jnp.asarray(step)
