"""Apply a function of matrices to a few of them at a time, within one buffer."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

#: How many numbers a chunk holds, unless one matrix has more. Of 2^17 to 2^40, this one
#: was never slower on two cores: less leaves one core idle where matrices have 512
#: rows (1.3 times as slow), more leaves the cache where they have 64 (1.4 times).
CHUNK = 2**20


def chunks_of(matrices: jax.Array) -> int:
    """Return how many chunks `in_chunks` makes.

    It makes one where a mesh with explicit axes shards the matrices over devices: a
    loop cannot take them one after the other.
    """
    batch = matrices.shape[0]
    if jax.typeof(matrices).sharding.spec[0] is not None:
        return 1
    size = -(-batch // min(batch, -(-matrices.size // CHUNK)))
    return -(-batch // size)


def in_chunks(
    function: Callable[[jax.Array], jax.Array], matrices: jax.Array
) -> jax.Array:
    """Return `function(matrices)`, computed for a few matrices at a time.

    What `function` needs besides its result is then as large as one chunk, and its
    program no longer than for one matrix.

    Args:
      function: maps matrices (size, m, n) to as many of the same shape, each by itself,
        and zeros to finite numbers.
      matrices: (batch, m, n).
    """
    batch, chunks = matrices.shape[0], chunks_of(matrices)
    if chunks == 1:
        return function(matrices)
    size = -(-batch // chunks)
    held = jnp.pad(matrices, ((0, chunks * size - batch), (0, 0), (0, 0)))

    def body(i, held):
        part = lax.dynamic_slice_in_dim(held, i * size, size)
        return lax.dynamic_update_slice_in_dim(held, function(part), i * size, 0)

    return lax.fori_loop(0, chunks, body, held)[:batch]
