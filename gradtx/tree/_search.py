"""Find and replace values in states by their name, and never inside parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import (
    ArgumentError,
    Role,
    dtype_of,
    fields,
    has_packed,
    is_chain_state,
    repack,
    roles,
    unpack,
)

KeyPath = tuple[Any, ...]
Filter = Callable[[KeyPath, Any], bool]

#: The step count that every learning rate keeps. It answers to `count` only where no
#: other count does: for most optimizers it repeats theirs.
_QUIET = ("ScaleByScheduleState", "count")


@dataclasses.dataclass(frozen=True)
class NamedTupleKey:
    """One step of a path: a field of a named tuple, with the name of its class.

    Attributes:
      tuple_name: name of the class, such as "ScaleByAdamState".
      name: name of the field.
    """

    tuple_name: str
    name: str

    def __str__(self) -> str:
        return f"{self.tuple_name}.{self.name}"


def get_all_with_path(
    tree: Any, key: Any, filtering: Filter | None = None
) -> list[tuple[KeyPath, Any]]:
    """Return every value that a name has in a state, with its path.

    The name is that of a field, of a key of a dictionary, of a state's class or of a
    link in a chain; a link gives way to what has its name inside it. A parameter of that name is not found: what a state keeps per
    parameter is not searched.

    Args:
      tree: a state, or any pytree.
      key: the name.
      filtering: `(path, value) -> bool` that a value must satisfy as well. A field of a
        named tuple shows in the path as `NamedTupleKey`.

    Returns:
      Pairs of a path and a value; a value comes before those inside it.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> state = gradtx.adam(1e-3).init({"mu": jnp.zeros(1)})
      >>> [path for path, _ in gradtx.tree.get_all_with_path(state, "mu")]
      [(SequenceKey(idx=0), NamedTupleKey(tuple_name='ScaleByAdamState', name='mu'))]

    Differs from optax: there a parameter called "mu" or "count" is found as well.
    """
    found = [
        (path, value)
        for path, value in _walk((), tree, key)
        if filtering is None or filtering(path, value)
    ]
    found = [it for it in found if not _is_link_around(it[0], found)]
    loud = [it for it in found if not _is_quiet(it[0])]
    found = (loud or found) if filtering is None else found
    return [(path, unpack(value)) for path, value in found]


def get(
    tree: Any, key: Any, default: Any = None, filtering: Filter | None = None
) -> Any:
    """Return the one value that a name has in a state.

    Args:
      tree, key, filtering: as in `get_all_with_path`.
      default: returned where there is no such value.

    Raises:
      KeyError: if there are several.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> state = gradtx.adam(1e-3).init({"w": jnp.zeros(1)})
      >>> int(gradtx.tree.get(state, "count"))
      0
    """
    found = get_all_with_path(tree, key, filtering)
    if len(found) > 1:
        paths = ", ".join(_shown(path) for path, _ in found)
        raise KeyError(
            f"get: {key!r} has {len(found)} values, at {paths}. Give filtering= to "
            "choose one, or use get_all_with_path."
        )
    return found[0][1] if found else default


def set(tree: Any, filtering: Filter | None = None, /, **kwargs: Any) -> Any:
    """Return a state in which every value of the given names is replaced.

    A Python number takes the dtype of the array that it replaces, so that a compiled
    step is not compiled again.

    Args:
      tree, filtering: as in `get_all_with_path`.
      **kwargs: new values by name. Each replaces all values of that name.

    Raises:
      KeyError: if a name has no value.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> state = gradtx.adam(1e-3).init({"count": jnp.zeros(1)})
      >>> state = gradtx.tree.set(state, count=7)
      >>> state[0].count.tolist(), state[0].mu["count"].tolist()
      (7, [0.0])

    Differs from optax: there `mu["count"]` would be replaced as well.
    """

    def passes(path: KeyPath, value: Any) -> bool:
        return filtering is None or filtering(path, value)

    for key in kwargs:
        if not any(passes(path, value) for path, value in _walk((), tree, key)):
            raise KeyError(f"set: nothing in the state is called {key!r}.")

    def replaced(path: KeyPath, node: Any) -> Any:
        name = type(node).__name__
        if _is_named(node) and name in kwargs and passes(path, node):
            return kwargs[name]
        children, rebuilt = _children(node)
        if not children:
            return node
        values = []
        for child in children:
            here = (*path, child.entry)
            if child.name in kwargs and passes(here, child.value):
                values.append(_like(kwargs[child.name], child.value))
            else:
                values.append(
                    replaced(here, child.value) if child.open else child.value
                )
        return rebuilt(values)

    return replaced((), tree)


def learning_rate(state: Any) -> jax.Array:
    """Return the learning rate in use, read from the state.

    That of the next update after `init`, that of the last one after `update`, positive
    for descent. A line search gives the step that it chose.

    Args:
      state: the state of any optimizer, alone, in a chain or inside a wrapper; or a
        `TrainState` or `nnx.Optimizer` that holds one.

    Returns:
      A float32 scalar.

    Raises:
      ArgumentError: if the state holds none, or several: read those by
        `gradtx.learning_rates`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.adam(gradtx.linear_schedule(0.5, 0.0, 10))
      >>> float(gradtx.learning_rate(tx.init({"w": jnp.zeros(1)})))
      0.5
    """
    found = learning_rates(state)
    if len(found) != 1:
        listed = ", ".join(found) or "none"
        raise ArgumentError(
            f"the state must hold one learning rate, got {listed}. "
            "Read several by gradtx.learning_rates(state), or one from a part of the "
            "state.",
            "learning_rate",
        )
    return next(iter(found.values()))


def learning_rates(state: Any) -> dict[str, jax.Array]:
    """Return every learning rate in use, by its path in the state.

    Args:
      state: as in `learning_rate`.
    """
    found = {}
    for field in fields(state):
        if field.reading == "learning_rate":
            leaves = jax.tree.leaves(field.value)  # Flax puts a box around each array
            if len(leaves) == 1 and jnp.ndim(leaves[0]) == 0:
                found[field.path] = leaves[0]
    return found


def _walk(path: KeyPath, node: Any, key: Any) -> Iterator[tuple[KeyPath, Any]]:
    if _is_named(node) and type(node).__name__ == key:
        yield path, node
    children = _children(node)[0]
    for child in children:
        if child.name == key:
            yield (*path, child.entry), child.value
    for child in children:
        if child.open:
            yield from _walk((*path, child.entry), child.value, key)


class _Child(NamedTuple):
    """What a node holds: its step of the path, its name, and whether to look inside."""

    entry: Any
    name: Any
    value: Any
    open: bool


def _children(node: Any) -> tuple[list[_Child], Callable[[list[Any]], Any]]:
    """Return what a node holds, and how to make one like it of other values."""
    if _is_named(node):
        kinds, made = roles(node), []
        for index, (name, value) in enumerate(zip(node._fields, node, strict=True)):
            entry = NamedTupleKey(type(node).__name__, name)
            if is_chain_state(node):
                entry = jax.tree_util.SequenceKey(index)
            shut = kinds.get(name) in (Role.PER_PARAM, Role.FACTORED, Role.SAVED)
            made.append(_Child(entry, name, value, not shut))
        return made, lambda values: type(node)(*values)
    flat, structure = jax.tree_util.tree_flatten_with_path(
        node, is_leaf=lambda x: x is not node
    )
    made = [
        _Child(
            path[0], getattr(path[0], "key", getattr(path[0], "name", None)), x, True
        )
        for path, x in flat
        if path  # a leaf has none
    ]
    return made, structure.unflatten


def _is_named(node: Any) -> bool:
    return isinstance(node, tuple) and hasattr(node, "_fields")


def _is_link_around(path: KeyPath, found: list[tuple[KeyPath, Any]]) -> bool:
    """Say whether `path` is a link's, and a field inside has the link's name too."""
    if not path or not isinstance(path[-1], jax.tree_util.SequenceKey):
        return False
    inside = [p for p, _ in found if len(p) > len(path)]
    return any(p[: len(path)] == path for p in inside)


def _is_quiet(path: KeyPath) -> bool:
    last = path[-1] if path else None
    return isinstance(last, NamedTupleKey) and (last.tuple_name, last.name) == _QUIET


def _like(new: Any, old: Any) -> Any:
    if has_packed(old) and not has_packed(new):
        return repack(new, old)
    number = isinstance(new, (int, float, complex)) and not isinstance(new, bool)
    if number and isinstance(old, jax.Array) and jnp.ndim(old) == 0:
        return jnp.asarray(new).astype(dtype_of(old))
    if isinstance(new, jax.Array) and isinstance(old, jax.Array):
        same = jnp.ndim(new) == 0 and jnp.ndim(old) == 0
        numeric = jnp.issubdtype(dtype_of(old), jnp.number)
        return new.astype(dtype_of(old)) if same and numeric else new
    return new


def _shown(path: KeyPath) -> str:
    parts = [f".{p.name}" if isinstance(p, NamedTupleKey) else str(p) for p in path]
    return "".join(parts).lstrip(".")
