"""Compile what is called outside `jit`, once for each structure of its arguments.

Run operation by operation, the update of 150 leaves costs a hundred times the compiled
one. A transformation whose functions are known to be pure is therefore compiled when
it is called on concrete arrays, and functions of one leaf are traced once for all
leaves of its type.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

from gradtx.core._errors import GradtxError

#: What `jit` takes besides arrays, and traces.
_NUMBERS = (np.ndarray, np.generic, bool, int, float, complex)
#: The name of the type of trace under which operations run at once.
_EAGER = "EvalTrace"


def is_traced() -> bool:
    """Say whether this code runs under `jit`, `grad`, `vmap` or any other trace."""
    return type(_find_top_trace()(())).__name__ != _EAGER


@functools.cache
def _find_top_trace() -> Callable[[Any], Any]:
    # not when gradtx is imported: it loads Pallas, a seventh of all the time
    from jax.extend.core import find_top_trace

    return find_top_trace


def is_concrete(tree: Any) -> bool:
    """Say whether all leaves are numbers, or arrays on one device each.

    `jit` chooses how results are sharded, so arrays on several devices do not count;
    nor do `float0` gradients, which it would not give back as they are.
    """
    leaves = jax.tree.leaves(tree)
    kinds = set(map(type, leaves))
    arrays = {kind for kind in kinds if issubclass(kind, jax.Array)}
    if not all(issubclass(kind, _NUMBERS) for kind in kinds - arrays):
        return False
    return all(
        type(x.sharding) is SingleDeviceSharding
        if type(x) in arrays
        else getattr(x, "dtype", None) != jax.dtypes.float0
        for x in leaves
    )


def each(function: Callable[..., Any], rows: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Apply `function` to each row of leaves, tracing it once for rows of one type.

    The program is the same as that of a plain loop, since XLA inlines calls.
    """
    rows = list(rows)
    if len(rows) > 1 and is_traced():
        function = jax.jit(function)
    return [function(*row) for row in rows]


def compiled_outside(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a pure function of arrays so that calls outside `jit` are compiled."""
    jitted = jax.jit(function)

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        if is_traced() or not is_concrete(args):
            return function(*args)
        return _called(jitted, *args)

    return wrapper


def _called(jitted: Callable[..., Any], *args: Any) -> Any:
    """Call a function under `jit`; errors of gradtx come out as they were raised."""
    try:
        return jitted(*args)
    except GradtxError as error:
        # JAX notes on every error that its own frames are hidden
        notes = getattr(error, "__notes__", [])
        error.__notes__ = [x for x in notes if "internal frames" not in x]
        raise


class _Jitted:
    """A function under `jit`, held by those that share it."""

    def __init__(self, function: Callable[..., Any]):
        self.call = jax.jit(function)


_SHARED: weakref.WeakValueDictionary[Any, _Jitted] = weakref.WeakValueDictionary()


def compiled_once(key: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the compiled form of a pure `function`; equal keys share one.

    It lives as long as one of those that share it, and is made at the first call.
    """

    @functools.cache
    def shared() -> _Jitted:
        found = _SHARED.get(key)
        if found is None:
            found = _SHARED[key] = _Jitted(function)
        return found

    return lambda *args: _called(shared().call, *args)
