"""Say what the fields of a state are.

A state is a `NamedTuple` whose annotations are roles. Whatever must work on any
optimizer (sharding, storage, checkpoints, telemetry) reads the roles, never the
name of an optimizer.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import typing
from typing import Annotated, Any, NamedTuple, TypeAlias

import jax


class Role(enum.Enum):
    """What a field of a state holds."""

    COUNT = "count"  #: an int32 scalar that counts and saturates
    SCALAR = "scalar"  #: one or a few float32 numbers (float64 beside 64-bit leaves)
    FLAG = "flag"  #: a bool scalar
    PER_PARAM = "per_param"  #: the parameters' structure and shapes
    FACTORED = "factored"  #: something per parameter, of another shape
    KEY = "key"  #: a key of a random number generator, or its data
    INNER = "inner"  #: the state of a wrapped transformation
    MEASURED = "measured"  #: what was measured: of any structure, and read by no update
    SAVED = "saved"  #: a copy of states and parameters of before, with roles of its own


@dataclasses.dataclass(frozen=True)
class Reading:
    """Says that a scalar field is worth watching, and under which name.

    `norm: Annotated[Scalar, Reading("gradient_norm")]` makes it a metric of
    `gradtx.telemetry`, whatever optimizer the state belongs to.

    Attributes:
      name: the name of the metric.
    """

    name: str


Count: TypeAlias = Annotated[jax.Array, Role.COUNT]
Scalar: TypeAlias = Annotated[jax.Array, Role.SCALAR]
Flag: TypeAlias = Annotated[jax.Array, Role.FLAG]
PerParam: TypeAlias = Annotated[Any, Role.PER_PARAM]
Factored: TypeAlias = Annotated[Any, Role.FACTORED]
Key: TypeAlias = Annotated[jax.Array, Role.KEY]
Inner: TypeAlias = Annotated[Any, Role.INNER]
Measured: TypeAlias = Annotated[Any, Role.MEASURED]
Saved: TypeAlias = Annotated[Any, Role.SAVED]


class EmptyState(NamedTuple):
    """The state of a transformation that keeps nothing."""


def roles(state: Any) -> dict[str, Role]:
    """Return the role of each field of a state, by field name.

    Args:
      state: a state or its class. A field without a role, such as one of an optax
        state, is left out.

    Example:
      >>> import gradtx
      >>> gradtx.roles(gradtx.ScaleByAdamState)["nu"]
      <Role.PER_PARAM: 'per_param'>
    """
    return dict(_notes(state if isinstance(state, type) else type(state), Role))


def readings(state: Any) -> dict[str, str]:
    """Return the names of the metrics that fields of a state are, by field name.

    Args:
      state: a state or its class.

    Example:
      >>> import gradtx
      >>> gradtx.core.readings(gradtx.ClipByGlobalNormState)["norm"]
      'gradient_norm'
    """
    found = _notes(state if isinstance(state, type) else type(state), Reading)
    return {field: note.name for field, note in found.items()}


@functools.cache
def _notes(cls: type, kind: type) -> dict[str, Any]:
    """Return what annotations say of the fields of a class, in notes of one kind."""
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except (
        NameError,
        TypeError,
    ):  # names that only their own module resolves: no roles
        return {}
    found = {}
    for field in getattr(cls, "_fields", ()):
        for note in getattr(hints.get(field), "__metadata__", ()):
            if isinstance(note, kind):
                found[field] = note
    return found
