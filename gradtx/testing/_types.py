"""Properties of types: what a state is made of never changes (P1, P2, P3, P12)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import bits
from gradtx.testing._property import Violation, declare, require
from gradtx.testing._subject import Subject, gap, same_bits, types

MIXED = {"w": "bfloat16", "b": "float32"}
MIXED_HALF = {"w": "float16", "b": "bfloat16"}
MIXED_DOUBLE = {"w": "float64", "b": "bfloat16"}
_MIXTURES = {"mixed": MIXED, "mixed halves": MIXED_HALF, "mixed double": MIXED_DOUBLE}


@declare(
    "P1",
    "update returns a state of the types it was given, and updates of the gradients'",
    "float16",
    "bfloat16",
    "float32",
    "complex64",
    "mixed",
    "mixed halves",
    "x64 float32",
    "x64 float64",
    "x64 complex128",
    "x64 mixed double",
    abstract=True,
)
def fixed_point(subject: Subject, cell: str) -> None:
    """Compare the types of what goes in with those of what comes out."""
    dtypes = _MIXTURES.get(cell, cell)
    if cell.startswith("complex") and not subject.traits.complex:
        _check_refused(subject, dtypes)
        return
    _check_fixed_point(subject, dtypes, dtypes)
    if cell == "float32":  # what `init` says without values is what it makes of them
        params = subject.params()
        told = jax.eval_shape(subject.init, params)
        made = subject.init(params)
        _check_same(types(told), types(made), "init under eval_shape and with values")


@declare(
    "P2",
    "the same where gradients have another dtype than parameters",
    "bfloat16 / float32",
    "float32 / bfloat16",
    "float16 / float32",
    "float32 / float16",
    "bfloat16 / float16",
    "x64 float64 / float32",
    "x64 float32 / float64",
    "x64 bfloat16 / float64",
    abstract=True,
)
def foreign_gradients(subject: Subject, cell: str) -> None:
    """The cell names the parameters' dtype, then that of the gradients."""
    params, grads = cell.split(" / ")
    _check_fixed_point(subject, params, grads)


def _check_fixed_point(subject: Subject, params_dtype: Any, grads_dtype: Any) -> None:
    params = jax.eval_shape(lambda: subject.params(params_dtype))
    grads = jax.eval_shape(lambda: subject.grads(grads_dtype))
    state = jax.eval_shape(subject.init, params)
    updates, after = jax.eval_shape(subject.update, grads, state, params)
    _check_same(types(state), types(after), "state before and after update")
    wanted = types(subject.expected(grads, params))
    _check_same(wanted, types(updates), "gradients and updates")
    moved = jax.eval_shape(subject.library.apply_updates, params, updates)
    _check_same(types(params), types(moved), "parameters before and after a step")
    weak = [leaf for leaf in types((state, updates))[1] if leaf[2]]
    require(not weak, f"a leaf is weakly typed: {weak[:1]}")


def _check_same(before: Any, after: Any, what: str) -> None:
    if before == after:
        return
    if before[0] != after[0]:
        raise Violation(f"{what} differ in structure")
    first = next((a, b) for a, b in zip(before[1], after[1], strict=True) if a != b)
    raise Violation(f"{what} differ: {_typed(first[0])} and {_typed(first[1])}")


def _typed(leaf: Any) -> str:
    shape, dtype, weak = leaf
    return f"{dtype}{list(shape)}{' weakly typed' if weak else ''}"


def _check_refused(subject: Subject, dtypes: Any) -> None:
    params = jax.eval_shape(lambda: subject.params(dtypes))
    grads = jax.eval_shape(lambda: subject.grads(dtypes))
    try:
        jax.eval_shape(
            subject.update, grads, jax.eval_shape(subject.init, params), params
        )
    except (TypeError, ValueError) as error:
        said = "complex" in str(error).lower() and len(str(error)) < 600
        require(said, f"complex leaves raise an error that does not say so: {error}")
        return
    raise Violation("complex leaves are declared impossible, and are accepted")


def _extra_leaf(subject: Subject, cell: str) -> tuple[Any, Any]:
    """Return one more leaf of the parameters, and of the gradients."""
    p, g = {
        "None": (None, None),
        "empty": ({}, {}),
        "zero-size": (jnp.ones((0,)), jnp.ones((0,))),
        "zero-size matrix": (jnp.ones((0, 3)), jnp.ones((0, 3))),
        "scalar": (jnp.ones(()), jnp.ones(())),
        "integer": (jnp.arange(3), np.zeros(3, jax.dtypes.float0)),
        "deep": (_nested(jnp.ones(2)), _nested(jnp.ones(2))),
    }[cell]
    return p, g


def _nested(leaf: Any) -> Any:
    for level in range(30):
        leaf = [leaf] if level % 2 else {"in": leaf}
    return leaf


@declare(
    "P3",
    "leaves of every kind pass: None, empty, zero-size, scalar, integer, deep, many",
    "None",
    "empty",
    "zero-size",
    "zero-size matrix",
    "scalar",
    "integer",
    "integer gradient",
    "deep",
    "no leaves",
    "together",
    "1000 leaves",
    heavy=("1000 leaves",),
)
def odd_leaves(subject: Subject, cell: str) -> None:
    """Odd leaves keep their types; computed together, they change no other leaf."""
    if cell == "together":
        _check_together(subject)
        return
    params, grads = subject.plain(subject.params()), subject.grads()
    if cell == "no leaves":
        params, grads = {}, {}
    elif cell == "integer gradient":
        _check_integer_gradient(subject, params, grads)
        return
    elif cell == "1000 leaves":
        params = {f"w{i}": jax.ShapeDtypeStruct((2,), "float32") for i in range(1000)}
        grads = params
    else:
        params["odd"], grads["odd"] = _extra_leaf(subject, cell)
    params = _owned(subject, params)
    # float0 leaves are NumPy arrays, which no abstract value stands for
    state = jax.eval_shape(subject.init, params)
    if cell == "1000 leaves":
        updates, after = jax.eval_shape(subject.update, grads, state, params)
    else:
        moving = [x for x in jax.tree.leaves(grads) if bits(x)]

        def update(moving: Any, state: Any, params: Any) -> Any:
            numbers = iter(moving)
            whole = jax.tree.map(lambda g: next(numbers) if bits(g) else g, grads)
            updates, after = subject.update(whole, state, params)
            passed = [u for u in jax.tree.leaves(updates) if not bits(u)]
            kept = all(u.dtype == jax.dtypes.float0 for u in passed)
            require(kept, "a float0 gradient is not passed on as it is")
            return jax.tree.map(lambda u: u if bits(u) else None, updates), after

        updates, after = jax.eval_shape(update, moving, state, params)
        grads = jax.tree.map(lambda g: g if bits(g) else None, grads)
    _check_same(types(state), types(after), "state before and after update")
    _check_same(
        types(subject.expected(grads, params)), types(updates), "gradients and updates"
    )


def _owned(subject: Subject, params: Any) -> Any:
    if subject.traits.form != "pairs":
        return params
    return type(subject.params())(params, params)


def _check_integer_gradient(subject: Subject, params: Any, grads: Any) -> None:
    params["odd"] = grads["odd"] = jnp.arange(3)
    params = _owned(subject, params)
    state = jax.eval_shape(subject.init, params)
    try:
        updates, after = jax.eval_shape(subject.update, grads, state, params)
    except (TypeError, ValueError) as error:
        require("odd" in str(error), f"the error does not name the leaf: {error}")
        return
    # where it passes, it may change no type
    _check_same(types(state), types(after), "state before and after update")
    _check_same(
        types(subject.expected(grads, params)), types(updates), "gradients and updates"
    )


def _check_together(subject: Subject) -> None:
    cells = ("None", "empty", "zero-size", "zero-size matrix", "integer")
    odd = {f"odd {cell}": _extra_leaf(subject, cell) for cell in cells}
    params, grads = subject.plain(subject.params()), subject.grads()
    _, _, (updates,) = subject.run(subject.own(params), [grads])
    more = subject.own(params | {k: p for k, (p, _) in odd.items()})
    most = grads | {k: g for k, (_, g) in odd.items()}
    # float0 leaves are no arguments of a compiled function
    moved, _, made = jax.jit(lambda p: subject.moved(p, subject.init(p), most))(more)
    made, updates = subject.plain(made), subject.plain(updates)
    for name in params:
        off = gap(made[name], updates[name])
        require(
            off <= 4 * subject.traits.ulps, f"odd leaves change {name} by {off} ulps"
        )
    integer = subject.plain(moved)["odd integer"]
    require(integer.tolist() == [0, 1, 2], "an integer parameter has moved")


@declare(
    "P12",
    "hyperparameters in the state are float32 and change without a second trace",
    "bfloat16 parameters",
    "change",
)
def hyperparameters(subject: Subject, cell: str) -> None:
    """A bfloat16 0.999 is 1; a new learning rate must not compile the step again."""
    injected = _injected(subject)
    if injected is None:
        return
    if cell == "bfloat16 parameters":
        params = jax.eval_shape(lambda: subject.params("bfloat16"))
        state = jax.eval_shape(injected.init, params)
        for name, x in state.hyperparams.items():
            fine = not bits(x) or x.dtype == jnp.float32
            require(fine, f"{name} is {x.dtype} beside bfloat16 parameters")
        grads = jax.eval_shape(lambda: subject.grads("bfloat16"))
        updates, after = jax.eval_shape(injected.update, grads, state, params)
        _check_same(types(state), types(after), "state before and after update")
        _check_same(
            types(subject.expected(grads, params)),
            types(updates),
            "gradients and updates",
        )
        return
    traces = 0

    def moved(params: Any, state: Any, grads: Any) -> Any:
        nonlocal traces
        traces += 1
        return injected.moved(params, state, grads)

    step, params, grads = jax.jit(moved), subject.params(), subject.grads()
    state, seen = injected.init(params), []
    floats = [k for k, v in state.hyperparams.items() if bits(v)]
    if not floats:
        return
    name = "learning_rate" if "learning_rate" in floats else floats[0]
    first = float(state.hyperparams[name])
    for value in (first, first / 2, first / 2**16):  # small enough to bind a bound
        state.hyperparams[name] = jnp.asarray(value, state.hyperparams[name].dtype)
        seen.append(step(params, state, grads)[2])
    require(traces == 1, f"new values of {name} are traced {traces} times")
    if name == "learning_rate" and first:
        again = subject.step(params, subject.init(params), grads)[2]
        require(gap(seen[0], again) < 1e4, "the injected update is another one")
        still = same_bits(seen[0], seen[2]) and not _still(seen[0])
        still = still and not subject.traits.scale_free
        require(not still, "a new learning rate changes nothing")


def _still(updates: Any) -> bool:
    return not any(jnp.any(u != 0) for u in jax.tree.leaves(updates) if bits(u))


def _injected(subject: Subject) -> Subject | None:
    """Return the transformation with its hyperparameters in its state, if it has any."""
    if subject.call is None:
        return None
    factory, arguments = subject.call
    starred = [k for k, v in arguments.items() if k == "links" or isinstance(v, tuple)]
    if not any(isinstance(v, float) for v in arguments.values()) or starred == [
        "links"
    ]:
        return None
    made = subject.library.inject_hyperparams(factory)(**arguments)
    return subject.with_tx(made)
