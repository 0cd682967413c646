"""Run a function over the microbatches of a batch, one after the other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core import ArgumentError, ShapeError, check_count
from gradtx.microbatching._accumulators import AccumulationType, gathering
from gradtx.microbatching._reshape import reshape_batch_axis


def microbatch(
    fun: Callable[..., Any],
    argnums: int | Sequence[int],
    microbatch_size: int | None,
    accumulator: Any = AccumulationType.SUM,
    *,
    argnames: str | Sequence[str] = (),
    in_axes: int | Sequence[int] = 0,
    num_real_microbatches: int | jax.Array | None = None,
) -> Callable[..., Any]:
    """Return a function that evaluates `fun` on microbatches and gathers the results.

    `result ← accumulate(fun(x_0), fun(x_1), …)` for microbatches `x_i` of the batch

    Memory for intermediate values is that of one microbatch. Sums and means are taken
    in 32 bits or more and rounded once. Microbatches are strided: see
    `reshape_batch_axis`.

    Args:
      fun: a function of a batch, whose result is the sum, the mean or the
        concatenation of its results for parts of the batch.
      argnums: which positional arguments have a batch axis.
      microbatch_size: rows of a microbatch, which must divide the batch; `None` for
        `fun` itself.
      accumulator: how to gather: an `AccumulationType`, an `Accumulator`, or a tree of
        these that is a prefix of the result of `fun`.
      argnames: which keyword arguments have a batch axis.
      in_axes: the batch axis, of all these arguments or of each: those of `argnums`
        first, then those of `argnames`.
      num_real_microbatches: how many microbatches to execute; may be traced, so that
        batches of several sizes, padded to one, compile once. By default all.

    Returns:
      A function with the arguments of `fun`.

    Raises:
      ArgumentError: if a size is no integer of 1 or more, if the axes do not match
        the arguments, or if `accumulator` holds anything else.
      ShapeError: if batches differ in size, or a microbatch does not divide them.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> kinds = (gradtx.AccumulationType.CONCAT, gradtx.AccumulationType.SUM)
      >>> fun = lambda x: (x + 1, jnp.sum(3 * x))
      >>> twice = gradtx.microbatch(fun, 0, microbatch_size=2, accumulator=kinds)
      >>> twice(jnp.array([1, 2, 3, 4]))
      (Array([2, 3, 4, 5], dtype=int32), Array(30, dtype=int32))

    Source: gradient accumulation, Ott et al. 2018, arXiv:1806.00187, section 3; here
    of any function.

    Differs from optax: sums of bfloat16 and float16 results are taken in float32;
    a number of real microbatches beyond all of them means all.
    """
    if microbatch_size is None:
        return fun
    check_count(1, microbatch_size=microbatch_size)
    nums = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    names = (argnames,) if isinstance(argnames, str) else tuple(argnames)
    places = (*nums, *names)
    axes = (in_axes,) * len(places) if isinstance(in_axes, int) else tuple(in_axes)
    if len(axes) != len(places):
        raise ArgumentError(
            f"in_axes must name one axis for each of {list(places)}, got {axes}."
        )

    @functools.wraps(fun)
    def microbatched(*args: Any, **kwargs: Any) -> Any:
        batches = [args[p] if isinstance(p, int) else kwargs[p] for p in places]
        total = _batch_size(batches, axes, places)
        if total % microbatch_size:
            raise ShapeError(
                f"the batch, of size {total}, must be divisible by "
                f"microbatch_size={microbatch_size}."
            )
        count = total // microbatch_size
        split = [
            reshape_batch_axis(batch, microbatch_size, axis)
            for batch, axis in zip(batches, axes, strict=True)
        ]

        def evaluate(index: Any) -> Any:
            positional, named = list(args), dict(kwargs)
            for place, axis, batch in zip(places, axes, split, strict=True):
                into: Any = positional if isinstance(place, int) else named
                # counted from the end, the axis of the rows lies behind it now
                into[place] = _taken(batch, index, axis if axis >= 0 else axis - 1)
            return fun(*positional, **named)

        gather = gathering(accumulator, count)
        stop = count
        if num_real_microbatches is not None:
            stop = jnp.minimum(jnp.asarray(num_real_microbatches, jnp.int32), count)
        carry = lax.fori_loop(
            0,
            stop,
            lambda i, carry: gather.update(carry, evaluate(i), i),
            gather.init(jax.eval_shape(evaluate, jnp.int32(0))),
        )
        return gather.finalize(carry)

    return microbatched


def _taken(batch: Any, index: Any, axis: int) -> Any:
    """Return one microbatch."""
    return jax.tree.map(
        lambda x: lax.dynamic_index_in_dim(x, index, axis, keepdims=False), batch
    )


def _batch_size(
    batches: Sequence[Any], axes: Sequence[int], places: Sequence[Any]
) -> int:
    """Return the one size that all batches have."""
    sizes = {}
    for place, axis, batch in zip(places, axes, batches, strict=True):
        for x in jax.tree.leaves(batch):
            if not -x.ndim <= axis < x.ndim:
                raise ShapeError(
                    f"argument {place!r} has a leaf of shape {x.shape}, which has no "
                    f"axis {axis}."
                )
            sizes.setdefault(x.shape[axis], place)
    if not sizes:
        raise ArgumentError(
            "name an argument with a batch axis in argnums or argnames."
        )
    if len(sizes) > 1:
        found = ", ".join(f"{n} in argument {place!r}" for n, place in sizes.items())
        raise ShapeError(f"all batches must have one size, got {found}.")
    return next(iter(sizes))
