"""Go over trees leaf by leaf, each in one pass: norms, counts, magnitudes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core import (
    AxisName,
    after,
    as_shapes,
    bits,
    leaf_nonfinite,
    leaf_sums,
    shards,
    unpack,
    varying_like,
    working,
)
from gradtx.telemetry._blocks import Block, blocks_of
from gradtx.telemetry._histogram import BINS
from gradtx.telemetry._rows import Rows
from gradtx.telemetry._sample import counted, counts_of, sample_size

#: What trees are called in the names of metrics.
NAMES = {"grads": "gradient", "updates": "update", "params": "param"}


class Plan(NamedTuple):
    """What to measure.

    Attributes:
      rows: the rows of every table.
      effective: whether to measure effective learning rates.
      histograms: whether to keep counts by magnitude.
      replicas: mapped axes over which each device has gradients of its own.
      axis_name: mapped axes over which leaves are sharded.
    """

    rows: Rows
    effective: bool
    histograms: bool
    replicas: AxisName | None
    axis_name: AxisName | None


def norms_of(
    plan: Plan, trees: Mapping[str, Any], pairs: Sequence[tuple[str, str]] = ()
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Take the norms of blocks of leaves, each in one pass over memory.

    They are measured one after the other, so that what one needs in memory is free
    before the next needs it.

    Args:
      plan: what to measure.
      trees: by name, all packed alike, or none of them.
      pairs: names of trees of which to take inner products.

    Returns:
      Columns of one number a leaf: norms by the names of trees, products as "a b"; and
      a number once all are there.
    """
    names, blocks = list(trees), blocks_of(trees)
    columns = [*names, *(f"{a} {b}" for a, b in pairs)]
    if not blocks:
        return dict.fromkeys(columns, zeros(0)), zeros()

    @jax.jit  # traced once for each type of block
    def one(token: jax.Array, *row: Any) -> Any:
        seen = [_after(x, token) for x in row]
        named = dict(zip(names, seen, strict=True))
        dots = [(named[a], named[b]) for a, b in pairs]
        numbers = leaf_sums(seen, dots, axis_name=plan.axis_name)
        return numbers, jnp.nan_to_num(numbers[0, 0])

    token, numbers = zeros(), []
    for block in blocks:
        made, token = one(token, *block.arrays.values())
        numbers.append(made)
    table = _in_order(numbers, blocks)
    return dict(zip(columns, table, strict=True)), token


def nonfinite_of(
    plan: Plan,
    trees: Mapping[str, Any],
    norms: Mapping[str, jax.Array],
    again: Callable[[], Any] | None,
) -> dict[str, jax.Array]:
    """Return how many elements of each leaf are not finite.

    Where all norms are finite there is none, and nothing is counted.

    Args:
      plan: what to measure.
      trees: as in `norms_of`.
      norms: their norms.
      again: as in `measured`: an operand of a branch would have to be in memory.
    """
    none = {name: zeros(len(norms[name])) for name in trees}
    if not blocks_of(trees):
        return none

    def count() -> dict[str, jax.Array]:
        seen = dict(trees)
        if again is not None:
            seen["updates"] = again()

        @jax.jit
        def one(*row: Any) -> Any:
            return leaf_nonfinite(
                [lax.stop_gradient(working(x)) for x in row], axis_name=plan.axis_name
            )

        blocks = blocks_of(seen)
        found = [one(*block.arrays.values()) for block in blocks]
        return dict(zip(seen, _in_order(found, blocks), strict=True))

    finite = jnp.isfinite(jnp.concatenate([norms[name] for name in trees]))
    return either(~jnp.all(finite), count, none)


def _in_order(found: Sequence[jax.Array], blocks: Sequence[Block]) -> jax.Array:
    """Join columns of blocks of leaves, in the order of the leaves of the tree."""
    joined = jnp.concatenate(found, 1)
    order = [place for block in blocks for place in block.places]
    return joined if order == sorted(order) else joined[:, np.argsort(order)]


def magnitudes_of(
    plan: Plan,
    trees: Mapping[str, Any],
    kinds: Sequence[str],
    samples: Callable[[Mapping[str, jax.Array]], list[jax.Array]],
    token: jax.Array,
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Count some elements of blocks of leaves by magnitude.

    Args:
      plan: what to measure.
      trees: as in `norms_of`.
      kinds: what `samples` returns, in its order.
      samples: returns magnitudes of some elements of a block of each tree.
      token: a number to wait for.

    Returns:
      Counts by magnitude of each kind and leaf, with "sums" of the first kind, and a
      number once all are there.
    """
    if not kinds:
        return {}, token
    shapes, blocks = shapes_of(next(iter(trees.values()))), blocks_of(trees)
    if not blocks:
        return dict.fromkeys([*kinds, "sums"], zeros(0, BINS)), token

    @jax.jit  # traced once for each type of block
    def one(places: jax.Array, token: jax.Array, *row: Any) -> Any:
        seen = [_after(x, token) for x in row]
        named = dict(zip(trees, seen, strict=True))
        return counted(samples(named), places, len(shapes))

    found = [
        one(jnp.array(block.places, jnp.int32), token, *block.arrays.values())
        for block in blocks
    ]
    sizes = [math.prod(shape) for shape in shapes]
    sampled = [sample_size(shape) for shape in shapes]
    spread, kinds_, axis = spread_of(plan, trees.values()), len(kinds), plan.axis_name
    counts, sums = counts_of(found, sizes, sampled, spread, kinds_, axis)
    # counts are no NaN either
    last = jnp.where(jnp.isnan(jnp.sum(counts)), jnp.nan, token)
    return dict(zip([*kinds, "sums"], [*counts, sums], strict=True)), last


def _after(x: Any, token: jax.Array) -> jax.Array:
    """Return `x` in 32 bits or more, when the token is there; it has no derivative."""
    return after(lax.stop_gradient(working(x)), token)


def either(condition: jax.Array, yes: Callable[[], Any], kept: Any) -> Any:
    """Return `yes()` or what is kept, of one type on every device."""
    if jax.sharding.get_abstract_mesh().manual_axes:
        kept = varying_like(jax.eval_shape(yes), kept)
    return lax.cond(condition, lambda: varying_like(kept, yes()), lambda: kept)


def zeros(*shape: int) -> jax.Array:
    return jnp.zeros(shape, jnp.float32)


def shapes_of(tree: Any) -> list[tuple[int, ...]]:
    return [x.shape for x in jax.tree.leaves(as_shapes(tree)) if bits(x)]


def spread_of(plan: Plan, trees: Iterable[Any]) -> list[int]:
    """Return over how many devices each leaf of trees that are alike is sharded."""
    if plan.axis_name is None:
        return [1] * len(shapes_of(next(iter(trees))))
    columns = [[shards(x, plan.axis_name) for x in inexact(tree)] for tree in trees]
    return [max(row) for row in zip(*columns, strict=True)]


def inexact(tree: Any) -> list[Any]:
    return [x for x in jax.tree.leaves(unpack(tree)) if bits(x)]
