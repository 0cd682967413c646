"""Measure how the gradients of single examples vary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import (
    ArgumentError,
    Count,
    GradientTransformation,
    Link,
    MissingArgumentError,
    Numeric,
    PerParam,
    Scalar,
    ShapeError,
    bias_correction,
    capped_abs_sq,
    chain,
    check_count,
    check_decay,
    dtype_of,
    identity,
    init_empty_state,
    map_leaves,
    path_of,
    safe_increment,
    scalar_dtype,
    second_moment_like,
    working,
    zero_count,
    zeros_like,
)
from gradtx.experimental._aggregator import Aggregator, process
from gradtx.experimental._average import axes_of, batch_size, reduced


class PerElementMeanAndSumSqDiffGradsState(NamedTuple):
    """The state of `get_per_element_mean_and_sum_sq_diff_grads` over microbatches.

    Attributes:
      micro_step: microbatches since the last emitted numbers.
      ready: whether the last update emitted them.
      mean_grads: the mean over examples since then.
      sum_sq_diff_grads: the sum of their squared distances from it.
    """

    micro_step: Count
    ready: Scalar
    mean_grads: PerParam
    sum_sq_diff_grads: PerParam


class PerElementMeanAndVarianceEMAState(NamedTuple):
    """The state of `track_per_element_mean_and_variance_with_ema`.

    Attributes:
      count: updates made so far.
      ema_decay: the share of the means that one step keeps.
      mean_grads_ema: running mean of the mean gradients, from 0 on.
      variance_grads_ema: running mean of the variances of single examples, likewise.
    """

    count: Count
    ema_decay: Scalar
    mean_grads_ema: PerParam
    variance_grads_ema: PerParam


def get_batch_size_from_per_elt_updates(
    per_elt_updates: Any, per_elt_axis: int | Sequence[int]
) -> int:
    """Return how many examples there are.

    Args:
      per_elt_updates: a pytree of updates of single examples.
      per_elt_axis: the axis of the examples, or several.

    Raises:
      ShapeError: if two leaves have not the same number.

    Source: a product of shapes.
    """
    sizes: dict[int, str] = {}
    for path, x in jax.tree_util.tree_leaves_with_path(per_elt_updates):
        sizes.setdefault(batch_size(x, per_elt_axis), path_of(path))
    if len(sizes) > 1:
        found = ", ".join(f"{n} in updates{path}" for n, path in sizes.items())
        raise ShapeError(f"all updates must be of as many examples, got {found}.")
    return next(iter(sizes), 0)


def get_per_element_mean_and_sum_sq_diff_grads(
    per_elt_axis: int | Sequence[int] = 0, accumulation_steps: int = 1
) -> Aggregator:
    """Aggregate single examples to their mean and the spread around it.

    `u ← mean(g)`, with `sum_sq_diff_grads = Σ|g − mean(g)|²` and `sample_size` beside
    it; over several microbatches, two samples of mean `m` and spread `s` become one:
    `s ← s_1 + s_2 + |m_2 − m_1|²·n_1·n_2/(n_1 + n_2)`

    Its updates are a pair `(mean, aux)`, meant for `process(aggregator_has_aux=True)`.

    Args:
      per_elt_axis: the axis of the examples, or several.
      accumulation_steps: microbatches whose examples make one sample, 1 or more.

    Raises:
      ArgumentError: if `accumulation_steps` is no integer of 1 or more.

    Source: Chan, Golub & LeVeque 1979, "Updating Formulae and a Pairwise Algorithm for
    Computing Sample Variances", equation 2.1.
    """
    check_count(1, accumulation_steps=accumulation_steps)

    def measured(updates):
        size = get_batch_size_from_per_elt_updates(updates, per_elt_axis)
        axes = axes_of(per_elt_axis)
        mean = reduced(lambda x: jnp.mean(x, axis=axes), updates, axes)
        spread = jax.tree.map(lambda x: _spread(x, axes), updates)
        return mean, spread, size

    def at_once(updates, state, params=None, **extra):
        mean, spread, size = measured(updates)
        return (mean, {"sum_sq_diff_grads": spread, "sample_size": size}), state

    if accumulation_steps == 1:
        return Aggregator(init_empty_state, at_once)

    def init(params):
        return PerElementMeanAndSumSqDiffGradsState(
            zero_count(),
            jnp.array(False),
            zeros_like(params, wide=True),
            second_moment_like(params),
        )

    def in_turn(updates, state, params=None, **extra):
        mean, spread, size = measured(updates)
        step = safe_increment(state.micro_step)
        ready = step >= accumulation_steps

        def leaf(g, mean, spread, new_spread, *, before, now, size):
            # g, mean, spread, new_spread: one leaf, same shape
            delta = g - mean
            mean = mean + delta / now
            spread = spread + new_spread + capped_abs_sq(delta) * (size * before / now)
            emit = lambda x: jnp.where(ready, x, 0)
            keep = lambda x: jnp.where(ready, 0, x)
            return emit(mean), keep(mean), keep(spread), emit(spread)

        mean, mean_grads, sum_sq, spread = map_leaves(
            leaf,
            mean,
            state.mean_grads,
            state.sum_sq_diff_grads,
            spread,
            outputs=4,
            before=state.micro_step,
            now=step,
            size=size,
        )
        seen = jnp.where(ready, size * step, 0)
        return (
            (mean, {"sum_sq_diff_grads": spread, "sample_size": seen}),
            PerElementMeanAndSumSqDiffGradsState(
                jnp.where(ready, 0, step), ready, mean_grads, sum_sq
            ),
        )

    return Aggregator(init, in_turn)


def track_per_element_mean_and_variance_with_ema(
    ema_decay: Numeric = 0.9,
) -> GradientTransformation:
    """Pass updates on, and keep running means of them and of their variance.

    `mean_grads_ema ← ema_decay·mean_grads_ema + (1 − ema_decay)·g`; likewise
    `variance_grads_ema` with `sum_sq_diff_grads / (sample_size − 1)`

    Its `update` needs the extra arguments `sum_sq_diff_grads` and `sample_size`, which
    `get_per_element_mean_and_sum_sq_diff_grads` gives in `process`. The variance of a
    single example counts as 0.

    Args:
      ema_decay: the share of the means that one step keeps, in [0, 1).

    Raises:
      ArgumentError: if `ema_decay` lies outside [0, 1).

    Source: the running means of Kingma & Ba 2014, arXiv:1412.6980, section 3.
    """
    check_decay(ema_decay=ema_decay)

    def init(params):
        return PerElementMeanAndVarianceEMAState(
            zero_count(),
            jnp.asarray(ema_decay, scalar_dtype()),
            zeros_like(params, wide=True),
            second_moment_like(params),
        )

    def track_per_element_mean_and_variance_with_ema(
        updates,
        state,
        params=None,
        *,
        sum_sq_diff_grads=None,
        sample_size=None,
        **extra,
    ):
        if sum_sq_diff_grads is None or sample_size is None:
            raise MissingArgumentError(
                "update needs sum_sq_diff_grads= and sample_size=. Put it behind "
                "get_per_element_mean_and_sum_sq_diff_grads in process(..., "
                "aggregator_has_aux=True)."
            )

        def leaf(g, mean, variance, spread, *, decay, freedom):
            # g, mean, variance, spread: one leaf, same shape
            mean = decay * mean + (1 - decay) * g
            variance = decay * variance + (1 - decay) * (spread / freedom)
            return g, mean, variance

        updates, mean, variance = map_leaves(
            leaf,
            updates,
            state.mean_grads_ema,
            state.variance_grads_ema,
            sum_sq_diff_grads,
            outputs=3,
            decay=ema_decay,
            freedom=jnp.maximum(jnp.asarray(sample_size) - 1, 1),
        )
        count = safe_increment(state.count)
        return updates, PerElementMeanAndVarianceEMAState(
            count, state.ema_decay, mean, variance
        )

    return GradientTransformation(init, track_per_element_mean_and_variance_with_ema)


def get_unbiased_mean_and_variance_ema(state: Any) -> tuple[Any, Any]:
    """Return the running means of gradients and variances, without their start at 0.

    `mean_grads_ema / (1 − ema_decay^count)`, likewise the variances; 0 before the
    first update

    Args:
      state: the state of `track_per_element_mean_and_variance_with_ema`, or one that
        holds it.

    Raises:
      ArgumentError: if the state holds none.

    Source: Kingma & Ba 2014, arXiv:1412.6980, section 3.
    """
    found = _find(state)
    if found is None:
        raise ArgumentError(
            "the state holds no PerElementMeanAndVarianceEMAState. Make the optimizer "
            "with add_mean_variance_to_opt.",
            "get_unbiased_mean_and_variance_ema",
        )
    weight = bias_correction(found.ema_decay, jnp.maximum(found.count, 1))

    def leaf(mean, *, weight):
        return mean / weight

    return (
        map_leaves(leaf, found.mean_grads_ema, weight=weight),
        map_leaves(leaf, found.variance_grads_ema, weight=weight),
    )


def add_mean_variance_to_opt(
    opt: Link,
    ema_decay: Numeric = 0.9,
    per_elt_axis: int | Sequence[int] = 0,
    accumulation_steps: int = 1,
) -> GradientTransformation:
    """Give an optimizer the mean of single examples, and keep their variance.

    `u ← opt(mean(g))`

    Args:
      opt: an optimizer.
      ema_decay: as in `track_per_element_mean_and_variance_with_ema`.
      per_elt_axis, accumulation_steps: as in
        `get_per_element_mean_and_sum_sq_diff_grads`.

    Returns:
      An `Aggregator`. `get_unbiased_mean_and_variance_ema` reads its state.

    Raises:
      ArgumentError: as those two.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> from gradtx.experimental import aggregating
      >>> tx = aggregating.add_mean_variance_to_opt(gradtx.sgd(1.0))
      >>> updates, state = tx.update(jnp.array([[1.0], [3.0]]), tx.init(jnp.zeros(1)))
      >>> mean, variance = aggregating.get_unbiased_mean_and_variance_ema(state)
      >>> updates.tolist(), mean.round(3).tolist(), variance.round(3).tolist()
      ([-2.0], [2.0], [2.0])

    Source: as for its parts.
    """
    return process(
        identity(),
        get_per_element_mean_and_sum_sq_diff_grads(per_elt_axis, accumulation_steps),
        chain(track_per_element_mean_and_variance_with_ema(ema_decay), opt),
        aggregator_has_aux=True,
    )


def _spread(x: Any, axes: tuple[int, ...]) -> Any:
    """Return the sum of squared distances from the mean, real and of 32 bits or more."""
    if dtype_of(x) == jax.dtypes.float0:
        return reduced(lambda x: x, x, axes)
    x = working(x)
    return jnp.sum(capped_abs_sq(x - jnp.mean(x, axis=axes, keepdims=True)), axis=axes)


def _find(state: Any) -> PerElementMeanAndVarianceEMAState | None:
    if isinstance(state, PerElementMeanAndVarianceEMAState):
        return state
    if isinstance(state, dict):
        state = tuple(state.values())
    inside = map(_find, state) if isinstance(state, (tuple, list)) else ()
    return next((found for found in inside if found is not None), None)
