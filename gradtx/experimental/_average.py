"""Average updates over examples and over microbatches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import (
    Count,
    GradientTransformation,
    PerParam,
    Scalar,
    cast,
    chain,
    check_count,
    dtype_of,
    identity,
    init_empty_state,
    map_leaves,
    safe_increment,
    working,
    zero_count,
    zeros_like,
)
from gradtx.experimental._aggregator import Aggregator, MaybeAxis


class AccumulateAvgUpdatesState(NamedTuple):
    """The state of `accumulate_avg_updates`.

    Attributes:
      micro_step: microbatches since the last emitted mean.
      ready: whether the last update emitted one.
      avg_grad: the mean since then.
    """

    micro_step: Count
    ready: Scalar
    avg_grad: PerParam


def average_per_element_updates(per_elt_axis: int | Sequence[int] = 0) -> Aggregator:
    """Replace updates of single examples by their mean.

    `u ← mean(g, per_elt_axis)`, taken in 32 bits or more

    Args:
      per_elt_axis: the axis of the examples, or several.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.experimental import aggregating
      >>> tx = aggregating.average_per_element_updates()
      >>> tx.update(jnp.array([[1.0, 2.0], [3.0, 6.0]]), tx.init(None))[0].tolist()
      [2.0, 4.0]

    Source: the minibatch mean of stochastic gradient descent.
    """

    def average_per_element_updates(updates, state, params=None, **extra):
        mean = lambda x: jnp.mean(x, axis=axes_of(per_elt_axis))
        return reduced(mean, updates, per_elt_axis), state

    return Aggregator(init_empty_state, average_per_element_updates)


def accumulate_avg_updates(accumulation_steps: int) -> GradientTransformation:
    """Emit the mean of every `accumulation_steps` updates, and 0 in between.

    `avg_grad ← avg_grad + (g − avg_grad)/n` for the n-th update of a round; at the
    last of a round `u ← avg_grad`, `avg_grad ← 0`, else `u ← 0`

    In `process` the postprocessor rests in between. By itself it does not make the
    links after it rest: for that, use `gradtx.accumulate`.

    Args:
      accumulation_steps: updates of a round, 1 or more; 1 is the identity.

    Raises:
      ArgumentError: if `accumulation_steps` is no integer of 1 or more.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.experimental import aggregating
      >>> tx = aggregating.accumulate_avg_updates(2)
      >>> state = tx.init(jnp.zeros(1))
      >>> for g in (1.0, 4.0):
      ...     updates, state = tx.update(jnp.array([g]), state)
      >>> updates.tolist(), bool(state.ready)
      ([2.5], True)

    Source: Ott et al. 2018, arXiv:1806.00187, section 3 (cumulative updates).
    """
    check_count(1, accumulation_steps=accumulation_steps)
    if accumulation_steps == 1:
        return identity()

    def init(params):
        return AccumulateAvgUpdatesState(
            zero_count(), jnp.array(False), zeros_like(params, wide=True)
        )

    def accumulate_avg_updates(updates, state, params=None, **extra):
        step = safe_increment(state.micro_step)
        ready = step >= accumulation_steps

        def leaf(g, mean, *, n):  # g, mean: one leaf, same shape
            mean = mean + (g - mean) / n
            return jnp.where(ready, mean, 0), jnp.where(ready, 0, mean)

        updates, mean = map_leaves(leaf, updates, state.avg_grad, outputs=2, n=step)
        return updates, AccumulateAvgUpdatesState(
            jnp.where(ready, 0, step), ready, mean
        )

    return GradientTransformation(init, accumulate_avg_updates)


def average_incrementally_updates(
    per_elt_axis: MaybeAxis, accumulation_steps: int
) -> GradientTransformation:
    """Average over examples, over microbatches, or over both.

    `average_per_element_updates`, then `accumulate_avg_updates`

    Args:
      per_elt_axis: the axis of the examples, or several; `None` if the updates are
        means already.
      accumulation_steps: as in `accumulate_avg_updates`.

    Returns:
      An `Aggregator`, or a plain transformation where `per_elt_axis` is `None`.

    Raises:
      ArgumentError: if `accumulation_steps` is no integer of 1 or more.

    Source: as for its two parts.
    """
    over_time = accumulate_avg_updates(accumulation_steps)
    if per_elt_axis is None:
        return over_time
    both = chain(average_per_element_updates(per_elt_axis), over_time)
    return Aggregator(both.init, both.update)


def axes_of(axis: int | Sequence[int]) -> tuple[int, ...]:
    """Return axes as a tuple."""
    return (axis,) if isinstance(axis, int) else tuple(axis)


def reduced(
    reduce: Callable[[jax.Array], jax.Array], tree: Any, axis: int | Sequence[int]
) -> Any:
    """Reduce every leaf over `axis` in 32 bits or more, to its own dtype.

    Integers have no gradient: their float0 leaves lose the axes and stay float0.
    """

    def leaf(x: Any) -> Any:
        if dtype_of(x) != jax.dtypes.float0:
            return cast(reduce(working(x)), dtype_of(x))
        lost = {a % x.ndim for a in axes_of(axis)}
        shape = [n for i, n in enumerate(x.shape) if i not in lost]
        return np.zeros(shape, jax.dtypes.float0)

    return jax.tree.map(leaf, tree)


def batch_size(x: Any, axis: int | Sequence[int]) -> int:
    """Return how many examples a leaf holds along `axis`."""
    return math.prod(x.shape[a] for a in axes_of(axis))
