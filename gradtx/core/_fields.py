"""List every field of every state inside a state, with its role."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax

from gradtx.core._chain import is_chain_state
from gradtx.core._roles import Role, readings, roles

_RATES = ("step_size", "learning_rate")


class Field(NamedTuple):
    """One field of a state somewhere inside a state.

    Attributes:
      path: where it is: `scale_by_adam.mu`, `inner_states.decay.inner_state.trace`,
        `[0].count`. Links of chains go by their names; a slash in a key of a dict
        shows as `_`, since names of metrics are cut at slashes.
      role: what it holds; `None` where nothing says so, as in states of optax.
      link: the name of the innermost link of a chain around it; empty outside a chain.
      state: the name of the state's class; empty for what lies in no named tuple.
      name: the name of the field; empty for what lies in no named tuple.
      value: what it holds: an array, or a pytree that may be `Packed`.
      reading: the name of the metric that it is; empty for most. A scalar called
        `step_size` or `learning_rate` is a learning rate in any state.
    """

    path: str
    role: Role | None
    link: str
    state: str
    name: str
    value: Any
    reading: str = ""


def fields(state: Any) -> list[Field]:
    """Return every field of every state inside `state`, in order.

    The state that a field of role `INNER` holds is entered, and so are links of chains,
    dicts, lists and tuples of states. Without a role, what holds a named tuple is taken
    to hold states, and what holds nothing is left out. A copy of a state of before, of
    role `SAVED`, is one field: what it holds is no moment of now.

    Args:
      state: the state of any transformation: of arrays, shape-and-dtypes or tracers; or
        what holds one as `opt_state`, as a `TrainState` and an `nnx.Optimizer` do.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> state = gradtx.adam(1e-3).init({"w": jnp.zeros(2)})
      >>> [(field.path, field.role.value) for field in gradtx.core.fields(state)][:2]
      [('scale_by_adam.count', 'count'), ('scale_by_adam.mu', 'per_param')]
    """
    host = not _is_named(state) and hasattr(state, "opt_state")
    return list(_fields(state.opt_state if host else state, "", ""))


def _fields(node: Any, path: str, link: str) -> Iterator[Field]:
    if is_chain_state(node):
        for name, value in zip(node._fields, node, strict=True):
            yield from _fields(value, _joined(path, name), name)
    elif _is_named(node):
        kinds, cls, told = roles(node), type(node).__name__, readings(node)
        for name, value in zip(node._fields, node, strict=True):
            role, here = kinds.get(name), _joined(path, name)
            if role is Role.INNER or (role is None and _holds_states(value)):
                yield from _fields(value, here, link)
            else:
                number = role in (Role.SCALAR, None) and name in _RATES
                reading = told.get(name, "learning_rate" if number else "")
                yield Field(here, role, link, cls, name, value, reading)
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from _fields(value, _joined(path, key), link)
    elif isinstance(node, (tuple, list)):
        for index, value in enumerate(node):
            yield from _fields(value, f"{path}[{index}]", link)
    elif node is not None:
        yield Field(path, None, link, "", "", node)


def _holds_states(value: Any) -> bool:
    """Say whether a named tuple with fields is anywhere in `value`, or no array is."""
    is_state = lambda x: _is_named(x) and len(x) > 0
    found = jax.tree.leaves(value, is_leaf=is_state)
    return not found or any(map(is_state, found))


def _is_named(node: Any) -> bool:
    return isinstance(node, tuple) and hasattr(node, "_fields")


def _joined(path: str, name: Any) -> str:
    name = str(name).replace("/", "_")
    return f"{path}.{name}" if path else name
