"""Properties of structure: invariances, derivatives, states, names (P15 to P18)."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from gradtx.core import GradientTransformation, Role, bits, is_chain_state, roles
from gradtx.testing._property import Unavailable, declare, require
from gradtx.testing._subject import GRADTX, Subject, finite, gap, same_bits, types


@declare(
    "P15",
    "updates do not depend on the order, the split or the layout of leaves, "
    "nor on the gradient's scale where so declared; packed trees give the same",
    "order of leaves",
    "packed",
    "split of a leaf",
    "rows and columns",
    "gradient scale",
)
def invariances(subject: Subject, cell: str) -> None:
    """Change what must not matter, undo it in the update, and compare."""
    traits = subject.traits
    if cell == "split of a leaf" and traits.reach != "element":
        return
    if cell == "packed" and subject.library is not GRADTX:
        return  # nobody else has packed trees
    if cell == "gradient scale" and not traits.scale_free:
        return
    if traits.stochastic:
        return  # the noise belongs to a leaf's place
    change, undo = _CHANGES[cell]
    params, grads = subject.plain(subject.params()), subject.grads()
    more = subject.grads(seed=1)
    before = _updates(subject, params, [grads, more])
    scaled = cell == "gradient scale"
    after = _updates(
        subject, params if scaled else change(params), [change(grads), change(more)]
    )
    off = max(gap(b, undo(a)) for b, a in zip(before, after, strict=True))
    bound = 4 * traits.ulps
    require(off <= bound, f"updates are {off:.0f} ulps apart, where {bound} may be")


def _updates(subject: Subject, params: Any, grads: list[Any]) -> list[Any]:
    params = subject.own(params)
    return [subject.plain(updates) for updates in subject.run(params, grads)[2]]


def _renamed(tree: Any) -> Any:
    return {"a": tree["w"], "z": tree["b"]}


def _named_back(tree: Any) -> Any:
    return {"w": tree["a"], "b": tree["z"]}


def _cut(tree: Any) -> Any:
    return {"b": tree["b"], "w1": tree["w"][:1], "w2": tree["w"][1:]}


def _glued(tree: Any) -> Any:
    return {"b": tree["b"], "w": jnp.concatenate([tree["w1"], tree["w2"]])}


_ROWS, _COLUMNS = np.array([2, 0, 3, 1]), np.array([1, 2, 0])
_ROWS_BACK, _COLUMNS_BACK = np.argsort(_ROWS), np.argsort(_COLUMNS)


def _shuffled(tree: Any) -> Any:
    return {"w": tree["w"][_ROWS][:, _COLUMNS], "b": tree["b"]}


def _sorted_back(tree: Any) -> Any:
    return {"w": tree["w"][_ROWS_BACK][:, _COLUMNS_BACK], "b": tree["b"]}


_CHANGES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "order of leaves": (_renamed, _named_back),
    "packed": (gradtx.pack, gradtx.unpack),
    "split of a leaf": (_cut, _glued),
    "rows and columns": (_shuffled, _sorted_back),
    "gradient scale": (
        lambda tree: jax.tree.map(lambda g: g * 2.0**10, tree),
        lambda tree: tree,
    ),
}


@declare(
    "P16",
    "derivatives through update are finite, or it declares that they are not",
    "zero gradient",
    "normal gradient",
)
def derivatives(subject: Subject, cell: str) -> None:
    """Differentiate two steps by the first gradient."""
    if subject.traits.differentiable:
        slopes = _derivative(subject)(zero=cell == "zero gradient")
        require(finite(slopes), "a derivative is not finite")


def _derivative(subject: Subject) -> Callable[..., Any]:
    """Return a function that differentiates two steps, compiled once a subject."""
    return subject.kept("derivative", lambda: _differentiated(subject))


def _differentiated(subject: Subject) -> Callable[..., Any]:
    params, second = subject.params(), subject.grads(seed=1)
    state = subject.init(params)

    def total(first: Any, params: Any, state: Any) -> Any:
        moved, after, made = subject.moved(params, state, first)
        _, _, more = subject.moved(moved, after, second)
        return sum(
            (jnp.sum(u) for u in jax.tree.leaves((made, more)) if bits(u)),
            jnp.zeros(()),
        )

    slopes = jax.jit(jax.grad(total))

    def at(*, zero: bool) -> Any:
        first = subject.grads()
        if zero:
            first = jax.tree.map(jnp.zeros_like, first)
        return slopes(first, params, state)

    return at


@declare(
    "P17",
    "states keep every field, and states and transformations survive being written",
    "fields",
    "roles",
    "pickled state",
    "msgpack",
    "pickled",
    "copied",
    "described",
)
def written(subject: Subject, cell: str) -> None:
    """Take apart and put together again."""
    _WRITTEN[cell](subject)


def _state(subject: Subject) -> Any:
    return subject.run(subject.params(), [subject.grads()])[1]


def _check_fields(subject: Subject) -> None:
    state = _state(subject)
    leaves, structure = jax.tree.flatten(state)
    marked = structure.unflatten(list(range(len(leaves))))
    require(jax.tree.leaves(marked) == [*range(len(leaves))], "leaves change places")
    for before, after in zip(_states(state), _states(marked), strict=True):
        fields = before._fields
        require(type(before) is type(after), "a state changes its class")
        kept = all(hasattr(after, name) for name in fields)
        require(kept, f"{type(before).__name__} loses a field when it is flattened")
        for name in fields:
            held = getattr(before, name)
            if not jax.tree.leaves(held) and not _is_node(held):
                same = getattr(after, name) == held
                require(same, f"{type(before).__name__}.{name} is not kept")


def _is_node(x: Any) -> bool:
    return not jax.tree_util.treedef_is_leaf(jax.tree.structure(x))


def _states(state: Any) -> Iterator[Any]:
    """Yield every state object in a state, outermost first."""
    if hasattr(state, "_fields"):
        yield state
        for x in state:
            yield from _states(x)
    elif isinstance(state, dict):
        for x in state.values():
            yield from _states(x)
    elif isinstance(state, (list, tuple)):
        for x in state:
            yield from _states(x)


_DTYPES = {Role.COUNT: ("int32",), Role.SCALAR: ("float32",), Role.FLAG: ("bool",)}


def _check_roles(subject: Subject) -> None:
    for state in _states(jax.eval_shape(subject.init, subject.params("bfloat16"))):
        module = type(state).__module__
        if module.split(".")[0] != "gradtx" or is_chain_state(state):
            continue
        if module.startswith("gradtx.combinators._partition"):
            continue
        kinds = roles(state)
        for field in state._fields:
            held = getattr(state, field)
            if field not in kinds:
                bare = not jax.tree.leaves(held)
                require(bare, f"{type(state).__name__}.{field} has no role")
                continue
            allowed = _DTYPES.get(kinds[field])
            for x in jax.tree.leaves(held) if allowed else ():
                fits = str(x.dtype) in (allowed or ())
                require(
                    fits,
                    f"{type(state).__name__}.{field} has the role "
                    f"{kinds[field].name} and dtype {x.dtype}",
                )


def _check_pickled_state(subject: Subject) -> None:
    state = _state(subject)
    again = pickle.loads(pickle.dumps(state))
    require(same_bits(state, again), "a pickled state is another one")


def _check_msgpack(subject: Subject) -> None:
    try:
        from flax import serialization
    except ImportError:
        raise Unavailable("needs flax") from None
    state = _state(subject)
    written = serialization.to_bytes(state)
    again = serialization.from_bytes(subject.init(subject.params()), written)
    require(types(state)[1] == types(again)[1], "flax changes a type of the state")
    require(
        same_bits(state, jax.tree.map(jnp.asarray, again)), "flax changes the state"
    )


def _check_pickled(subject: Subject) -> None:
    again = pickle.loads(pickle.dumps(subject.tx))
    require(again == subject.tx, "a pickled transformation is another one")


def _check_copied(subject: Subject) -> None:
    require(copy.deepcopy(subject.tx) == subject.tx, "a copy is not equal")
    init, update = subject.tx
    require(callable(init) and callable(update), "it does not unpack")


def _check_described(subject: Subject) -> None:
    tx = subject.tx
    if not isinstance(tx, GradientTransformation):
        raise Unavailable("only gradtx describes transformations")
    if subject.call is None or tx.call.factory is GradientTransformation:
        raise Unavailable("a pair made by hand has no description")
    data = json.loads(json.dumps(gradtx.describe(tx)))
    again = gradtx.build(data)
    require(again == tx, "describe and build give another transformation")
    require(hash(again) == hash(tx), "equal transformations have different hashes")
    require(again.traits == tx.traits, "it is built with other traits")


_WRITTEN = {
    "fields": _check_fields,
    "roles": _check_roles,
    "pickled state": _check_pickled_state,
    "msgpack": _check_msgpack,
    "pickled": _check_pickled,
    "copied": _check_copied,
    "described": _check_described,
}


@declare(
    "P18",
    "it is what it says: its name, its place, its documentation, its traits",
    "name",
    "docstring",
    "reach",
    "differentiable",
    "stochastic",
)
def honest(subject: Subject, cell: str) -> None:
    """Compare what is declared with what is there."""
    traits = subject.traits
    if cell in ("name", "docstring"):
        _check_named(subject, cell)
    elif cell == "reach":
        seen = _observed_reach(subject)
        wide = ("element", "leaf", "tree")
        require(
            wide.index(traits.reach) <= wide.index(seen)
            or subject.library is not GRADTX,
            f"reach is declared as {traits.reach!r}, and is {seen!r}",
        )
    elif cell == "differentiable":
        if traits.differentiable:
            return
        try:
            slopes = _derivative(subject)
            broken = not all(finite(slopes(zero=zero)) for zero in (True, False))
        except (TypeError, ValueError, NotImplementedError):
            broken = True
        require(broken, "it is declared not differentiable, and is")
    else:
        state = jax.eval_shape(subject.init, subject.params())
        keyed = any(
            x.dtype == jnp.uint32 or jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
            for x in jax.tree.leaves(state)
        )
        require(keyed == traits.stochastic, f"it {'has a' if keyed else 'has no'} key")


def _check_named(subject: Subject, cell: str) -> None:
    if subject.call is None or not isinstance(subject.tx, GradientTransformation):
        raise Unavailable("it has no factory that it knows")
    factory = subject.call[0]
    if cell == "name":
        require(subject.name == factory.__name__, "its name is not that of its factory")
        module = sys.modules[factory.__module__]
        there = getattr(module, factory.__name__, None) is factory
        require(there, "its factory is not found by its name")
        if factory.__module__.startswith("gradtx."):
            public = getattr(gradtx, factory.__name__, None) is factory
            require(public, f"gradtx.{factory.__name__} is not public")
        return
    text = inspect.getdoc(factory) or ""
    first, *rest = text.split("\n")
    sentence = first.endswith(".") and (not rest or not rest[0])
    require(sentence, "its docstring does not start with one sentence")
    if factory.__module__.startswith("gradtx."):
        require("Source: " in text, "its docstring names no source")


def _observed_reach(subject: Subject) -> str:
    """Change one element of some gradients, and see which updates follow."""
    wide = ("element", "leaf", "tree")
    # a rule may treat large matrices otherwise, such as by factors
    shapes = ({"w": (4, 3), "b": (3,)}, {"w": (130, 129), "b": (3,)})
    return max((_reach_among(subject, s) for s in shapes), key=wide.index)


def _reach_among(subject: Subject, shapes: Mapping[str, tuple[int, ...]]) -> str:
    draw = np.random.default_rng(18)
    new = lambda: {
        k: jnp.asarray(draw.normal(size=s)).astype("float32") for k, s in shapes.items()
    }
    params, usual = subject.own(new()), [new() for _ in range(6)]
    reached = "element"
    for size in (30.0, 1e6, np.nan):
        changed = [{**g, "w": g["w"].at[0, 0].set(size)} for g in usual]
        ways = [subject.run(params, grads)[2] for grads in (usual, changed)]
        for one, two in zip(*ways, strict=True):
            one, two = subject.plain(one), subject.plain(two)
            if not np.array_equal(one["b"], two["b"]):
                return "tree"
            first, second = (np.ravel(x["w"])[1:] for x in (one, two))
            if not np.array_equal(first, second):
                reached = "leaf"
    return reached
