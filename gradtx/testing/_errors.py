"""The property of errors: what does not fit is named, with a remedy (P13)."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.testing._property import Violation, declare, require
from gradtx.testing._subject import Subject, types


@declare(
    "P13",
    "what does not fit raises one error that names transformation, leaf and remedy",
    "shape",
    "missing leaf",
    "renamed leaf",
    "unexpected leaf",
    "container",
    "no params",
    "foreign state",
    abstract=True,
)
def mismatches(subject: Subject, cell: str) -> None:
    """Give `update` what does not fit, and read the error."""
    if cell == "no params":
        _check_no_params(subject)
        return
    if cell == "foreign state":
        _check_foreign_state(subject)
        return
    params = jax.eval_shape(subject.params)
    grads = dict(jax.eval_shape(subject.grads))
    state = jax.eval_shape(subject.init, params)
    wrong: Any = grads
    named = r"\['w'\]"
    if cell == "shape":
        grads["w"] = jax.ShapeDtypeStruct((3,), "float32")  # would broadcast
    elif cell == "missing leaf":
        del grads["w"]
    elif cell == "renamed leaf":
        grads["v"] = grads.pop("w")
        named = r"\['[vw]'\]"
    elif cell == "unexpected leaf":
        grads["v"] = grads["w"]
        named = r"\['v'\]"
    else:
        wrong = [grads["b"], grads["w"]]
        named = r"\['[bw]'\]|\[0\]|list"
    _check_raises(subject, lambda: _abstractly(subject, wrong, state, params), named)


def _abstractly(subject: Subject, grads: Any, state: Any, params: Any) -> Any:
    return jax.eval_shape(subject.update, grads, state, params)


def _check_raises(subject: Subject, call: Any, named: str) -> None:
    try:
        call()
    except (ValueError, TypeError) as error:
        said = str(error)
    else:
        raise Violation("it is accepted")
    short = said if len(said) < 200 else said[:200] + "…"
    require(re.match(r"\w+: ", said) is not None, f"names no transformation: {short}")
    require(re.search(named, said) is not None, f"does not name the leaf: {short}")
    require(len(said) < 500, f"prints more than the leaf: {short}")
    # what is wrong, and what to do
    require(len(re.findall(r"[.?:] [A-Z]", said)) >= 1, f"says no remedy: {short}")


def _check_no_params(subject: Subject) -> None:
    state = jax.eval_shape(subject.init, jax.eval_shape(subject.params))
    grads = jax.eval_shape(subject.grads)
    if "params" in subject.traits.needs:
        named = r"params.*tx\.update\("
        _check_raises(subject, lambda: _abstractly(subject, grads, state, None), named)
        return
    updates, after = _abstractly(subject, grads, state, None)
    require(types(after) == types(state), "without params, the state changes its type")
    require(types(updates) == types(grads), "without params, updates change their type")


def _check_foreign_state(subject: Subject) -> None:
    params = jax.eval_shape(subject.params)
    other = jax.eval_shape(
        lambda: subject.own({"w": jnp.ones((2, 5)), "b": jnp.ones(3)})
    )
    state = jax.eval_shape(subject.init, other)
    if types(state) == types(jax.eval_shape(subject.init, params)):
        return  # it keeps nothing of that shape
    grads = jax.eval_shape(subject.grads)
    named = r"\['w'\]|\bstate\b"
    _check_raises(subject, lambda: _abstractly(subject, grads, state, params), named)
