"""Say how the results of microbatches become one: sum, mean or concatenation."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import ArgumentError, cast, path_of, real_dtype, widened, working
from gradtx.microbatching._reshape import joined


@dataclasses.dataclass(frozen=True)
class Accumulator:
    """A way to gather the results of microbatches, in a loop that carries a state.

    `carry = init(type of x_0)`; `carry = update(carry, x_i, i)` for each microbatch
    `i`; the result is `finalize(carry)`.

    Args:
      init: makes the carry from a tree of `jax.ShapeDtypeStruct` like one result.
      update: `(carry, result, index) -> carry`; the index counts from 0.
      finalize: turns the last carry into the result.
      aggregate: gathers the results of single rows, stacked along axis 0, within one
        microbatch; used by `micro_vmap` and `micro_grad` only.
    """

    init: Callable[[Any], Any]
    update: Callable[[Any, Any, Any], Any]
    finalize: Callable[[Any], Any]
    aggregate: Callable[[Any], Any]


class AccumulationType(enum.Enum):
    """How the results of microbatches become one."""

    MEAN = enum.auto()  #: their sum over the number of all microbatches
    SUM = enum.auto()  #: their sum
    RUNNING_MEAN = enum.auto()  #: the mean over the microbatches that were executed
    CONCAT = enum.auto()  #: one after the other along axis 0, in the batch's order


def gathering(kinds: Any, microbatches: int) -> Accumulator:
    """Return one accumulator for a tree of them, a prefix of the function's results.

    Args:
      kinds: a tree of `Accumulator` and `AccumulationType`.
      microbatches: how many there are, executed or not.
    """
    made = jax.tree.map(lambda kind: _made(kind, microbatches), kinds)

    def over(call: Callable[..., Any], *trees: Any) -> Any:
        return jax.tree.map(call, made, *trees)

    return Accumulator(
        init=lambda values: over(lambda a, v: a.init(v), values),
        update=lambda carry, values, index: over(
            lambda a, c, v: a.update(c, v, index), carry, values
        ),
        finalize=lambda carry: over(lambda a, c: a.finalize(c), carry),
        aggregate=lambda values: over(lambda a, v: a.aggregate(v), values),
    )


class _Carry(NamedTuple):
    """What one leaf has gathered, in 32 bits or more, and the dtype that it will get."""

    gathered: jax.Array
    own: jax.Array  # empty


def _made(kind: Any, microbatches: int) -> Accumulator:
    if isinstance(kind, Accumulator):
        return kind
    match kind:
        case AccumulationType.SUM:
            return _leafwise(_add, lambda x: x, lambda x: jnp.sum(x, axis=0))
        case AccumulationType.MEAN:
            return _leafwise(_add, lambda x: x / microbatches, _mean, inexact=True)
        case AccumulationType.RUNNING_MEAN:
            return _leafwise(_approach, lambda x: x, _mean, inexact=True)
        case AccumulationType.CONCAT:
            return _concatenation(microbatches)
    raise ArgumentError(
        f"an accumulator must be an AccumulationType or an Accumulator, got {kind!r}."
    )


def _add(total: jax.Array, x: jax.Array, index: Any) -> jax.Array:
    return total + x


def _approach(mean: jax.Array, x: jax.Array, index: Any) -> jax.Array:
    count = jnp.asarray(index + 1).astype(real_dtype(mean.dtype))
    return mean + (x - mean) / count.astype(mean.dtype)


def _mean(x: jax.Array) -> jax.Array:
    return jnp.mean(x, axis=0)


def _leafwise(
    update: Callable[..., jax.Array],
    finalize: Callable[[jax.Array], jax.Array],
    aggregate: Callable[[jax.Array], jax.Array],
    inexact: bool = False,
) -> Accumulator:
    """Lift arithmetic on one leaf to trees; it is done in 32 bits or more."""

    def start(path: Any, x: Any) -> _Carry:
        if inexact and not jnp.issubdtype(x.dtype, jnp.inexact):
            raise ArgumentError(
                f"MEAN and RUNNING_MEAN are of floating results, got {x.dtype} for "
                f"result{path_of(path)}. Convert it, or take the SUM."
            )
        return _Carry(jnp.zeros_like(x, widened(x.dtype)), jnp.zeros(0, x.dtype))

    def step(index: Any) -> Callable[..., _Carry]:
        return lambda x, c: _Carry(update(c.gathered, working(x), index), c.own)

    return Accumulator(
        init=lambda values: jax.tree_util.tree_map_with_path(start, values),
        update=lambda carry, values, index: jax.tree.map(step(index), values, carry),
        finalize=lambda carry: jax.tree.map(
            lambda c: cast(finalize(c.gathered), c.own.dtype),
            carry,
            is_leaf=lambda c: isinstance(c, _Carry),
        ),
        aggregate=lambda values: jax.tree.map(aggregate, values),
    )


def _concatenation(microbatches: int) -> Accumulator:
    def start(x: Any) -> jax.Array:
        return jnp.stack([jnp.zeros_like(x)] * microbatches)

    return Accumulator(
        init=lambda values: jax.tree.map(start, values),
        update=lambda carry, values, index: jax.tree.map(
            lambda c, x: c.at[index].set(x), carry, values
        ),
        finalize=lambda carry: jax.tree.map(joined, carry),
        aggregate=lambda values: values,
    )
