"""A call that is put off: its factory is called later, perhaps with other numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from gradtx.core._call import (
    Call,
    Remembered,
    canonical,
    rebuild,
    register,
    registered,
)
from gradtx.core._transformation import coerced

F = TypeVar("F", bound=Callable[..., Any])

#: For a factory, the arguments of it that are calls to be put off.
_DEFERRING: dict[Callable[..., Any], tuple[str, ...]] = {}


@dataclasses.dataclass(frozen=True, repr=False)
class Deferred(Remembered):
    """A factory and its arguments, which nobody has called.

    It is written down as the call that it will be, and compares by it.

    Args:
      call: the call.
      made: makes what the call would, as it is at the first step, for those who look
        inside.
    """

    made: Callable[[], Any] | None = dataclasses.field(default=None, compare=False)

    def make(self) -> Any:
        """Return what the call makes."""
        if self.made is not None:
            return self.made()
        return rebuild(self.call.factory, self.call.arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return deferred, (self.call.factory, dict(self.call.arguments))


def deferred(
    factory: Callable[..., Any],
    arguments: Mapping[str, Any],
    made: Callable[[], Any] | None = None,
) -> Deferred:
    """Put off a call.

    Args:
      factory: what is called later.
      arguments: all of them by name, defaults included.
      made: as in `Deferred`.
    """
    kept = dict(arguments)
    if is_registered(factory):  # else nobody knows what its arguments mean
        kept = {k: coerced(canonical(k, v)) for k, v in kept.items()}
    return Deferred(call=Call(factory, kept), made=made)


def deferring(*names: str) -> Callable[[F], F]:
    """Register a factory that takes deferred calls.

    `build` gives it these arguments as `Deferred`.

    Args:
      *names: the arguments that are calls to be put off.
    """

    def noted(factory: F) -> F:
        _DEFERRING[factory] = names
        register(factory)
        return factory

    return noted


def is_deferring(factory: Callable[..., Any]) -> bool:
    """Say whether some argument of a factory is a call to be put off."""
    return factory in _DEFERRING


def is_deferred(factory: Callable[..., Any], name: str) -> bool:
    """Say whether an argument of a factory is a call to be put off."""
    return name in _DEFERRING.get(factory, ())


def is_registered(factory: Callable[..., Any]) -> bool:
    """Say whether data can refer to a factory by its public name."""
    return any(known is factory for known in registered().values())


def deferred_in(call: Call) -> Deferred | None:
    """Return the deferred call among the arguments of a call, if there is one."""
    found = (v for v in call.arguments.values() if isinstance(v, Deferred))
    return next(found, None)


class Curried(Call):
    """A call of a factory of factories, and of what it returned.

    Its first argument is a deferred call. It prints as the two calls that it stands
    for: `inject_hyperparams(adam)(0.001)`.
    """

    def __repr__(self) -> str:
        name, inner = next(iter(self.arguments.items()))
        arguments = {**self.arguments, name: inner.call.factory}
        return f"{Call(self.factory, arguments)!r}({inner.call.arguments_text})"
