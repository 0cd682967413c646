"""Aggregate the gradients of examples with differential privacy."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import (
    ArgumentError,
    Key,
    Numeric,
    any_shape,
    cast,
    check_non_negative,
    check_positive,
    dtype_of,
    key_data,
    keys_like,
    map_leaves,
    next_keys,
    shape_of,
    transformation,
)
from gradtx.transforms._per_example import per_example_global_norm_clip


class DifferentiallyPrivateAggregateState(NamedTuple):
    """The state of `differentially_private_aggregate`.

    Attributes:
      rng_key: the data of the key of the next noise, plain integers that any file
        format can hold.
    """

    rng_key: Key


@transformation(stage="clip", reach="tree", stochastic=True, form="examples")
def differentially_private_aggregate(
    l2_norm_clip: Numeric,
    noise_multiplier: Numeric,
    key: jax.Array | int | None = None,
    *,
    seed: int | None = None,
):
    """Bound the gradient of each example, sum them, add noise, and take the mean.

    `u ← (Σ_i g_i·min(1, l2_norm_clip/‖g_i‖) + l2_norm_clip·noise_multiplier·N(0, 1)) / B`,
    i over the B examples of a batch

    Updates are gradients per example, of shape `(B, *shape)`, as `jax.vmap(jax.grad(f))`
    makes them; what comes out has the parameters' shapes. It stands first in a chain,
    and whatever averages over batches comes after it. Each leaf draws from a key of its
    own, derived from its path. Which privacy a run spends is for an accountant to say.

    Args:
      l2_norm_clip: the largest norm of one example, over all leaves; above 0.
      noise_multiplier: standard deviation of the noise on the sum, in units of
        `l2_norm_clip`, 0 or more.
      key: a key of `jax.random`, or an integer to make one from.
      seed: the same integer under its older name.

    Raises:
      ArgumentError: if a number is out of range, or not exactly one of `key` and `seed`
        is given: noise that an adversary can compute protects nobody.
      ShapeError: if the leaves do not share a leading axis.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.differentially_private_aggregate(1.0, 0.0, key=0)
      >>> grads = {"w": jnp.array([[3.0, 4.0], [0.0, 0.5]])}  # two examples
      >>> tx.update(grads, tx.init(None))[0]["w"].round(3).tolist()
      [0.3..., 0.6...]

    Source: Abadi et al. 2016, arXiv:1607.00133, Algorithm 1.

    Differs from optax: without a key it raises, where optax warns and uses key 0; norms,
    sums and noise are float32 or wider, so that float16 cannot escape the bound; keys go
    by path; a complex number gets the noise in both its parts.
    """
    check_positive(l2_norm_clip=l2_norm_clip)
    check_non_negative(noise_multiplier=noise_multiplier)
    if (key is None) == (seed is None):
        raise ArgumentError("give exactly one of key= and seed=, such as key=0.")
    start: Any = seed if key is None else key

    def init(params):
        return DifferentiallyPrivateAggregateState(key_data(start))

    def update(updates, state, params=None, **extra):
        following, now = next_keys(state.rng_key, start)
        leaves, structure = jax.tree.flatten(updates)
        used = [i for i, g in enumerate(leaves) if dtype_of(g) != jax.dtypes.float0]
        sums: list[Any] = []
        if used:
            given = [leaves[i] for i in used]
            sums, _ = per_example_global_norm_clip(given, l2_norm_clip)
        made: list[Any] = [
            np.zeros(shape_of(g)[1:], dtype_of(g)) for g in leaves
        ]  # what float0 becomes
        for i, total in zip(used, sums, strict=True):
            made[i] = total
        keys = keys_like(now, updates)

        def leaf(total, own_key, *, clip, multiplier, examples):
            noise = jax.random.normal(own_key, total.shape, total.dtype)
            if jnp.iscomplexobj(noise):
                noise = noise * math.sqrt(2)  # so that each part has the deviation
            return (total + clip * multiplier * noise) / examples

        mean = map_leaves(
            leaf,
            structure.unflatten(made),
            any_shape(keys),
            clip=l2_norm_clip,
            multiplier=noise_multiplier,
            examples=shape_of(leaves[used[0]])[0] if used else 1,
        )
        mean = [
            cast(u, dtype_of(g)) if i in used else u
            for i, (u, g) in enumerate(zip(jax.tree.leaves(mean), leaves, strict=True))
        ]
        new = DifferentiallyPrivateAggregateState(following)
        return structure.unflatten(mean), new

    return init, update
