"""Turn the gradients of single examples into updates, and measure how they differ.

grads = jax.vmap(jax.grad(loss), (None, 0))(params, batch)   (batch, *shape)
updates, state = tx.update(grads, state)                     shape
"""

from gradtx.experimental._aggregator import (
    AggregatedUpdates as AggregatedUpdates,
    Aggregator as Aggregator,
    AggregatorUpdateFn as AggregatorUpdateFn,
    MaybeAxis as MaybeAxis,
    PerElementUpdates as PerElementUpdates,
    process as process,
)
from gradtx.experimental._average import (
    AccumulateAvgUpdatesState as AccumulateAvgUpdatesState,
    accumulate_avg_updates as accumulate_avg_updates,
    average_incrementally_updates as average_incrementally_updates,
    average_per_element_updates as average_per_element_updates,
)
from gradtx.experimental._variance import (
    PerElementMeanAndSumSqDiffGradsState as PerElementMeanAndSumSqDiffGradsState,
    PerElementMeanAndVarianceEMAState as PerElementMeanAndVarianceEMAState,
    add_mean_variance_to_opt as add_mean_variance_to_opt,
    get_batch_size_from_per_elt_updates as get_batch_size_from_per_elt_updates,
    get_per_element_mean_and_sum_sq_diff_grads as get_per_element_mean_and_sum_sq_diff_grads,
    get_unbiased_mean_and_variance_ema as get_unbiased_mean_and_variance_ema,
    track_per_element_mean_and_variance_with_ema as track_per_element_mean_and_variance_with_ema,
)
