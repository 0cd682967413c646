"""Look at an objective along a direction: what line searches share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import (
    ArgumentError,
    ShapeError,
    bits,
    cast,
    check_shapes,
    check_structure,
    dtype_of,
    scalar_like,
    sum_leaves,
    working,
)
from gradtx.tree import get


class Line(NamedTuple):
    """An objective along a direction, for those leaves that can move.

    Attributes:
      at: step -> the leaves there.
      objective: leaves -> a scalar of `dtype`.
      slope: derivatives by the leaves -> that by the step.
      moving: a tree like the parameters -> its leaves that can move.
      filled: (leaves, tree like the parameters) -> the tree with these leaves.
      dtype: float32, or float64 if a leaf has 64 bits.
    """

    at: Callable[[jax.Array], list[jax.Array]]
    objective: Callable[[list[jax.Array]], jax.Array]
    slope: Callable[[list[jax.Array]], jax.Array]
    moving: Callable[[Any], list[jax.Array]]
    filled: Callable[[list[jax.Array], Any], Any]
    dtype: Any


def line_of(
    value_fn: Callable[..., Any],
    params: Any,
    updates: Any,
    value: Any,
    grad: Any,
    extra: dict[str, Any],
    kept: Any = None,
) -> Line:
    """Return the line through `params` along `updates`.

    Args:
      value_fn: the objective, of the parameters and of those extra arguments that its
        signature names.
      params: the parameters.
      updates: the direction.
      value: the objective there.
      grad: its gradient there, as `jax.grad` gives it.
      extra: the extra arguments of `update`.
      kept: the gradient in the state, if it holds one.

    Raises:
      TreeMismatchError: if updates or gradient have another structure.
      ShapeError: if they have other shapes.
    """
    trees = {"grad": grad, "state.grad": kept}
    for name, tree in trees.items():
        if tree is None:
            continue
        check_structure(params, tree, "params", name)
        check_shapes(params, tree, name)
    leaves, structure = jax.tree.flatten(params)
    ways = jax.tree.leaves(updates)
    dtype = scalar_like(params).dtype
    free = [i for i, x in enumerate(leaves) if bits(x) and bits(ways[i])]
    known = named_by(value_fn, extra)

    def at(step):
        def moved(x, u):
            double = dtype == jnp.float64 or 64 in (bits(x), bits(u))
            x, u = working(x, double), working(u, double)
            return x + step.astype(dtype).astype(u.dtype).astype(x.dtype) * u

        return [cast(moved(leaves[i], ways[i]), dtype_of(leaves[i])) for i in free]

    def filled(numbers, tree):
        whole = jax.tree.leaves(tree)
        for i, x in zip(free, numbers, strict=True):
            whole[i] = x
        return structure.unflatten(whole)

    def moving(tree):
        whole = jax.tree.leaves(tree)
        return [jnp.asarray(whole[i]) for i in free]

    def objective(numbers):
        return _scalar(value_fn(filled(numbers, params), **known)).astype(dtype)

    def slope(grads):
        product = sum_leaves(lambda g, u: g * u, grads, moving(updates))
        return product.astype(dtype)

    return Line(at, objective, slope, moving, filled, dtype)


def numbers(options: Any, dtype: Any) -> Any:
    """Return a tuple of options with its arrays in `dtype`, its plain numbers as is."""
    return jax.tree.map(
        lambda x: jnp.asarray(x).astype(dtype) if isinstance(x, jax.Array) else x,
        options,
    )


def named_by(fn: Callable[..., Any], extra: dict[str, Any]) -> dict[str, Any]:
    """Return those of the extra arguments that the signature of `fn` names."""
    parameters = inspect.signature(fn).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return extra
    return {k: v for k, v in extra.items() if k in parameters}


def _scalar(value: Any) -> jax.Array:
    value = jnp.asarray(value)
    if value.shape:
        raise ShapeError(
            f"value_fn must return a scalar, got shape {value.shape}. Take the mean."
        )
    return value


def value_and_grad_from_state(value_fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function like `jax.value_and_grad` that reuses what a search computed.

    The line search ended at the next parameters, and its state holds value and gradient
    there. They are computed anew only where the value is not finite, as at the start.

    Args:
      value_fn: the objective: `(params, *args, **kwargs) -> scalar`.

    Returns:
      `(params, *args, state, **kwargs) -> (value, grad)`, where `state` is that of the
      optimizer. It raises `ArgumentError` if the state holds no value or no gradient,
      and `KeyError` if it holds several.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, p = gradtx.lbfgs(), jnp.array([3.0])
      >>> state, f = tx.init(p), lambda p: jnp.sum(p**2)
      >>> value, grad = gradtx.value_and_grad_from_state(f)(p, state=state)
      >>> float(value), grad.tolist()
      (9.0, [6.0])

    Source: Nocedal & Wright 2006, section 3.5: the value that a search ends with.
    """

    def value_and_grad(params: Any, *args: Any, state: Any, **kwargs: Any) -> Any:
        value, grad = get(state, "value"), get(state, "grad")
        if value is None or grad is None:
            raise ArgumentError(
                "the state must hold a value and a gradient, got "
                f"{'no value' if value is None else 'no gradient'}. Use a line search; "
                "backtracking keeps the gradient with store_grad=True.",
                "value_and_grad_from_state",
            )
        leaves, structure = jax.tree.flatten(params)
        free = [i for i, x in enumerate(leaves) if bits(x)]
        kept = jax.tree.leaves(grad)

        def objective(numbers):
            whole = list(leaves)
            for i, x in zip(free, numbers, strict=True):
                whole[i] = x
            return _scalar(value_fn(structure.unflatten(whole), *args, **kwargs))

        def anew():
            numbers = [jnp.asarray(leaves[i]) for i in free]
            found, slopes = jax.value_and_grad(objective)(numbers)
            return found.astype(value.dtype), slopes

        found, slopes = jax.lax.cond(
            jnp.isfinite(value), lambda: (value, [kept[i] for i in free]), anew
        )
        whole = [np.zeros(np.shape(x), jax.dtypes.float0) for x in leaves]
        for i, x in zip(free, slopes, strict=True):
            whole[i] = x
        return found, structure.unflatten(whole)

    return value_and_grad
