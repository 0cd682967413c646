"""Take the gradient of every example, transform it, and gather the results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.microbatching._accumulators import AccumulationType
from gradtx.microbatching._vmap import micro_vmap


class IndividualOutputs(NamedTuple):
    """What `micro_grad` returns of each example, along axis 0.

    Attributes:
      values: the values of the function.
      metrics: what `metrics_fn` made of the gradients.
      aux: the auxiliary results of the function, or `None`.
    """

    values: Any
    metrics: Any
    aux: Any


def micro_grad(
    fun: Callable[..., Any],
    has_aux: bool = False,
    argnums: int | Sequence[int] = 0,
    *,
    batch_argnums: int | Sequence[int] = 1,
    keep_batch_dim: bool = True,
    microbatch_size: int | None = None,
    accumulator: Any = AccumulationType.SUM,
    transform_fn: Callable[[Any], Any] = lambda grads: grads,
    metrics_fn: Callable[[Any], Any] = lambda grads: None,
    num_real_microbatches: int | jax.Array | None = None,
) -> Callable[..., tuple[Any, IndividualOutputs]]:
    """Return a function that gathers the transformed gradients of all examples.

    `result ← accumulate(transform_fn(∇fun(example)))`

    For clipping each example's gradient, moments of gradients, and the like. Only one
    microbatch of gradients is held at a time.

    Args:
      fun: a function of parameters and a batch, such as a loss.
      has_aux: whether `fun` returns a pair `(value, aux)`.
      argnums: with respect to which arguments to differentiate.
      batch_argnums: which arguments have examples, along axis 0. Keyword arguments
        have them too.
      keep_batch_dim: whether `fun` gets each example as a batch of one, or without
        that axis.
      microbatch_size: examples of a microbatch, which must divide their number;
        `None` for all at once.
      accumulator: how to gather what `transform_fn` returns, as in `microbatch`.
      transform_fn: a function of one example's gradient.
      metrics_fn: likewise; its results are returned for each example.
      num_real_microbatches: as in `microbatch`. What is returned of examples that
        were not executed is 0.

    Returns:
      A function with the arguments of `fun`. It returns what was gathered, and the
      named tuple `(values, metrics, aux)` of what belongs to each example.

    Raises:
      ArgumentError, ShapeError: as in `microbatch`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> loss = lambda w, x, y: 0.5 * jnp.mean((x @ w - y) ** 2)
      >>> grads = gradtx.micro_grad(
      ...     loss, batch_argnums=(1, 2), transform_fn=lambda g: (g, g**2)
      ... )
      >>> x, y = jnp.ones((4, 1)), jnp.array([0.0, 2.0, 4.0, 6.0])
      >>> grads(jnp.zeros(1), x, y)[0]
      (Array([-12.], dtype=float32), Array([56.], dtype=float32))

    Source: per-example gradients, Goodfellow 2015, arXiv:1510.01799; here by `jax.vmap`.
    """
    batched = (batch_argnums,) if isinstance(batch_argnums, int) else batch_argnums
    with_aux = fun if has_aux else lambda *a, **k: (fun(*a, **k), None)
    derivative = jax.value_and_grad(with_aux, argnums, has_aux=True)

    def example(*args: Any, **kwargs: Any) -> tuple[Any, IndividualOutputs]:
        (value, aux), grads = derivative(*args, **kwargs)
        return transform_fn(grads), IndividualOutputs(value, metrics_fn(grads), aux)

    mapped = micro_vmap(
        example,
        [0 if i in batched else None for i in range(max(batched) + 1)],
        microbatch_size=microbatch_size,
        accumulator=(accumulator, AccumulationType.CONCAT),
        num_real_microbatches=num_real_microbatches,
    )
    if not keep_batch_dim:
        return mapped

    def with_batches_of_one(*args: Any, **kwargs: Any) -> Any:
        alone = lambda x: jnp.expand_dims(x, 1)
        return mapped(
            *(
                jax.tree.map(alone, a) if i in batched else a
                for i, a in enumerate(args)
            ),
            **kwargs,
        )

    return with_batches_of_one
