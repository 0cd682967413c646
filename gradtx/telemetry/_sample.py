"""Count magnitudes of evenly spaced elements, and read percentiles off the counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core import AxisName, all_sum, cast, shards
from gradtx.telemetry._histogram import BINS, LOW, PARTS, bin_edges

#: The most elements of a leaf that are looked at. Of more, a percentile moves by less
#: than one percent of the ranks, and counting them would take longer than an update.
MOST = 4096


def strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the steps along each axis that leave at most `MOST` elements.

    They share no factor of 2, 3, 5 or 7 with the lengths of axes, in which heads and
    groups repeat.
    """
    kept = [max(n, 1) for n in shape]
    steps = [1] * len(kept)
    while math.prod(kept) > MOST:
        axis = kept.index(max(kept))
        steps[axis] += 1
        while math.gcd(steps[axis], 210) > 1:
            steps[axis] += 1
        kept[axis] = -(-shape[axis] // steps[axis])
    return tuple(steps)


def sample_size(shape: Sequence[int]) -> int:
    """Return how many elements of a leaf are in its sample."""
    steps = strides(shape)
    return math.prod(-(-n // step) for n, step in zip(shape, steps, strict=True))


def sample(block: jax.Array) -> jax.Array:
    """Return evenly spaced elements of leaves (leaves, *shape), at most `MOST` of each.

    Returns:
      Their magnitudes, (leaves, elements).
    """
    steps = strides(block.shape[1:])

    def spaced(block):
        if max(steps, default=1) > 1:
            block = block[(slice(None), *(slice(None, None, step) for step in steps))]
        return cast(jnp.abs(block.reshape(len(block), -1)), jnp.float32)

    sharding = jax.typeof(block).sharding
    if any(sharding.spec):  # so few are whole on each device of an explicit mesh
        whole = jax.NamedSharding(sharding.mesh, jax.P())
        placed: Any = jax.sharding.auto_axes(spaced, out_sharding=whole)
        return placed(block)
    return spaced(block)


class Counted(NamedTuple):
    """Sampled elements of some leaves, and in which bin each of them lies.

    Attributes:
      index: places in an array of (kinds, leaves, bins), for all kinds.
      first: places in an array of (leaves, bins), for the first kind.
      values: the elements of the first kind.
    """

    index: jax.Array
    first: jax.Array
    values: jax.Array


def counted(samples: Sequence[jax.Array], places: jax.Array, leaves: int) -> Counted:
    """Return where sampled elements of some leaves are to be counted.

    Args:
      samples: for each kind magnitudes, (leaves, elements). What is not finite is left
        out.
      places: the positions of these leaves among all.
      leaves: how many there are.
    """
    column = jnp.stack(samples, 1)  # (leaves, kinds, elements)
    # exponent and first bits of the mantissa: as many parts of each octave
    shift = 23 - int(math.log2(PARTS))
    index = lax.bitcast_convert_type(column, jnp.int32) >> shift
    index = jnp.clip(index - (127 + LOW) * PARTS + 1, 0, BINS - 1)
    leaf = places[:, None, None]
    kind = jnp.arange(len(samples), dtype=jnp.int32)[None, :, None]
    index = index + (kind * leaves + leaf) * BINS
    index = jnp.where(jnp.isfinite(column), index, len(samples) * leaves * BINS)
    flat = lambda x: x.reshape(-1)
    return Counted(flat(index), flat(index[:, 0]), flat(samples[0]))


def counts_of(
    found: Sequence[Counted],
    sizes: Sequence[int],
    sampled: Sequence[int],
    spread: Sequence[int],
    kinds: int,
    axis_name: AxisName | None,
) -> tuple[jax.Array, jax.Array]:
    """Return how many elements of each kind and leaf have which magnitude, and sums.

    A sampled element stands for as many as its leaf has for each one in the sample.

    Args:
      found: sampled elements of all leaves.
      sizes: how many elements each leaf has.
      sampled: how many of them were sampled.
      spread: over how many devices each leaf is sharded.
      kinds: how many kinds there are.
      axis_name: mapped axes over which leaves are sharded.

    Returns:
      Counts of shape (kinds, leaves, bins), and of the first kind the sums of what was
      counted, (leaves, bins).
    """
    shape = (kinds, len(sizes), BINS)
    stands = np.array(sizes, np.float32) / np.maximum(np.array(sampled), 1)
    weight = jnp.asarray(stands, jnp.float32)[:, None]
    index, first, values = (_joined(parts) for parts in zip(*found, strict=True))
    counts = jnp.zeros(math.prod(shape), jnp.int32).at[index].add(1, mode="drop")
    # what every device has the same of is counted once
    stands *= np.array(spread, np.float32) / shards(counts, axis_name)
    weight = jnp.asarray(stands, jnp.float32)[:, None]
    counts = counts.reshape(shape).astype(jnp.float32) * weight[None]
    sums = jnp.zeros(math.prod(shape[1:]), jnp.float32)
    sums = sums.at[first].add(values, mode="drop").reshape(shape[1:]) * weight
    return all_sum(counts, axis_name), all_sum(sums, axis_name)


def _joined(samples: Sequence[jax.Array]) -> jax.Array:
    """Join vectors; XLA's time to compile that grows with the square of their number."""
    parts = list(samples)
    while len(parts) > 1:
        few = [parts[i : i + _FEW] for i in range(0, len(parts), _FEW)]
        # the barrier keeps their parts from being computed in the kernel that joins them
        parts = [jnp.concatenate(lax.optimization_barrier(x)) for x in few]
    return parts[0]


_FEW = 32


def quantiles(counts: jax.Array, sums: jax.Array, shares: Sequence[float]) -> jax.Array:
    """Return magnitudes below which shares of what was counted lie; −1 of nothing.

    Args:
      counts: numbers per bin, (rows, bins).
      sums: the sums of the numbers in each bin, (rows, bins).
      shares: each in [0, 1].

    Returns:
      An array of shape (rows, shares): the means of the bins in which they lie.
    """
    # a running sum; XLA's own takes the square of the bins on a CPU
    bins = jnp.arange(BINS)
    upper = (bins[:, None] <= bins[None, :]).astype(jnp.float32)
    below = jnp.matmul(counts, upper, precision=lax.Precision.HIGHEST)
    total = below[:, -1:]
    edges = jnp.asarray(np.minimum(bin_edges(), np.finfo(np.float32).max), jnp.float32)
    found = []
    for share in shares:
        index = jnp.sum(below < share * total, axis=1, keepdims=True)
        index = jnp.minimum(index, BINS - 1)
        inside = jnp.take_along_axis(counts, index, axis=1)
        mean = jnp.take_along_axis(sums, index, axis=1) / jnp.maximum(inside, 1)
        mean = jnp.clip(mean, edges[index], edges[index + 1])  # a sum may overflow
        found.append(jnp.where(total > 0, mean, -1)[:, 0])
    return jnp.stack(found, axis=1)
