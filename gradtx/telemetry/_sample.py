"""Count magnitudes of evenly spaced elements, and read percentiles off the counts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core import AxisName, all_sum
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


def sample(x: jax.Array) -> jax.Array:
    """Return evenly spaced elements of an array, at most `MOST`, as a vector."""
    steps = strides(x.shape)
    if max(steps, default=1) > 1:
        x = x[tuple(slice(None, None, step) for step in steps)]
    return x.reshape(-1)


def counts_of(
    samples: Sequence[jax.Array],
    sizes: Sequence[int],
    kinds: int,
    axis_name: AxisName | None,
) -> tuple[jax.Array, jax.Array]:
    """Return how many elements of each kind and leaf have which magnitude, and means.

    A sampled element stands for as many as its leaf has for each one in the sample.

    Args:
      samples: for each leaf the magnitudes of some elements, as many of each kind, one
        kind after the other. What is not finite is left out.
      sizes: how many elements each leaf has.
      kinds: how many kinds there are.
      axis_name: mapped axes over which leaves are sharded.

    Returns:
      Counts of shape (kinds, leaves, bins), and of the first kind the sums of what was
      counted, (leaves, bins).
    """
    shape = (kinds, len(sizes), BINS)
    column = _joined(samples)
    if not column.size:
        return jnp.zeros(shape, jnp.float32), jnp.zeros(shape[1:], jnp.float32)
    lengths = np.array([x.size // kinds for x in samples])
    # the place of each element's bins, and what it stands for
    leaf = np.repeat(np.arange(len(sizes)), lengths * kinds)
    kind = np.concatenate([np.repeat(np.arange(kinds), k) for k in lengths])
    place = jnp.asarray((kind * len(sizes) + leaf) * BINS, jnp.int32)
    weight = jnp.asarray((np.array(sizes) / np.maximum(lengths, 1)), jnp.float32)
    # exponent and first bits of the mantissa: as many parts of each octave
    shift = 23 - int(math.log2(PARTS))
    index = lax.bitcast_convert_type(column, jnp.int32) >> shift
    index = jnp.clip(index - (127 + LOW) * PARTS + 1, 0, BINS - 1) + place
    index = jnp.where(jnp.isfinite(column), index, math.prod(shape))
    counts = jnp.zeros(math.prod(shape), jnp.int32).at[index].add(1, mode="drop")
    counts = counts.reshape(shape).astype(jnp.float32) * weight[None, :, None]
    sums = (
        jnp.zeros(math.prod(shape[1:]), jnp.float32).at[index].add(column, mode="drop")
    )
    sums = sums.reshape(shape[1:]) * weight[:, None]
    return all_sum(counts, axis_name), all_sum(sums, axis_name)


def _joined(samples: Sequence[jax.Array]) -> jax.Array:
    """Join vectors; XLA's time to compile that grows with the square of their number."""
    parts = list(samples)
    while len(parts) > 1:
        few = [parts[i : i + _FEW] for i in range(0, len(parts), _FEW)]
        # the barrier keeps their parts from being computed in the kernel that joins them
        parts = [jnp.concatenate(lax.optimization_barrier(x)) for x in few]
    return parts[0] if parts else jnp.zeros(0, jnp.float32)


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
    below = jnp.cumsum(counts, axis=1)
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
