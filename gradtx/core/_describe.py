"""Write a transformation down as plain data, and build it from such data."""

from __future__ import annotations

import base64
import difflib
import inspect
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core import _call
from gradtx.core._chain import chain, link_names, named_chain
from gradtx.core._deferred import Deferred, deferred, is_deferred, is_deferring
from gradtx.core._errors import DescriptionError, GradtxError
from gradtx.core._transformation import GradientTransformation

_DEEPEST = 64


def describe(value: Any, *, opaque: bool = False) -> dict[str, Any]:
    """Return plain data, fit for JSON, from which `build` makes an equal value.

    Args:
      value: a transformation, a schedule or a selector.
      opaque: whether functions and objects that data cannot carry are written by name,
        as `{"$opaque": "module.name"}`. Nothing can be built from that; it serves to
        compare and to show.

    Returns:
      `{"call": public name, "arguments": {name: data, …}}` with all arguments,
      defaults included. Numbers, strings, `None`, lists and dicts with string keys
      stand for themselves; arrays, infinities, tuples and other dicts are dicts with
      one key that starts with `$`.

    Raises:
      DescriptionError: if an argument is an opaque function or object and `opaque` is
        not given. The message names it and says what to use instead.

    Example:
      >>> import gradtx
      >>> gradtx.describe(gradtx.clip_by_global_norm(1.0))
      {'call': 'gradtx.clip_by_global_norm', 'arguments': {'max_norm': 1.0, 'axis_name': None}}
    """
    return _written(value, "", opaque, top=True)


def build(data: Mapping[str, Any]) -> Any:
    """Make the transformation, schedule or selector that `describe` wrote down.

    Names are looked up among the factories defined in this process; nothing is
    imported or evaluated.

    Args:
      data: what `describe` returned, possibly after a trip through JSON.

    Raises:
      DescriptionError: if the data has another form, names no factory known here, or
        gives arguments that the factory does not take.

    Example:
      >>> import gradtx
      >>> tx = gradtx.adamw(gradtx.cosine_decay_schedule(1e-3, 100))
      >>> gradtx.build(gradtx.describe(tx)) == tx
      True
    """
    value = _read(data, 0)
    if not hasattr(value, "call"):
        raise DescriptionError(
            'expected a dict with the keys "call" and "arguments", got '
            f"{type(data).__name__}."
        )
    return value


def is_described_link(data: Any) -> bool:
    """Say whether data that `describe` wrote is of a transformation.

    What is opaque may be one, and so may a call that this process does not know.
    """
    if not isinstance(data, Mapping):
        return False
    if "call" not in data:
        return "$opaque" in data
    factory = _call.registered().get(data["call"])
    made = GradientTransformation
    if factory is None or is_deferring(factory):
        return True
    return inspect.signature(factory).return_annotation is made


def hyperparameters(tx: GradientTransformation) -> dict[str, Any]:
    """Return every argument of a transformation and of those inside it, by path.

    Args:
      tx: a transformation. Links of a chain go by the names of their states.

    Returns:
      A flat dict such as `{"scale_by_adam.b1": 0.9, …}`, in the order of the calls.
      Schedules and selectors stand for themselves.

    Example:
      >>> import gradtx
      >>> tx = gradtx.chain(gradtx.clip(1.0), gradtx.trace(0.9))
      >>> gradtx.hyperparameters(tx)["trace.decay"]
      0.9
    """
    found: dict[str, Any] = {}
    _collect(found, "", tx)
    return found


def _collect(found: dict[str, Any], path: str, value: Any) -> None:
    dot = f"{path}." if path else ""
    if isinstance(value, (GradientTransformation, Deferred)):
        if value.call.factory is GradientTransformation:
            return
        links = _links(value.call)
        inside = links if links is not None else value.call.arguments
        for name, argument in inside.items():
            _collect(found, dot + name, argument)
    elif isinstance(value, Mapping) and any(map(_is_link, value.values())):
        for name, argument in value.items():
            _collect(found, f"{dot}{name}", argument)
    elif isinstance(value, (tuple, list)) and any(map(_is_link, value)):
        for index, argument in enumerate(value):
            _collect(found, f"{dot}{index}", argument)
    else:
        found[path] = value


def _is_link(value: Any) -> bool:
    return isinstance(value, GradientTransformation)


def _links(call: _call.Call) -> dict[str, Any] | None:
    """Return the links of a chain by the names of their states."""
    if call.factory is chain:
        links = call.arguments["links"]
        return dict(zip(link_names(links), links, strict=True))
    if call.factory is named_chain:
        return dict(call.arguments["named_links"])
    return None


def _written(value: Any, where: str, opaque: bool, top: bool = False) -> Any:
    call = getattr(value, "call", None)
    if isinstance(call, _call.Call):
        if call.factory not in _call.registered().values():
            if opaque:
                return {"$opaque": _named(value, call)}
            raise DescriptionError(
                f"{where or 'the value'} is opaque: {value!r}. Make it with a factory "
                "under @gradtx.transformation, @gradtx.schedule or @gradtx.selector."
            )
        return {
            "call": _call.public_name(call.factory),
            "arguments": {
                name: _argument_written(
                    call, name, f"{where}.{name}".lstrip("."), opaque
                )
                for name in call.arguments
            },
        }
    if top:
        raise DescriptionError(
            f"expected a transformation, a schedule or a selector, got {value!r}."
        )
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if type(value) in (tuple, list):
        written = [_written(v, f"{where}[{i}]", opaque) for i, v in enumerate(value)]
        return written if type(value) is list else {"$tuple": written}
    if type(value) is dict:
        written = [
            [
                k.item() if isinstance(k, np.integer) else k,
                _written(v, f"{where}[{k!r}]", opaque),
            ]
            for k, v in value.items()
        ]
        if all(isinstance(k, str) and k[:1] != "$" and k != "call" for k, _ in written):
            return dict(written)
        if all(isinstance(k, (str, int)) for k, _ in written):
            return {"$items": written}
    if isinstance(value, (jax.Array, np.ndarray)) and not isinstance(value, Tracer):
        return _array_written(value)
    if opaque:
        return {"$opaque": _named(value)}
    raise DescriptionError(
        f"{where} cannot be written as data: {_call.show(value)}. {_fix(value)}"
    )


def _argument_written(call: _call.Call, name: str, where: str, opaque: bool) -> Any:
    value = call.arguments[name]
    if _starred(call.factory, name):
        return [_written(v, f"{where}[{i}]", opaque) for i, v in enumerate(value)]
    return _written(value, where, opaque)


def _named(value: Any, call: _call.Call | None = None) -> str:
    """Name what is opaque: a raw pair by its `update`, a function, or else a type."""
    made = value if call is None else call.factory
    if call is not None and made is GradientTransformation:
        made = call.arguments["update"]
    made = made if hasattr(made, "__qualname__") else type(made)
    return f"{made.__module__}.{made.__qualname__}"


def _starred(factory: Any, name: str) -> bool:
    parameter = _call.parameters(factory)[name]
    return parameter.kind is parameter.VAR_POSITIONAL


def _fix(value: Any) -> str:
    if isinstance(value, Tracer):
        return "It is traced: describe the transformation outside jit."
    if callable(value):
        return (
            "Make it with a factory under @gradtx.schedule for a function of the step, "
            "@gradtx.selector for a mask or @gradtx.transformation for a link."
        )
    return "Give numbers, strings, arrays, or dicts and lists of them."


def _array_written(value: Any) -> dict[str, Any]:
    kind = {}
    if isinstance(value, jax.Array) and jnp.issubdtype(
        value.dtype, jax.dtypes.prng_key
    ):
        kind = {"key": str(jax.random.key_impl(value))}
        value = jax.random.key_data(value)
    value = np.asarray(value)
    data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
    array = {"dtype": value.dtype.name, "shape": list(value.shape), "data": data}
    return {"$array": array | kind}


def _read(data: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        raise DescriptionError(f"the data is nested deeper than {_DEEPEST}.")
    if data is None or isinstance(data, (bool, int, float, str)):
        return data
    if isinstance(data, list):
        return [_read(v, depth + 1) for v in data]
    if not isinstance(data, Mapping):
        raise DescriptionError(f"expected JSON data, got {type(data).__name__}.")
    if "call" in data:
        return _called(data, depth)
    if len(data) == 1 and (mark := next(iter(data)))[:1] == "$":
        if mark == "$opaque":
            raise DescriptionError(
                f"{data[mark]!r} is a name only: what it stood for cannot be built."
            )
        if mark == "$float":
            return float(data[mark])
        if mark == "$tuple":
            return tuple(_read(v, depth + 1) for v in data[mark])
        if mark == "$items":
            return {k: _read(v, depth + 1) for k, v in data[mark]}
        if mark == "$array":
            return _array_read(data[mark])
        raise DescriptionError(f"unknown mark {mark!r}: written by a newer gradtx?")
    return {k: _read(v, depth + 1) for k, v in data.items()}


def _called(data: Mapping[str, Any], depth: int) -> Any:
    factory, arguments = _call_read(data, depth)
    try:
        return _call.rebuild(factory, arguments)
    except GradtxError:
        raise
    except TypeError as error:
        raise DescriptionError(f"{data['call']}: {error}.") from None


def _deferred_read(data: Any, depth: int) -> Any:
    """Return a described call that is to be made later, with the defaults of now."""
    if not isinstance(data, Mapping) or "call" not in data:
        return _read(data, depth)
    factory, arguments = _call_read(data, depth)
    try:
        bound = _call.completed(factory, arguments)
    except TypeError as error:
        raise DescriptionError(f"{data['call']}: {error}.") from None
    return deferred(factory, bound.arguments)


def _call_read(data: Mapping[str, Any], depth: int) -> tuple[Any, dict[str, Any]]:
    """Return the factory of a described call, and its arguments."""
    known, name = _call.registered(), data["call"]
    if set(data) != {"call", "arguments"} or not isinstance(data["arguments"], Mapping):
        raise DescriptionError(
            f'expected the keys "call" and "arguments", got {sorted(data)}.'
        )
    if name not in known:
        near = difflib.get_close_matches(str(name), known, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise DescriptionError(
            f"no factory is known by the name {name!r}.{hint} "
            "Import the module that defines it first."
        )
    factory, arguments = known[name], {}
    expected = list(_call.parameters(factory))
    for argument, value in data["arguments"].items():
        read = _deferred_read if is_deferred(factory, argument) else _read
        arguments[argument] = read(value, depth + 1)
    if unknown := [k for k in arguments if k not in expected]:
        raise DescriptionError(
            f"{name} takes no argument {unknown[0]!r}; it takes {', '.join(expected)}."
        )
    for starred in (k for k in arguments if _starred(factory, k)):
        arguments[starred] = tuple(arguments[starred])
    return factory, arguments


def _array_read(data: Mapping[str, Any]) -> jax.Array:
    try:
        raw = base64.b64decode(data["data"], validate=True)
        array = np.frombuffer(raw, jnp.dtype(data["dtype"])).reshape(data["shape"])
    except (KeyError, TypeError, ValueError) as error:
        raise DescriptionError(f"damaged array: {error}.") from None
    if "key" in data:
        return jax.random.wrap_key_data(jnp.asarray(array), impl=data["key"])
    return jnp.asarray(array)
