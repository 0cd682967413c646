"""Map over what a state keeps per parameter, told by its roles."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

from gradtx.core import (
    ArgumentError,
    EveryParam,
    MaskedNode,
    Role,
    is_chain_state,
    roles,
)


def map_params(
    initable: Any,
    f: Callable[..., Any],
    state: Any,
    /,
    *rest: Any,
    transform_non_params: Callable[[Any], Any] | None = None,
    is_leaf: Callable[[Any], bool] | None = None,
) -> Any:
    """Apply a function to everything in a state that has the shapes of the parameters.

    Such are the leaves of the fields with the role `PerParam`: moments, averages,
    copies. What is factored, stacked or reduced per parameter has other shapes, and
    counts among the rest.

    Args:
      initable: the transformation, or its `init`. It is asked only about states that
        have no roles, such as those of optax.
      f: `(x, *one leaf of each rest) -> y`.
      state: the state to map over.
      *rest: trees of the parameters' structure, such as sharding specifications. Where
        the state hides a leaf behind a mask, theirs is passed over.
      transform_non_params: applied to every other leaf; by default they stay.
      is_leaf: where to stop descending into the parameters, as in `jax.tree.map`. If
        it holds for `MaskedNode()`, `f` is called on hidden leaves too.

    Returns:
      A state of the same structure but for what the functions return.

    Raises:
      ArgumentError: if a state without roles cannot be told from `initable`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.adam(1e-3), {"w": jnp.zeros((2, 3))}
      >>> specs = gradtx.tree.map_params(
      ...     tx,
      ...     lambda _, spec: spec,
      ...     tx.init(params),
      ...     {"w": "rows"},
      ...     transform_non_params=lambda _: None,
      ... )
      >>> specs[0]
      ScaleByAdamState(count=None, mu={'w': 'rows'}, nu={'w': 'rows'})

    Differs from optax: masked, partitioned, factored and stacked states come out right;
    there a state's field is taken for parameters whatever the shapes of its leaves.
    """
    shows_hidden = is_leaf is not None and is_leaf(MaskedNode())

    def params(value: Any) -> Any:
        if rest and _is_leaf(value) and not _is_leaf(rest[0]):
            return others(value)  # all parameters joined to one vector

        def leaf(x, *others):
            if isinstance(x, MaskedNode) and not shows_hidden:
                return x
            return f(x, *others)

        def stop(x):
            return isinstance(x, MaskedNode) or (is_leaf is not None and is_leaf(x))

        return jax.tree.map(leaf, value, *rest, is_leaf=stop)

    def others(value: Any) -> Any:
        if transform_non_params is None:
            return value
        return jax.tree.map(transform_non_params, value)

    def mapped(value: Any, sample: Callable[[], Any]) -> Any:
        kinds = roles(value) if isinstance(value, tuple) else {}
        if kinds or is_chain_state(value):
            made = []
            for index, name in enumerate(type(value)._fields):  # type: ignore[attr-defined]
                kind, field = kinds.get(name), value[index]
                if kind is Role.PER_PARAM:
                    made.append(params(field))
                elif kind in (Role.INNER, Role.SAVED):
                    made.append(mapped(field, lambda i=index: sample()[i]))
                else:
                    made.append(others(field))
            return type(value)(*made)
        if isinstance(value, (dict, list, tuple)) and _holds_roles(value):
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            made = {k: mapped(v, lambda k=k: sample()[k]) for k, v in pairs}
            if isinstance(value, dict):
                return type(value)(made)
            named = hasattr(value, "_fields")
            return type(value)(*made.values()) if named else type(value)(made.values())
        if not jax.tree.leaves(value):
            return value
        return jax.tree.map(
            lambda s, v: params(v) if isinstance(s, EveryParam) else others(v),
            sample(),
            value,
            is_leaf=lambda s: isinstance(s, EveryParam),
        )

    @functools.cache
    def initial() -> Any:
        try:
            return getattr(initable, "init", initable)(EveryParam())
        except Exception as error:
            raise ArgumentError(
                "a state without roles is told by init on a stand-in for the "
                f"parameters, and that failed: {error}. Annotate the state's fields "
                "with gradtx.PerParam and the other roles.",
                "map_params",
            ) from error

    return mapped(state, initial)


def _is_leaf(value: Any) -> bool:
    return jax.tree_util.treedef_is_leaf(jax.tree.structure(value))


def _holds_roles(value: Any) -> bool:
    """Say whether a state with roles, or a chain's, lies in a tuple, list or dict."""
    if isinstance(value, tuple) and (is_chain_state(value) or roles(value)):
        return True
    inside = value.values() if isinstance(value, dict) else value
    return isinstance(value, (dict, list, tuple)) and any(map(_holds_roles, inside))
