"""Keep the hyperparameters of a transformation in its state, where they can change."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.combinators._kinds import is_number, is_schedule
from gradtx.core import (
    ArgumentError,
    Call,
    Count,
    Curried,
    Deferred,
    DTypeLike,
    GradientTransformation,
    GradtxError,
    Inner,
    Role,
    as_transformation,
    bits,
    cast,
    deferred,
    deferring,
    dtype_of,
    safe_increment,
    unchecked,
    zero_count,
)


class InjectHyperparamsState(NamedTuple):
    """The state of an injected transformation before it kept those of schedules.

    Only old checkpoints have it. The fields are as in `InjectStatefulHyperparamsState`.
    """

    count: Count
    hyperparams: Annotated[dict[str, jax.Array], Role.SCALAR]
    inner_state: Inner


class InjectStatefulHyperparamsState(NamedTuple):
    """The state of a transformation made by `inject_hyperparams`.

    Attributes:
      count: updates made so far.
      hyperparams: the numbers in use by name: those of the next update after `init`,
        those of the last one after `update`. An entry that no schedule sets may be
        replaced.
      hyperparams_states: the states of the schedules by the same names.
      inner_state: the state of the transformation inside.
    """

    count: Count
    hyperparams: Annotated[dict[str, jax.Array], Role.SCALAR]
    hyperparams_states: Inner
    inner_state: Inner


class WrappedScheduleState(NamedTuple):
    """The state of `WrappedSchedule`: how often it has been updated."""

    count: Count


@runtime_checkable
class StatefulSchedule(Protocol):
    """A schedule with a state of its own, which extra arguments may drive.

    It has no number of updates: `update` is called once at each, after `__call__`.
    """

    def init(self) -> Any:
        """Return the state before the first update."""
        ...

    def update(self, state: Any, **extra_args: Any) -> Any:
        """Return the state one update later."""
        ...

    def __call__(self, state: Any, **extra_args: Any) -> Any:
        """Return the value for the update that is being made."""
        ...


class WrappedSchedule:
    """A function of the step as a `StatefulSchedule`, whose state is a count.

    Args:
      schedule_fn: a function from the updates made so far to a number.
    """

    def __init__(self, schedule_fn: Callable[[Any], Any]):
        self.schedule_fn = schedule_fn

    def init(self) -> WrappedScheduleState:
        """Return a count of 0."""
        return WrappedScheduleState(zero_count())

    def update(
        self, state: WrappedScheduleState, **extra_args: Any
    ) -> WrappedScheduleState:
        """Return the count one step on."""
        return WrappedScheduleState(safe_increment(state.count))

    def __call__(self, state: WrappedScheduleState, **extra_args: Any) -> Any:
        """Return the value of the schedule at the count."""
        return self.schedule_fn(state.count)


@deferring("inner_factory")
def inject_hyperparams(
    inner_factory: Callable[..., Any],
    static_args: str | Iterable[str] = (),
    hyperparam_dtype: DTypeLike | None = None,
) -> Callable[..., GradientTransformation]:
    """Return a factory whose transformations keep their hyperparameters in the state.

    `update` builds the transformation from the numbers that it finds in the state.
    They can be read there, and replaced between updates without compiling anew.

    A number becomes a hyperparameter unless its argument is declared as an integer, a
    size for instance. A function becomes a schedule where a number may stand: where
    the argument is declared as a number, has one for its default, or has neither
    declaration nor default. A number that the factory must look at, such as one of
    which only 0 switches something off, stays what it is. Masks and other functions stay what they are. A
    `StatefulSchedule` also gets the extra arguments of `update`. What is scheduled is
    computed at each update: replacing its entry in the state changes nothing.

    Args:
      inner_factory: a factory such as `adamw`, of gradtx, of optax or your own.
      static_args: the arguments, one or several, that stay as they are.
      hyperparam_dtype: dtype of the hyperparameters. By default float32, or float64
        beside parameters of 64 bits. Arrays keep their own.

    Returns:
      A factory with the arguments of `inner_factory`. The state of what it makes is
      an `InjectStatefulHyperparamsState`. What it makes remembers both calls: it prints
      as `inject_hyperparams(sgd)(0.1)`, and has a description where `inner_factory` has.

    Raises:
      ArgumentError: if `inner_factory` has no argument of a name in `static_args`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.inject_hyperparams(gradtx.sgd)(learning_rate=1.0)
      >>> state = tx.init(jnp.zeros(1))
      >>> state.hyperparams["learning_rate"] = 0.25
      >>> tx.update(jnp.ones(1), state)[0].tolist()
      [-0.25]

    Source: the `param_groups` of torch.optim, whose numbers can be set at any time.

    Differs from optax: hyperparameters of bfloat16 or float16 parameters are float32,
    for b2 = 0.999 would round to 1; integers declared as such, functions that are no
    schedules, and dtypes need no `static_args`.
    """
    if isinstance(inner_factory, Deferred):  # from a description, or a pickle
        return _made_again(inner_factory, static_args, hyperparam_dtype)
    static = {static_args} if isinstance(static_args, str) else set(static_args)
    signature = inspect.signature(inner_factory)
    if unknown := sorted(static - set(signature.parameters)):
        raise ArgumentError(
            f"static_args must name arguments of the factory, got {unknown[0]!r}; it "
            f"takes {', '.join(signature.parameters)}.",
            "inject_hyperparams",
        )

    @functools.wraps(inner_factory)
    def injected(*args: Any, **kwargs: Any) -> GradientTransformation:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        numbers: dict[str, Any] = {}
        schedules: dict[str, StatefulSchedule] = {}
        for name, value in bound.arguments.items():
            declared = signature.parameters[name]
            if name in static:
                continue
            if isinstance(value, StatefulSchedule):
                schedules[name] = value
            elif is_schedule(value, declared):
                schedules[name] = WrappedSchedule(value)
            elif is_number(value, declared):
                numbers[name] = value

        def build(values: Mapping[str, Any]) -> GradientTransformation:
            made = inspect.BoundArguments(
                signature,
                {k: values.get(k, v) for k, v in bound.arguments.items()},
            )
            return as_transformation(inner_factory(*made.args, **made.kwargs))

        if not schedules:
            build({})  # wrong numbers are told here, before they are arrays
        arrays = dict.fromkeys(schedules, 0.0)
        numbers = {
            k: v for k, v in numbers.items() if _may_vary(build, arrays | {k: v})
        }
        made = _made_of(build, arrays | numbers)
        # what the factory makes of arrays is compiled with them, not around them
        pure = Call(inner_factory, bound.arguments).is_pure
        tx = _injected(build, numbers, schedules, hyperparam_dtype, made, pure)
        first = functools.partial(_first, build, schedules)
        arguments = {
            "inner_factory": deferred(inner_factory, bound.arguments, first),
            "static_args": tuple(sorted(static)),
            "hyperparam_dtype": hyperparam_dtype and jnp.dtype(hyperparam_dtype).name,
        }
        return dataclasses.replace(tx, call=Curried(inject_hyperparams, arguments))

    return injected


#: optax's older spelling.
inject_stateful_hyperparams = inject_hyperparams


def _injected(
    build: Callable[[Mapping[str, Any]], GradientTransformation],
    numbers: Mapping[str, Any],
    schedules: Mapping[str, StatefulSchedule],
    hyperparam_dtype: Any,
    like: GradientTransformation,
    pure: bool,
) -> GradientTransformation:
    """Return the transformation that builds another one, such as `like`, at each update."""

    def dtype_beside(tree):
        if hyperparam_dtype is not None:
            return hyperparam_dtype
        double = any(bits(x) == 64 for x in jax.tree.leaves(tree))
        return jnp.float64 if double else jnp.float32

    def again(values):
        with unchecked():
            return build(values)

    def inject_hyperparams_init(params):
        dtype = dtype_beside(params)
        states = {name: made.init() for name, made in schedules.items()}
        values = {
            k: jnp.array(_kept(v, dtype, v), copy=True) for k, v in numbers.items()
        }
        for name, made in schedules.items():
            values[name] = cast(made(states[name]), dtype)
        return InjectStatefulHyperparamsState(
            count=zero_count(),
            hyperparams=values,
            hyperparams_states=states,
            inner_state=again(values).init(params),
        )

    def inject_hyperparams(updates, state, params=None, **extra):
        if state.hyperparams.keys() != numbers.keys() | schedules.keys():
            raise ArgumentError(
                f"the state must have the hyperparameters {[*numbers, *schedules]}, got "
                f"{[*state.hyperparams]}. Others cannot change: make the optimizer anew."
            )
        dtype = dtype_beside(updates if params is None else params)
        before = state.hyperparams_states
        values = {
            k: _kept(v, dtype, numbers.get(k)) for k, v in state.hyperparams.items()
        }
        for name, made in schedules.items():
            values[name] = cast(made(before[name], **extra), values[name].dtype)
        states = {k: made.update(before[k], **extra) for k, made in schedules.items()}
        updates, inner_state = again(values).update(
            updates, state.inner_state, params, **extra
        )
        return updates, InjectStatefulHyperparamsState(
            safe_increment(state.count), values, states, inner_state
        )

    inject_hyperparams.__qualname__ = "inject_hyperparams"  # a chain's name for it
    return GradientTransformation(
        inject_hyperparams_init,
        inject_hyperparams,
        traits=like.traits,
        pure=pure,
        order=like.order,
    )


def _made_again(inner: Deferred, static_args: Any, hyperparam_dtype: Any) -> Any:
    factory, arguments = inner.call.factory, dict(inner.call.arguments)
    bound = inspect.BoundArguments(inspect.signature(factory), arguments)
    injected = inject_hyperparams(factory, static_args, hyperparam_dtype)
    return injected(*bound.args, **bound.kwargs)


def _first(
    build: Callable[[Mapping[str, Any]], GradientTransformation],
    schedules: Mapping[str, StatefulSchedule],
) -> GradientTransformation:
    """Return what is inside at the first step.

    A schedule stays one where the factory takes it as it is.
    """
    values = {name: made(made.init()) for name, made in schedules.items()}
    wrapped = [k for k, made in schedules.items() if isinstance(made, WrappedSchedule)]
    with unchecked():
        try:
            return build({k: v for k, v in values.items() if k not in wrapped})
        except (GradtxError, TypeError):
            return build(values)


def _made_of(
    build: Callable[..., Any], values: Mapping[str, Any]
) -> GradientTransformation:
    """Return what a factory makes when these numbers are arrays, for what it declares."""
    found: list[GradientTransformation] = []

    def trial(values: Mapping[str, Any]) -> None:
        found.append(build(values))

    jax.eval_shape(trial, _as_arrays(values))
    return found[0]


def _as_arrays(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v if bits(v) else cast(v, jnp.float32) for k, v in values.items()}


def _may_vary(build: Callable[..., Any], values: Mapping[str, Any]) -> bool:
    """Say whether a factory takes arrays for some numbers without looking at them."""

    def trial(values: Mapping[str, Any]) -> None:
        build(values)

    try:
        jax.eval_shape(trial, _as_arrays(values))
    except jax.errors.ConcretizationTypeError:
        return False
    return True


def _kept(value: Any, dtype: Any, first: Any) -> jax.Array:
    """Return a hyperparameter as an array of `dtype`, or of its own if it has one.

    It is an integer only if what the factory was `first` called with is an array of
    integers.
    """
    whole = isinstance(first, (jax.Array, np.ndarray)) and not bits(first)
    strong = isinstance(value, jax.Array) and not jax.typeof(value).weak_type
    if strong and bool(bits(value)) != whole:
        return value
    return jnp.asarray(value, dtype_of(first)) if whole else cast(value, dtype)
