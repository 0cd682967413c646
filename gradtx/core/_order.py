"""Say in which order new states are written, so that none is copied first."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def after(x: jax.Array, *readers: Any) -> jax.Array:
    """Return `x`, to be written after `readers` are; NaN where one of them is NaN.

    XLA writes a donated state in place if all that reads the old one has run by then.
    It must see that in the data: where no path leads from a reader to the new state,
    it copies the old one first, 4 bytes per parameter on a CPU. Three ways to spare
    the copy, the first that fits:

    - compute the update from the new state in place of the old;
    - end every new state with an operation of two arrays: what one array and scalars
      make (a bound, a sum with eps) is made again in each reader, from the old state;
    - `after`, where the readers are new states themselves, or sums, and share their
      NaN.

    Args:
      x: the new state of one leaf; where a reader is a scalar, the old one, so that an
        operation of two arrays comes last: `b2 * after(nu, total) + (1 - b2) * g`.
      readers: what is computed from the old state: arrays of its shape, or scalars.
    """
    for reader in readers:
        x = jnp.where(jnp.isnan(reader), jnp.nan, x)
    return x
