"""Define the transformation value: a pair `(init, update)` that remembers its call."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec, overload

import jax

from gradtx.core import _call
from gradtx.core._collectives import varying_like
from gradtx.core._eager import compiled_once, is_concrete, is_traced
from gradtx.core._errors import ArgumentError, signed
from gradtx.core._layout import Cut
from gradtx.core._packed import has_packed, repack, unpack
from gradtx.core._stage_rules import Part
from gradtx.core._stages import order_of, unpickled
from gradtx.core._traits import Traits, joined, require
from gradtx.core._tree import check_shapes, check_structure, placed_beside
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
      traits: what it needs and how it behaves.
      pure: whether results depend on the arguments alone, and what is traced may be
        traced once: calls outside `jit` are then compiled.
      order: the parts in it whose order matters, as they act one after the other.

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
    # nothing is known of a pair made by hand: it sees leaves as they are
    traits: Traits = dataclasses.field(
        default=Traits(shaped=True), compare=False, kw_only=True
    )
    pure: bool = dataclasses.field(default=False, compare=False, kw_only=True)
    order: tuple[Part, ...] = dataclasses.field(default=(), compare=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.call is not None:
            return
        pair = {"init": self.init, "update": self.update, "traits": self.traits}
        call = _call.Call(GradientTransformation, pair | {"pure": self.pure})
        object.__setattr__(self, "call", call)
        key = call if self.pure else None
        shaped = self.traits.shaped
        update = _signed_update(self.name, self.update, self.traits, shaped, key)
        init = _signed_init(self.name, self.init, shaped, key)
        object.__setattr__(self, "init", init)
        object.__setattr__(self, "update", update)

    def __iter__(self) -> Iterator[Any]:
        return iter((self.init, self.update))

    def __getitem__(self, index: int) -> Any:
        return (self.init, self.update)[index]

    def __len__(self) -> int:
        return 2

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild, arguments = super().__reduce__()
        return unpickled, (rebuild, *arguments)

    @property
    def name(self) -> str:
        """The name under which a chain files this link's state."""
        if self.call.factory is GradientTransformation:
            return _link_name(self.call.arguments["update"])
        return self.call.factory.__name__


#: Every gradtx transformation takes extra arguments, so the two names are one.
GradientTransformationExtraArgs = GradientTransformation


@overload
def transformation(
    factory: Callable[P, Any], /
) -> Callable[P, GradientTransformation]: ...


@overload
def transformation(
    *,
    adjust: Callable[[Traits, Mapping[str, Any]], Traits] | None = None,
    pure: bool | None = None,
    **declared: Any,
) -> Callable[[Callable[P, Any]], Callable[P, GradientTransformation]]: ...


def transformation(
    factory: Callable[..., Any] | None = None,
    /,
    *,
    adjust: Callable[[Traits, Mapping[str, Any]], Traits] | None = None,
    pure: bool | None = None,
    **declared: Any,
) -> Any:
    """Turn a factory of `(init, update)` pairs into a factory of transformations.

    What the factory returns becomes a `GradientTransformation` that remembers the
    call. A factory may also return a whole transformation, such as a chain: the
    result then carries the factory's own name and arguments. Arguments that are raw
    pairs or optax transformations are made into transformations first; NumPy scalars
    become Python numbers, and dtypes their names.

    `update` runs under `jax.named_scope("gradtx/<name>")`. It raises where something
    that it needs is missing, and where updates and parameters differ in structure or
    shapes. If it takes no `**extra`, extra arguments that it does not name are dropped.
    What `init` makes on one device for parameters that are sharded over a mesh is
    replicated over that mesh.

    Args:
      factory: a function that returns `(init, update)` or a transformation.
      adjust: changes the traits where they depend on the arguments:
        `(traits, arguments by name) -> traits`.
      pure: whether results depend on the arguments alone, so that calls of `init` and
        `update` outside `jit` may be compiled. By default it is so for what gradtx
        defines, unless an argument is a function of somebody else.
      **declared: traits that are not the usual ones, by the names of the fields of
        `Traits`. Those of transformations among the arguments, and of a transformation
        that the factory returns, are joined to them.

    Raises:
      ArgumentError: if the factory returns anything else, or a trait does not exist.

    Example:
      >>> import jax, gradtx
      >>> @gradtx.transformation(reach="element")
      ... def halve(times: int = 1):
      ...     def update(updates, state, params=None):
      ...         return jax.tree.map(lambda g: g / 2**times, updates), state
      ...     return gradtx.identity().init, update
      >>> halve(times=3)
      halve(3)
    """
    if factory is None:
        own = Traits(**declared)
        return lambda factory: _remembered(factory, own, adjust, pure)
    return _remembered(factory, Traits(), None, None)


def _remembered(
    factory: Callable[..., Any],
    own: Traits,
    adjust: Callable[[Traits, Mapping[str, Any]], Traits] | None,
    pure: bool | None,
) -> Callable[..., GradientTransformation]:
    name = factory.__name__

    def finish(returned: Any, call: _call.Call) -> GradientTransformation:
        try:
            init, update = returned
        except (TypeError, ValueError):
            raise ArgumentError(
                f"the factory must return (init, update) or a transformation, got "
                f"{type(returned).__name__}.",
                name,
            ) from None
        # a factory that returns a transformation has passed its arguments to it
        inside = _inside(list(call.arguments.values()))
        parts = _inside(returned) or inside
        traits = joined([*(tx.traits for tx in parts), own])
        traits = traits.replace(
            scale_free=own.scale_free,
            stage=own.stage,
            negates=own.negates,
            inherited=traits.inherited - own.exempt.keys(),
        )
        if adjust is not None:
            traits = adjust(traits, call.arguments)
        meant = getattr(returned, "order", None)
        links = getattr(update, "links", ())
        order = order_of(call, traits, meant, links, inside)
        # what a part needs is asked for by the part, so that the error names it
        own_needs = traits.needs - joined(tx.traits for tx in parts).needs
        known = call.is_pure and getattr(returned, "pure", True)
        known = known if pure is None else pure
        key = call if known else None
        # a part that must see single leaves unpacks them itself
        shaped = own.shaped or own.reach == "leaf"
        own_traits = traits.replace(needs=own_needs)
        init = _signed_init(name, init, shaped, key)
        update = _signed_update(name, update, own_traits, shaped, key)
        return GradientTransformation(
            init, update, traits=traits, pure=known, order=order, call=call
        )

    return _call.remembering(factory, GradientTransformation, finish, coerced)


def _inside(argument: Any) -> list[GradientTransformation]:
    """Return the transformations in an argument."""
    is_one = lambda x: isinstance(x, GradientTransformation)
    return [x for x in jax.tree.leaves(argument, is_leaf=is_one) if is_one(x)]


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
        return GradientTransformation(tx.init, tx.update)  # and sees no `Packed`
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


def coerced(argument: Any) -> Any:
    """Replace look-alikes of transformations inside an argument."""
    return jax.tree.map(
        lambda v: as_transformation(v) if _resembles(v) else v,
        argument,
        is_leaf=_resembles,
    )


def _signed_init(
    name: str, init: Callable[..., Any], shaped: bool, key: _call.Call | None
) -> TransformInitFn:
    """Sign the errors of `init`, and lay what it makes beside sharded parameters.

    Where it is `shaped` it sees no `Packed`. With a key, calls outside `jit` are
    compiled.
    """

    def plain(params: Any) -> Any:
        with signed(name):
            return _seen(init, shaped, params)

    @functools.wraps(init)
    def placed(params: Any) -> Any:
        if is_traced():
            return plain(params)
        if key is not None and is_concrete(params):
            return run(params)
        return placed_beside(params, plain(params))

    run = compiled_once((key, "init"), plain)
    return placed


def _signed_update(
    name: str,
    update: Callable[..., Any],
    traits: Traits,
    shaped: bool,
    key: _call.Call | None,
) -> TransformUpdateFn:
    """Scope and guard `update`, sign its errors, give it only what it takes.

    Where it is `shaped` it sees no `Packed`. With a key, calls outside `jit` are
    compiled.
    """
    parameters = list(inspect.signature(update).parameters.values())
    by_place = [p for p in parameters if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)]
    starred = any(p.kind is p.VAR_POSITIONAL for p in by_place)
    by_name = len(by_place) < 3 and not starred
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = {p.name for p in parameters if p.kind is not p.VAR_POSITIONAL}
    named -= {p.name for p in parameters[:3] if p.kind is not p.KEYWORD_ONLY}

    per_example = traits.form == "examples"

    def plain(updates: Any, state: Any, params: Any, extra: dict[str, Any]) -> Any:
        with jax.named_scope(f"gradtx/{name}"), signed(name):
            require(traits.needs, {"params": params, **extra})
            if params is not None and traits.form in ("gradients", "examples"):
                check_structure(params, updates, "params", "updates")
                check_shapes(params, updates, "updates", leading=per_example)
            made, new = _seen(called, shaped, updates, state, params, extra)
            if not has_packed(made) and has_packed(updates):
                made = repack(made, updates)
            return made, varying_like(state, new)

    def called(updates: Any, state: Any, params: Any, extra: dict[str, Any]) -> Any:
        if not by_name:
            return update(updates, state, params, **extra)
        known = {"params": params} if takes_all or "params" in named else {}
        return update(updates, state, **known, **extra)

    @functools.wraps(update)
    def scoped(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        if not takes_all:
            extra = {k: v for k, v in extra.items() if k in named}
        if key is None or is_traced() or not is_concrete((updates, params, extra)):
            return plain(updates, state, params, extra)
        return run(updates, state, params, extra)

    run = compiled_once((key, "update"), plain)
    return scoped


def _seen(function: Callable[..., Any], shaped: bool, *args: Any) -> Any:
    """Call `function`, with trees in place of what is packed where it needs them."""
    if not has_packed(args):
        return function(*args)
    if not shaped:
        try:
            return function(*args)
        except Cut:  # a mask or label tells leaves apart that lie in one array
            pass
    return function(*map(unpack, args))


def _link_name(update: Callable[..., Any]) -> str:
    """Name a pair after the function that made it, where that can be told."""
    name = getattr(update, "__qualname__", "").split(".")[0]
    return name if name.isidentifier() and not name.startswith("_") else "link"
