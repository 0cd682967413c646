"""Add decaying Gaussian noise to updates."""

from __future__ import annotations

import hashlib
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
    map_leaves,
    path_of,
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


@transformation
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
      ArgumentError: if `eta` is negative, or not exactly one of `key` and `seed` is
        given: noise from a key that nobody chose is no noise.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.add_noise(eta=0.01, gamma=0.55, key=0)
      >>> updates, state = tx.update({"w": jnp.zeros(3)}, tx.init({"w": jnp.zeros(3)}))
      >>> updates["w"].shape
      (3,)

    Source: Neelakantan et al. 2015, arXiv:1511.06807, section 3, equation 1.
    """
    check_non_negative(eta=eta)
    if (key is None) == (seed is None):
        raise ArgumentError("give exactly one of key= and seed=, such as key=0.")

    start = seed if key is None else key

    def init(params):
        return AddNoiseState(zero_count(), _data(_typed(start)))

    def update(updates, state, params=None, **extra):
        count = safe_increment(state.count)
        impl = jax.random.key_impl(_typed(start))
        last = jax.random.wrap_key_data(state.rng_key, impl=impl)
        following, now = jax.random.split(last)
        keys = jax.tree_util.tree_map_with_path(
            lambda path, _: _key_for(now, path), updates
        )
        deviation = jnp.sqrt(eta / count.astype(scalar_dtype()) ** gamma)

        def leaf(g, own_key, *, deviation):
            return g + deviation * jax.random.normal(own_key, g.shape, g.dtype)

        updates = map_leaves(leaf, updates, any_shape(keys), deviation=deviation)
        return updates, AddNoiseState(count, _data(following))

    return init, update


def _typed(key: Any) -> jax.Array:
    """Return an integer, or the data of a key, as a key that knows its generator."""
    if isinstance(key, int):
        return jax.random.key(key)
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    return jax.random.wrap_key_data(key)


def _data(key: jax.Array) -> jax.Array:
    # a buffer of its own: donating the state must not delete the caller's key
    return jnp.array(jax.random.key_data(key), copy=True)


def _key_for(key: jax.Array, path: Any) -> jax.Array:
    digest = hashlib.sha256(path_of(path).encode()).digest()
    for part in (digest[:4], digest[4:8]):
        key = jax.random.fold_in(key, int.from_bytes(part, "little"))
    return key
