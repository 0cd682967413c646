"""Check what a guard is told to do, and do what needs numbers alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import (
    ArgumentError,
    AxisName,
    GradientTransformation,
    Numeric,
    check_count,
    check_positive,
    is_static,
    links_of,
)


def check_window(sigmas: Numeric | None, watch: str, window: int, warm_up: Any) -> int:
    """Return how many numbers a window needs before anything is a spike.

    Raises:
      ArgumentError: if an argument is out of its range.
    """
    check_positive("By default no step is a spike.", sigmas=sigmas)
    check_count(2, window=window)
    if watch not in ("norm", "loss"):
        raise ArgumentError(f"watch must be 'norm' or 'loss', got {watch!r}.")
    if warm_up is None:
        return max(2, window // 4)
    check_count(2, warm_up=warm_up)
    if warm_up > window:
        raise ArgumentError(
            f"warm_up must be at most window, got {warm_up!r} and {window!r}: no more "
            "numbers than that are kept."
        )
    return warm_up


def check_patience(roll_back_after: int | None, raise_after: int | None) -> None:
    """Raise where roll-backs could not help before a person is called."""
    if roll_back_after is not None:
        check_count(1, roll_back_after=roll_back_after)
    if raise_after is not None:
        check_count(1, raise_after=raise_after)
    if None not in (roll_back_after, raise_after) and raise_after <= roll_back_after:  # pyright: ignore
        raise ArgumentError(
            f"raise_after must be more than roll_back_after, got {raise_after!r} and "
            f"{roll_back_after!r}: a roll-back must have time to help."
        )


def check_back_off(
    inner: GradientTransformation, back_off: Numeric, smallest: Numeric
) -> bool:
    """Return whether updates may be made smaller.

    Raises:
      ArgumentError: if they must not, or an argument is out of its range.
    """
    for name, value in {"back_off": back_off, "smallest": smallest}.items():
        if is_static(value) and not 0 < value <= 1:
            raise ArgumentError(
                f"{name} must lie in (0, 1], got {value!r}. It multiplies updates; 1 "
                "leaves them as they are."
            )
    if is_static(back_off) and back_off == 1:
        return False
    if inner.traits.form == "pairs":
        raise ArgumentError(
            f"back_off must be 1 around {inner.name}, whose updates must be applied as "
            "they are. Guard the optimizer inside instead."
        )
    return True


def check_alone(inner: GradientTransformation, axis_name: AxisName | None) -> None:
    """Raise where devices that wait for one another would decide for themselves."""
    if axis_name is None and (found := _averages(inner)):
        raise ArgumentError(
            f"devices must decide together, since {found.name} averages over them: give "
            f"axis_name={found.call.arguments['axis_name']!r}."
        )


def is_cheap(inner: GradientTransformation) -> bool:
    """Say whether `inner` may run twice: it does no known costly work."""
    evaluates = inner.traits.needs & {"value_fn", "obj_fn", "grad_fn"}
    return not (evaluates or inner.traits.shaped)


def next_factor(
    factor: jax.Array,
    recovery: jax.Array,
    bad: jax.Array,
    back_off: Numeric,
    smallest: Numeric,
    recover_after: int,
) -> tuple[jax.Array, jax.Array]:
    """Return the factor of the next step, and good steps in a row towards raising it."""
    single = lambda x: jnp.asarray(x, factor.dtype)
    lowered = jnp.maximum(factor * single(back_off), single(smallest))
    raised = jnp.minimum(factor * single(1 / back_off), 1)
    due = (recovery >= recover_after) & (factor < 1)
    after = jnp.where(bad, lowered, jnp.where(due, raised, factor))
    return after, jnp.where(due, 0, recovery)


def is_exhausted(
    row: jax.Array,
    attempts: jax.Array,
    roll_back_after: int | None,
    raise_after: int | None,
) -> jax.Array:
    """Return whether so many bad steps, or roll-backs, did not help."""
    if raise_after is None:
        return jnp.zeros_like(row, bool)
    stuck = row >= raise_after
    if roll_back_after is None:
        return stuck
    return stuck | (attempts >= -(-raise_after // roll_back_after))


def _averages(tx: GradientTransformation) -> GradientTransformation | None:
    """Return a link that averages over named axes, if there is one inside."""
    if tx.traits.stage == "reduce" and tx.call.arguments.get("axis_name") is not None:
        return tx
    is_one = lambda x: isinstance(x, GradientTransformation)
    inside = jax.tree.leaves(list(tx.call.arguments.values()), is_leaf=is_one)
    parts = [*links_of(tx), *filter(is_one, inside)]
    return next(filter(None, map(_averages, parts)), None)
