"""Map a function over rows, a microbatch of them at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from gradtx.core import ArgumentError
from gradtx.microbatching._accumulators import AccumulationType, gathering
from gradtx.microbatching._microbatch import microbatch


def micro_vmap(
    fun: Callable[..., Any],
    in_axes: int | Sequence[int | None] = 0,
    out_axes: Any = 0,
    *,
    microbatch_size: int | None = None,
    vmap_fn: Callable[..., Any] = jax.vmap,
    accumulator: Any = AccumulationType.CONCAT,
    num_real_microbatches: int | jax.Array | None = None,
) -> Callable[..., Any]:
    """Return `fun` mapped over rows: `jax.vmap` with a bound on memory.

    `result ← accumulate(fun(row_0), fun(row_1), …)`, vectorised within a microbatch

    With the default the result is that of `jax.vmap`; sums and means over rows are
    gathered without ever holding all results.

    Args:
      fun: a function of one row.
      in_axes: the axis of the rows, of all positional arguments or of each, with
        `None` for one without rows; arguments beyond the last have none. Keyword
        arguments have their rows along axis 0.
      out_axes: 0, the only axis along which results are stacked.
      microbatch_size: rows of a microbatch, which must divide their number; `None`
        for all at once.
      vmap_fn: what maps within a microbatch; called as `vmap_fn(fun, in_axes, 0)`.
      accumulator, num_real_microbatches: as in `microbatch`, by default `CONCAT`.

    Returns:
      A function with the arguments of `fun`, with rows.

    Raises:
      ArgumentError: if `out_axes` is not 0.
      ShapeError: as in `microbatch`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> square = gradtx.micro_vmap(lambda x: x**2, microbatch_size=2)
      >>> square(jnp.arange(6)).tolist()
      [0, 1, 4, 9, 16, 25]

    Source: `jax.lax.map(batch_size=)`, with a choice of how to gather.

    Differs from optax: one axis holds for all positional arguments, as in `jax.vmap`.
    """
    if out_axes != 0:
        raise ArgumentError(
            f"out_axes must be 0, got {out_axes!r}. Move the axis of the result.",
            "micro_vmap",
        )

    @functools.wraps(fun)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        axes = [in_axes] * len(args) if isinstance(in_axes, int) else list(in_axes)
        axes += [None] * (len(args) - len(axes))

        def rows(*args: Any, kwargs: Any) -> Any:
            results = vmap_fn(fun, tuple(axes), 0)(*args, **kwargs)
            return gathering(accumulator, 1).aggregate(results)

        return microbatch(
            rows,
            argnums=[i for i, axis in enumerate(axes) if axis is not None],
            argnames="kwargs",
            microbatch_size=microbatch_size,
            accumulator=accumulator,
            in_axes=[axis for axis in axes if axis is not None] + [0],
            num_real_microbatches=num_real_microbatches,
        )(*args, kwargs=kwargs)

    return mapped
