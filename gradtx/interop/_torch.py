"""Carry the state of an optimizer of torch over to gradtx."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import (
    ArgumentError,
    GradientTransformation,
    MaskedNode,
    Role,
    dtype_of,
    is_chain_state,
    roles,
    shape_of,
)

#: How torch calls what gradtx keeps, by the field of gradtx. Of several, a state has one.
_NAMES = {
    "mu": ("exp_avg", "grad_avg"),
    "nu": ("exp_avg_sq", "exp_inf", "square_avg"),
    "nu_max": ("max_exp_avg_sq",),
    "trace": ("momentum_buffer",),
    "sum_of_squares": ("sum",),
}


def from_torch(
    tx: GradientTransformation,
    state_dict: Mapping[str, Any],
    names: Any,
    *,
    convert: Callable[[Any, np.ndarray], np.ndarray] | None = None,
    step: int | None = None,
) -> Any:
    """Return the state for `tx` that continues from an optimizer of torch.

    For SGD, Adam, AdamW, RMSprop, Adagrad, Adamax, NAdam and RAdam; torch's `amsgrad`
    is gradtx's `amsgrad`. The next step of `tx` equals torch's where the two define the
    same method with the same hyperparameters.

    Args:
      tx: the transformation that goes on. torch's `weight_decay` of all but AdamW is
        `add_decayed_weights` before the optimizer.
      state_dict: what `optimizer.state_dict()` returns.
      names: a pytree structured like the parameters, whose leaves tell which parameter
        of torch belongs there: its index in the optimizer, or its name if the optimizer
        was made from `model.named_parameters()`.
      convert: `(name, array) -> array`, which brings a parameter's moment to the layout
        here, such as a transpose for the weights of `Linear`.
      step: how many updates were made. By default what torch has counted; its SGD
        counts nothing.

    Raises:
      ArgumentError: if a parameter is unknown to the optimizer, or has no such moment.

    Example:
      >>> import gradtx, numpy as np
      >>> old = {"step": 3, "exp_avg": np.ones(2), "exp_avg_sq": np.ones(2)}
      >>> saved = {"state": {0: old}, "param_groups": [{"params": [0]}]}
      >>> state = gradtx.interop.from_torch(gradtx.adam(1e-3), saved, {"w": 0})
      >>> int(state[0].count), state[0].mu["w"].tolist()
      (3, [1.0, 1.0])

    Source: torch.optim 2.13, the `state_dict` of each class.
    """
    entries = _entries(state_dict)
    leaves, structure = jax.tree.flatten(names)
    for name in leaves:
        if name not in entries:
            raise ArgumentError(
                f"{name!r} is no parameter of the optimizer, which has "
                f"{sorted(map(str, entries))}.",
                "from_torch",
            )
    found = [entries[name] for name in leaves]
    steps = [int(np.asarray(_array(e["step"]))) for e in found if "step" in e]
    count = step if step is not None else max(steps, default=0)

    def moment(field: str, old: Any) -> Any:
        made = []
        for name, entry in zip(leaves, found, strict=True):
            key = next((k for k in _NAMES[field] if entry.get(k) is not None), None)
            if key is None:
                raise ArgumentError(
                    f"torch has nothing for {field} of parameter {name!r}; it has "
                    f"{sorted(entry)}.",
                    "from_torch",
                )
            array = _array(entry[key])
            made.append(array if convert is None else convert(name, array))
        tree = structure.unflatten(made)
        if jax.tree.structure(old) == structure:
            return jax.tree.map(
                lambda x, o: jnp.array(x, dtype_of(o), copy=True), tree, old
            )
        return jax.tree.map(  # a mask hides some
            lambda o, x: o if isinstance(o, MaskedNode) else jnp.array(x, dtype_of(o)),
            old,
            tree,
            is_leaf=lambda o: isinstance(o, MaskedNode),
        )

    def filled(node: Any) -> Any:
        if is_chain_state(node):
            return _scaled_traces(type(node)(*map(filled, node)))
        if isinstance(node, dict):
            return {k: filled(v) for k, v in node.items()}
        if not hasattr(node, "_fields"):
            return node
        kinds, made = roles(node), {}
        for field in node._fields:
            old, kind = getattr(node, field), kinds.get(field)
            if kind is Role.COUNT:
                old = jnp.asarray(count, jnp.int32)
            elif kind is Role.INNER:
                old = filled(old)
            elif kind is Role.SAVED and jax.tree.leaves(old):
                raise ArgumentError(
                    f"torch keeps no {field} as {type(node).__name__} does. Convert the "
                    "state of the transformation inside, and put it in a fresh one.",
                    "from_torch",
                )
            elif kind is Role.PER_PARAM:
                if field not in _NAMES:
                    raise ArgumentError(
                        f"{type(node).__name__}.{field} has no counterpart in torch.",
                        "from_torch",
                    )
                old = moment(field, old)
            made[field] = old
        return type(node)(**made)

    shapes = [_shape(entry) for entry in found]
    if convert is not None:
        shapes = [
            shape_of(convert(n, np.zeros(s)))
            for n, s in zip(leaves, shapes, strict=True)
        ]
    params = structure.unflatten([jnp.zeros(s) for s in shapes])
    return filled(tx.init(params))


def _scaled_traces(state: Any) -> Any:
    """Bring momentum that lies behind the learning rate to its scale.

    gradtx's `rmsprop` has the learning rate inside its momentum, torch's does not.
    """
    made, rate = [], None
    for link in state:
        if hasattr(link, "step_size"):
            rate = link.step_size
        elif rate is not None and hasattr(link, "trace"):
            factor = -float(rate)
            trace = jax.tree.map(lambda x, factor=factor: factor * x, link.trace)
            link = link._replace(trace=trace)
        made.append(link)
    return type(state)(*made)


def _entries(state_dict: Mapping[str, Any]) -> dict[Any, Mapping[str, Any]]:
    """Return the state of each parameter by its index, and by its name if it has one."""
    entries = {}
    for group in state_dict["param_groups"]:
        labels = group.get("param_names", group["params"])
        for index, label in zip(group["params"], labels, strict=True):
            entries[index] = entries[label] = state_dict["state"].get(index, {})
    return entries


def _shape(entry: Mapping[str, Any]) -> tuple[int, ...]:
    moments = [
        k for names in _NAMES.values() for k in names if entry.get(k) is not None
    ]
    if not moments:
        raise ArgumentError(
            "torch keeps nothing for a parameter: make the state by tx.init instead.",
            "from_torch",
        )
    return tuple(entry[moments[0]].shape)


def _array(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a tensor; NumPy has no bfloat16
        value = value.detach().cpu()
        value = value.float() if value.dtype.itemsize < 4 else value
        return value.numpy()
    return np.asarray(value)
