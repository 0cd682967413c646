"""Multiply a loss by the scale that an optimizer's state holds, and watch the scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import (
    ArgumentError,
    DivergedError,
    DtypeError,
    Field,
    OptState,
    check_count,
    dtype_of,
    fields,
    working,
)
from gradtx.precision._scale import LossScaleState


def loss_scale(opt_state: OptState) -> jax.Array:
    """Return the scale by which the next loss is to be multiplied.

    Args:
      opt_state: a state that holds that of one loss scaling, at any depth: under
        `accumulate`, in a chain, in a `TrainState` or `nnx.Optimizer` of Flax.

    Raises:
      ArgumentError: if there is no loss scaling in the state, or more than one.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.accumulate(gradtx.static_loss_scaling(gradtx.sgd(1.0), 8), every=2)
      >>> float(gradtx.precision.loss_scale(tx.init(jnp.zeros(1))))
      8.0
    """
    return _found(opt_state, "loss_scale")["scale"]


def scale_loss(loss: Any, opt_state: OptState) -> jax.Array:
    """Return `loss·scale`, in float32 or wider, for differentiation.

    Args:
      loss: a scalar, or losses of examples. The derivative of a float16 loss would be
        the scale in float16, which ends at 65504: compute it from float16 outputs in
        float32.
      opt_state: as in `loss_scale`. No derivative goes through it.

    Raises:
      ArgumentError: if there is no loss scaling in the state, or more than one.
      DtypeError: if the loss is float16, complex or integer.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> tx = gradtx.static_loss_scaling(gradtx.sgd(1.0), 8)
      >>> state = tx.init(jnp.zeros(1))
      >>> gradtx.precision.scale_loss(jnp.float32(0.5), state)
      Array(4., dtype=float32)
    """
    scale = _found(opt_state, "scale_loss")["scale"]
    return _times(loss, scale)


def value_and_grad(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
) -> Callable[..., Any]:
    """Return a function of a state and the arguments of `fun`: value and scaled gradient.

    `value, grads = value_and_grad(loss_fn)(opt_state, params, batch)`

    The gradients are those of `scale·fun`, for `tx.update`; the value is that of
    `fun`, in float32 or wider.

    Args:
      fun: a function that returns a scalar loss, no float16.
      argnums: the arguments to differentiate by, counted without the state.
      has_aux: whether `fun` returns a pair of the loss and anything else.

    Returns:
      `(opt_state, *args, **kwargs) -> (value, grads)`, or `((value, aux), grads)` with
      `has_aux`. It raises as `scale_loss` does.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.static_loss_scaling(gradtx.sgd(1.0), 8)
      >>> params = jnp.float32(3.0)
      >>> loss_fn = lambda w: w * w
      >>> value, grads = gradtx.precision.value_and_grad(loss_fn)(tx.init(params), params)
      >>> float(value), float(grads)
      (9.0, 48.0)
    """

    def differentiated(opt_state: OptState, *args: Any, **kwargs: Any) -> Any:
        scale = _found(opt_state, "value_and_grad")["scale"]

        def scaled(*args: Any, **kwargs: Any) -> Any:
            returned = fun(*args, **kwargs)
            loss, aux = returned if has_aux else (returned, None)
            return _times(loss, scale), (working(loss), aux)

        gradient = jax.value_and_grad(scaled, argnums, has_aux=True)
        (_, (value, aux)), grads = gradient(*args, **kwargs)
        return ((value, aux), grads) if has_aux else (value, grads)

    return differentiated


def check(opt_state: OptState, *, patience: int = 1) -> None:
    """Raise where gradients are not finite at the smallest loss scale.

    Waits until the state is computed: call it every few hundred updates, or where the
    loss is looked at anyway.

    Args:
      opt_state: as in `loss_scale`.
      patience: gradients in a row that are left out there before it raises, 1 or more.

    Raises:
      DivergedError: if so many were left out.
      ArgumentError: if there is no loss scaling in the state, or more than one.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.dynamic_loss_scaling(gradtx.sgd(1.0))
      >>> gradtx.precision.check(tx.init(jnp.zeros(1)))
    """
    check_count(1, patience=patience)
    found = jax.device_get(_found(opt_state, "check"))
    bad, scale = int(found["at_min"]), float(found["scale"])
    if bad >= patience:
        raise DivergedError(
            f"the last {bad} gradients in a row were not finite at a loss scale of "
            f"{scale:g}, which may not be lowered; {int(found['total_skips'])} were "
            "left out in all. The loss itself is not finite, or its gradients overflow "
            "without a scale. Go back to an earlier checkpoint with a smaller learning "
            "rate, or look for the first NaN: gradtx.observe(tx, per_leaf=True).",
            "check",
        )


def _times(loss: Any, scale: jax.Array) -> jax.Array:
    dtype = dtype_of(loss)
    if dtype == jnp.float16 or not jnp.issubdtype(dtype, jnp.floating):
        raise DtypeError(
            f"the loss has dtype {dtype}: a scaled loss must be float32, or its "
            "derivative leaves the range of its dtype at once. Compute it in float32 "
            "from the outputs of the model: loss_fn(outputs.astype(jnp.float32), ...).",
            "scale_loss",
        )
    loss = working(loss)
    return loss * jax.lax.stop_gradient(scale).astype(loss.dtype)


def _found(opt_state: OptState, asked: str) -> dict[str, jax.Array]:
    """Return the fields of the only state of a loss scaling in a state."""
    found: dict[str, dict[str, jax.Array]] = {}
    for field in fields(getattr(opt_state, "opt_state", opt_state)):
        if field.state == LossScaleState.__name__:
            path = field.path.rpartition(".")[0]
            found.setdefault(path, {})[field.name] = _array(field)
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        places = ", ".join(path or "the state itself" for path in sorted(found))
        raise ArgumentError(
            f"there are {len(found)} loss scales in the state, at {places}: which one "
            "multiplies the loss cannot be told. Scale once, around the whole optimizer.",
            asked,
        )
    raise ArgumentError(
        f"there is no loss scale in {type(opt_state).__name__}. Give the state of an "
        "optimizer that is wrapped in gradtx.dynamic_loss_scaling.",
        asked,
    )


def _array(field: Field) -> jax.Array:
    """Return the array of a field, without what Flax puts around it."""
    return jax.tree.leaves(field.value)[0]
