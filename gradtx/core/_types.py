"""Name the types that signatures share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import jax
import numpy as np

#: Any pytree of arrays.
ArrayTree: TypeAlias = Any
#: A pytree of parameters.
Params: TypeAlias = Any
#: A pytree of gradients or updates, structured like the parameters.
Updates: TypeAlias = Any
#: The state of a transformation: a pytree of arrays.
OptState: TypeAlias = Any
#: A number that may be traced.
Numeric: TypeAlias = jax.Array | np.ndarray | float
#: The name of a mapped axis, or several.
AxisName: TypeAlias = str | tuple[str, ...]
#: A number, or a function from the step to one.
ScalarOrSchedule: TypeAlias = "Numeric | Callable[[Numeric], Numeric]"
#: A pytree of bools that is the parameters' structure or a prefix of it, or a
#: function from the parameters to one.
MaskOrFn: TypeAlias = Any
#: What `jax.numpy.dtype` understands.
DTypeLike: TypeAlias = Any


#: A key of a random number generator, typed or raw.
PRNGKey: TypeAlias = jax.Array
#: The shape of an array.
Shape: TypeAlias = Sequence[int]

#: `params -> state`.
TransformInitFn: TypeAlias = Callable[..., Any]
#: `(updates, state, params=None, **extra) -> (updates, state)`.
TransformUpdateFn: TypeAlias = Callable[..., tuple[Any, Any]]
#: The same: every update function takes extra arguments.
TransformUpdateExtraArgsFn: TypeAlias = TransformUpdateFn


class InitUpdate(Protocol):
    """Anything with `init` and `update`, such as an optax transformation."""

    @property
    def init(self) -> TransformInitFn: ...

    @property
    def update(self) -> TransformUpdateFn: ...


#: What can be a link of a chain: a transformation, a look-alike, or a raw pair.
Link: TypeAlias = InitUpdate | tuple[TransformInitFn, TransformUpdateFn]
