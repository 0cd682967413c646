"""A call that remembers itself: a factory and the arguments it was given.

Transformations, schedules and leaf selectors each hold one. It gives them their
printed form, equality by value, hash, pickling by name and their description.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core._errors import ArgumentError, signed

_REGISTRY: dict[str, Callable[..., Any]] = {}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Call:
    """A factory together with its bound arguments, defaults included.

    Two calls are equal where the factory is the same object and all arguments are
    equal by value: numbers by bits, arrays by content, pytrees leaf by leaf,
    functions by identity.
    """

    factory: Callable[..., Any]
    arguments: Mapping[str, Any]

    @functools.cached_property
    def key(self) -> tuple[Any, ...]:
        """The value by which calls compare."""
        return (self.factory, *((n, _key(v)) for n, v in self.arguments.items()))

    @functools.cached_property
    def is_pure(self) -> bool:
        """Whether all functions in the call are gradtx's own, and so known to be pure.

        An inexact array among the arguments may be another one at each step: it is no
        constant to compile in.
        """
        leaves = jax.tree.leaves(list(self.arguments.values()))
        return _is_own(self.factory) and all(map(_is_known, leaves))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Call) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        name = getattr(self.factory, "__name__", None) or show(self.factory)
        return f"{name}({self.arguments_text})"

    @property
    def arguments_text(self) -> str:
        """The arguments that are not the default ones, as they would be written."""
        shown, positional = [], True
        for index, (name, parameter) in enumerate(parameters(self.factory).items()):
            if name not in self.arguments:
                continue
            value = self.arguments[name]
            if parameter.kind is parameter.VAR_POSITIONAL:
                shown += [show(v) for v in value]
            elif _key(value) == _key(canonical(name, parameter.default)):
                positional = False
            elif (
                positional
                and parameter.kind is not parameter.KEYWORD_ONLY
                and (parameter.default is parameter.empty or index == 0)
            ):
                shown.append(show(value))
            else:
                positional = False
                shown.append(f"{name}={show(value)}")
        return ", ".join(shown)


@dataclasses.dataclass(frozen=True, repr=False)
class Remembered:
    """What transformations, schedules and selectors share: they are their call.

    A value made by hand, not by a factory, remembers its own constructor.
    """

    call: Call = dataclasses.field(kw_only=True, default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.call is None:
            names = [f.name for f in dataclasses.fields(self) if f.name != "call"]
            call = Call(type(self), {name: getattr(self, name) for name in names})
            object.__setattr__(self, "call", call)

    def __repr__(self) -> str:
        return repr(self.call)

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild, (self.call.factory, dict(self.call.arguments))

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self


def same(a: Any, b: Any) -> bool:
    """Say whether two arguments are equal by value, as those of equal calls are."""
    return _key(a) == _key(b)


def rebuild(factory: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Call `factory` with arguments given by name, starred ones included."""
    bound = inspect.BoundArguments(_signature(factory), dict(arguments))
    return factory(*bound.args, **bound.kwargs)


def completed(
    factory: Callable[..., Any], arguments: Mapping[str, Any]
) -> inspect.BoundArguments:
    """Return arguments given by name, bound to a factory, with its defaults.

    Raises:
      TypeError: if one is missing.
    """
    given = inspect.BoundArguments(_signature(factory), dict(arguments))
    made = _signature(factory).bind(*given.args, **given.kwargs)
    made.apply_defaults()
    return made


def parameters(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a factory by name, in order."""
    return _signature(factory).parameters


def remembering(
    factory: Callable[..., Any],
    made: type,
    finish: Callable[[Any, Call], Any],
    prepare: Callable[[Any], Any] = lambda argument: argument,
) -> Callable[..., Any]:
    """Wrap `factory` so that what it returns is finished with its own `Call`.

    Args:
      factory: the function to wrap. It is registered under its public name.
      made: what it makes, shown as its return type.
      finish: `(returned, call) -> value`.
      prepare: applied to each argument before it is passed on and remembered.
    """

    @functools.wraps(factory)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        bound = _signature(factory).bind(*args, **kwargs)
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            bound.arguments[name] = prepare(canonical(name, value))
        with signed(factory.__name__):
            returned = factory(*bound.args, **bound.kwargs)
        return finish(returned, Call(wrapper, bound.arguments))

    signature = inspect.signature(factory).replace(return_annotation=made)
    wrapper.__signature__ = signature  # type: ignore[attr-defined]
    register(wrapper)
    return wrapper


def register(factory: Callable[..., Any]) -> None:
    """Make `factory` known to `build` under its public name."""
    name = public_name(factory)
    old = _REGISTRY.get(name)
    if old is not None and old.__module__ != factory.__module__:
        raise ArgumentError(
            f"{name} is defined in {old.__module__} and in {factory.__module__}. "
            "Rename one."
        )
    _REGISTRY[name] = factory


def registered() -> Mapping[str, Callable[..., Any]]:
    """Return the factories known to this process, by public name."""
    return dict(_REGISTRY)


def public_name(factory: Callable[..., Any]) -> str:
    """Return the name by which data refers to `factory`."""
    module = factory.__module__ or "__main__"
    root = "gradtx" if module.split(".")[0] == "gradtx" else module
    return f"{root}.{factory.__qualname__}"


def show(value: Any) -> str:
    """Print an argument as it would be written in a call."""
    if isinstance(value, (jax.Array, np.ndarray)):
        return f"<{value.dtype}{list(value.shape)}>"
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        inside = ", ".join(show(v) for v in value)
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    if isinstance(value, list):
        return f"[{', '.join(show(v) for v in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k!r}: {show(v)}' for k, v in value.items())}}}"
    if inspect.isroutine(value) or isinstance(value, type):
        return getattr(value, "__qualname__", repr(value))
    return repr(value)


@functools.cache
def _signature(factory: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(factory)


def canonical(name: str, value: Any) -> Any:
    """Give equal arguments one form, in containers of their own."""
    if value is not None and (name.endswith("_dtype") or name.split("_")[0] == "dtype"):
        try:
            return jnp.dtype(value).name
        except TypeError as error:
            raise ArgumentError(f"{name} must be a dtype, got {value!r}.") from error
    return jax.tree.map(
        lambda v: v.item() if isinstance(v, (np.number, np.bool_)) else v, value
    )


def _key(value: Any) -> Any:
    """Return something hashable that is equal for equal arguments."""
    if isinstance(value, float):
        return ("float", value.hex())
    if value is None or isinstance(value, (bool, int, str)):
        return (type(value).__name__, value)
    if isinstance(value, Tracer):
        return _Same(value)
    if isinstance(value, (jax.Array, np.ndarray)):
        dtype = str(value.dtype)
        if isinstance(value, jax.Array) and jnp.issubdtype(dtype_of(value), _KEY):
            value = jax.random.key_data(value)
        return (dtype, value.shape, np.asarray(value).tobytes())
    leaves, structure = jax.tree.flatten(value)
    if jax.tree_util.treedef_is_leaf(structure):
        try:
            hash(value)
        except TypeError:
            return _Same(value)
        return value
    return (structure, *map(_key, leaves))


_KEY = jax.dtypes.prng_key


def dtype_of(x: Any) -> Any:
    """Return the dtype of an array, of a shape-and-dtype or of a Python number."""
    return x.dtype if hasattr(x, "dtype") else jax.dtypes.result_type(x)


def _is_own(function: Any) -> bool:
    module = getattr(function, "__module__", None) or ""
    return module.split(".")[0] == "gradtx"


def _is_known(argument: Any) -> bool:
    if isinstance(argument, Remembered):
        return getattr(argument, "pure", argument.call.is_pure)
    if isinstance(argument, jax.Array):
        return not jnp.issubdtype(argument.dtype, jnp.inexact)
    return not callable(argument) or _is_own(argument)


class _Same:
    """Compare by identity, and keep what is compared alive."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)
