"""Define the transformation value: a pair `(init, update)` that remembers its call."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec

import jax

from gradtx.core import _call
from gradtx.core._collectives import varying_like
from gradtx.core._errors import ArgumentError, signed
from gradtx.core._tree import placed_beside
from gradtx.core._types import TransformInitFn, TransformUpdateFn

P = ParamSpec("P")


@dataclasses.dataclass(frozen=True, repr=False)
class GradientTransformation(_call.Remembered):
    """A pure gradient transformation: `init` and `update`, and the call behind them.

    `init(params) -> state` and `update(updates, state, params=None, **extra) ->
    (updates, state)`. `update` ignores extra arguments that it does not need. The
    value is frozen and hashable, and no pytree: casting a bundle of arrays leaves
    its hyperparameters alone. It prints as the call that made it, compares and
    hashes by that call, pickles by name, and unpacks: `init, update = tx`.

    A pair made by hand is opaque: it compares by the identity of its functions and
    has no description.

    Args:
      init: makes the state for a pytree of parameters. Must accept
        `jax.ShapeDtypeStruct` leaves under `jax.eval_shape`.
      update: turns updates and a state into new updates and a new state.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.sgd(0.5)
      >>> tx
      sgd(0.5)
      >>> updates, state = tx.update({"w": jnp.ones(2)}, tx.init({"w": jnp.zeros(2)}))
      >>> updates["w"].tolist()
      [-0.5, -0.5]
    """

    init: TransformInitFn = dataclasses.field(compare=False)
    update: TransformUpdateFn = dataclasses.field(compare=False)

    def __post_init__(self) -> None:
        opaque = self.call is None
        super().__post_init__()
        if opaque:
            object.__setattr__(self, "init", _signed_init(self.name, self.init))
            object.__setattr__(self, "update", _signed_update(self.name, self.update))

    def __iter__(self) -> Iterator[Any]:
        return iter((self.init, self.update))

    def __getitem__(self, index: int) -> Any:
        return (self.init, self.update)[index]

    def __len__(self) -> int:
        return 2

    @property
    def name(self) -> str:
        """The name under which a chain files this link's state."""
        if self.call.factory is GradientTransformation:
            return _link_name(self.call.arguments["update"])
        return self.call.factory.__name__


#: Every gradtx transformation takes extra arguments, so the two names are one.
GradientTransformationExtraArgs = GradientTransformation


def transformation(
    factory: Callable[P, Any],
) -> Callable[P, GradientTransformation]:
    """Turn a factory of `(init, update)` pairs into a factory of transformations.

    What the factory returns becomes a `GradientTransformation` that remembers the
    call. A factory may also return a whole transformation, such as a chain: the
    result then carries the factory's own name and arguments. Arguments that are raw
    pairs or optax transformations are made into transformations first; NumPy scalars
    become Python numbers, and dtypes their names.

    `update` runs under `jax.named_scope("gradtx/<name>")`. If it takes no `**extra`,
    extra arguments that it does not name are dropped. What `init` makes on one device
    for parameters that are sharded over a mesh is replicated over that mesh.

    Args:
      factory: a function that returns `(init, update)` or a transformation.

    Raises:
      ArgumentError: if the factory returns anything else.

    Example:
      >>> import jax, gradtx
      >>> @gradtx.transformation
      ... def halve(times: int = 1):
      ...     def update(updates, state, params=None):
      ...         return jax.tree.map(lambda g: g / 2**times, updates), state
      ...     return gradtx.identity().init, update
      >>> halve(times=3)
      halve(3)
    """

    def finish(returned: Any, call: _call.Call) -> GradientTransformation:
        name = factory.__name__
        if isinstance(returned, GradientTransformation):
            return GradientTransformation(returned.init, returned.update, call=call)
        try:
            init, update = returned
        except (TypeError, ValueError):
            raise ArgumentError(
                f"the factory must return (init, update) or a transformation, got "
                f"{type(returned).__name__}.",
                name,
            ) from None
        init, update = _signed_init(name, init), _signed_update(name, update)
        return GradientTransformation(init, update, call=call)

    return _call.remembering(factory, GradientTransformation, finish, _coerced)


def as_transformation(tx: Any) -> GradientTransformation:
    """Return `tx` as a transformation: itself, a raw pair, or a look-alike.

    Args:
      tx: a transformation, a tuple `(init, update)`, or any object with `init` and
        `update` functions, such as an optax transformation.

    Raises:
      ArgumentError: if `tx` is nothing of the kind.
    """
    if isinstance(tx, GradientTransformation):
        return tx
    if _resembles(tx):
        return GradientTransformation(tx.init, tx.update)
    if isinstance(tx, tuple) and len(tx) == 2 and all(map(callable, tx)):
        return GradientTransformation(*tx)
    hint = (
        f" Did you forget to call it: {tx.__name__}(...)?"
        if inspect.isfunction(tx)
        else ""
    )
    raise ArgumentError(
        "expected a transformation, a pair (init, update) or an optax "
        f"transformation, got {_call.show(tx)}.{hint}"
    )


#: Another name for `as_transformation`, which gives extra arguments to any pair.
with_extra_args_support = as_transformation


def _resembles(value: Any) -> bool:
    return callable(getattr(value, "init", None)) and callable(
        getattr(value, "update", None)
    )


def _coerced(argument: Any) -> Any:
    """Replace look-alikes of transformations inside an argument."""
    return jax.tree.map(
        lambda v: as_transformation(v) if _resembles(v) else v,
        argument,
        is_leaf=_resembles,
    )


def _signed_init(name: str, init: Callable[..., Any]) -> TransformInitFn:
    """Sign the errors of `init`, and lay what it makes beside sharded parameters."""

    @functools.wraps(init)
    def placed(params: Any) -> Any:
        with signed(name):
            return placed_beside(params, init(params))

    return placed


def _signed_update(name: str, update: Callable[..., Any]) -> TransformUpdateFn:
    """Scope `update`, sign its errors, and give it only arguments that it takes."""
    parameters = list(inspect.signature(update).parameters.values())
    by_place = [p for p in parameters if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)]
    many = any(p.kind is p.VAR_POSITIONAL for p in by_place)
    by_name = len(by_place) < 3 and not many
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = {p.name for p in parameters if p.kind is not p.VAR_POSITIONAL}
    named -= {p.name for p in parameters[:3] if p.kind is not p.KEYWORD_ONLY}

    @functools.wraps(update)
    def scoped(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        if not takes_all:
            extra = {k: v for k, v in extra.items() if k in named}
        with jax.named_scope(f"gradtx/{name}"), signed(name):
            if by_name:
                known = {"params": params} if takes_all or "params" in named else {}
                updates, new = update(updates, state, **known, **extra)
            else:
                updates, new = update(updates, state, params, **extra)
            return updates, varying_like(state, new)

    return scoped


def _link_name(update: Callable[..., Any]) -> str:
    """Name a pair after the function that made it, where that can be told."""
    name = getattr(update, "__qualname__", "").split(".")[0]
    return name if name.isidentifier() and not name.startswith("_") else "link"
