"""Add decaying Gaussian noise to updates."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import (
    ArgumentError,
    Count,
    Key,
    Numeric,
    any_shape,
    check_non_negative,
    key_data,
    keys_like,
    map_leaves,
    next_keys,
    safe_increment,
    scalar_dtype,
    transformation,
    zero_count,
)


class AddNoiseState(NamedTuple):
    """The state of `add_noise`.

    Attributes:
      count: updates made so far.
      rng_key: the data of the key of the next noise, plain integers that any file
        format can hold.
    """

    count: Count
    rng_key: Key


@transformation(stochastic=True)
def add_noise(
    eta: Numeric,
    gamma: Numeric,
    key: jax.Array | int | None = None,
    *,
    seed: int | None = None,
):
    """Add Gaussian noise whose variance falls with the step.

    `u ← g + √(eta / t^gamma)·N(0, 1)`, t = 1, 2, …

    Each leaf draws from a key of its own, derived from its path: adding or moving a
    leaf leaves the noise of the others as it was.

    Args:
      eta: variance of the noise at the first update, 0 or more.
      gamma: how fast the variance falls; 0.55 in the paper.
      key: a key of `jax.random`, or an integer to make one from.
      seed: the same integer under its older name.

    Raises:
      ArgumentError: if `eta` is negative or both `key` and `seed` are given; from
        `init`, if neither is: noise from a key that nobody chose is no noise.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.add_noise(eta=0.01, gamma=0.55, key=0)
      >>> updates, state = tx.update({"w": jnp.zeros(3)}, tx.init({"w": jnp.zeros(3)}))
      >>> updates["w"].shape
      (3,)

    Source: Neelakantan et al. 2015, arXiv:1511.06807, section 3, equation 1.
    """
    check_non_negative(eta=eta)
    if key is not None and seed is not None:
        raise ArgumentError("give only one of key= and seed=, such as key=0.")
    start: Any = seed if key is None else key

    def init(params):
        if start is None:
            raise ArgumentError(
                "give a key, such as key=0: noise from a key that nobody chose is no "
                "noise."
            )
        return AddNoiseState(zero_count(), key_data(start))

    def update(updates, state, params=None, **extra):
        count = safe_increment(state.count)
        following, now = next_keys(state.rng_key, start)
        keys = keys_like(now, updates)
        deviation = jnp.sqrt(eta / count.astype(scalar_dtype()) ** gamma)

        def leaf(g, own_key, *, deviation):
            return g + deviation * jax.random.normal(own_key, g.shape, g.dtype)

        updates = map_leaves(leaf, updates, any_shape(keys), deviation=deviation)
        return updates, AddNoiseState(count, following)

    return init, update
