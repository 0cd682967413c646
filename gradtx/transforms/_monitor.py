"""Measure updates on their way through a chain, and keep the values in the state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import (
    ArgumentError,
    DTypeLike,
    GradientTransformation,
    Inner,
    Link,
    Measured,
    Numeric,
    ShapeError,
    TreeMismatchError,
    as_transformation,
    bits,
    cast,
    check_shapes,
    check_structure,
    dtype_of,
    stateless,
    transformation,
    widened,
    working,
)
from gradtx.transforms._trace import ema


class SnapshotState(NamedTuple):
    """The state of `snapshot`.

    Attributes:
      measurement: the last measured value under its name; zeros after `init`.
    """

    measurement: Measured


class MonitorState(NamedTuple):
    """The state of `monitor`.

    Attributes:
      measurements: the last value of each measure, by name; zeros after `init`.
      measure_states: the states of those measures that keep one, in their order.
    """

    measurements: Measured
    measure_states: Inner


@transformation(shaped=True)
def snapshot(measure_name: str, measure: Callable[[Any], Any]):
    """Keep what a function measures of the updates in the state, and pass them on.

    `u ← g`; `measurement[measure_name] ← measure(g)`

    What the state holds has one structure, shape and dtype from `init` on, that of
    `measure(params)` in 32 bits or more, so that `lax.scan` can carry it.

    Args:
      measure_name: the name under which the value is kept.
      measure: a function from the updates, as they are at this place in the chain, to
        an array or a tree of arrays.

    Raises:
      TreeMismatchError: if updates give a value of another structure or shape than
        parameters do.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.chain(gradtx.snapshot("norm", gradtx.global_norm), gradtx.clip(1.0))
      >>> state = tx.init({"w": jnp.zeros(2)})
      >>> updates, state = tx.update({"w": jnp.array([3.0, 4.0])}, state)
      >>> state.snapshot.measurement["norm"].item()
      5.0

    Source: a probe in a chain, as optax names it.

    Differs from optax: before the first update the value is 0; optax measures the
    parameters, as if they were updates.
    """

    def init(params):
        return SnapshotState({measure_name: _zeros_of(measure, _as_updates(params))})

    def update(updates, state, params=None, **extra):
        kept = state.measurement[measure_name]
        made = _kept(measure_name, measure(updates), kept)
        return updates, SnapshotState({measure_name: made})

    return init, update


@transformation(stage="measure", shaped=True)
def monitor(measures: Mapping[str, Link | Callable[[Any], Any]]):
    """Keep what several measures find in the updates in the state, and pass them on.

    `u ← g`; `measurements[name] ← measures[name](g)` for each name

    As with `snapshot`, the state has one structure from `init` on.

    Args:
      measures: by name, functions from the updates to an array or a tree of arrays,
        or transformations that turn updates into what is to be kept, such as
        `measure_with_ema`; these get the parameters and extra arguments too.

    Raises:
      TreeMismatchError: if updates give a value of another structure or shape than
        parameters do.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> norm = gradtx.global_norm
      >>> tx = gradtx.monitor({"norm": norm, "mean": gradtx.measure_with_ema(norm, 0.9)})
      >>> state = tx.init({"w": jnp.zeros(2)})
      >>> updates, state = tx.update({"w": jnp.array([3.0, 4.0])}, state)
      >>> {name: round(x.item(), 3) for name, x in state.measurements.items()}
      {'mean': 5.0, 'norm': 5.0}

    Source: a probe in a chain, as optax names it.

    Differs from optax: the state holds zeros before the first update, where optax's
    holds nothing and changes its structure.
    """
    links = {name: _as_link(measure) for name, measure in measures.items()}

    def init(params):
        updates = _as_updates(params)
        states = tuple(link.init(params) for link in links.values())
        found = {}
        for (name, link), state in zip(links.items(), states, strict=True):
            value = lambda u, link=link, state=state: link.update(u, state, params)[0]
            found[name] = _zeros_of(value, updates)
        return MonitorState(found, states)

    def update(updates, state, params=None, **extra):
        found, states = {}, []
        for (name, link), old in zip(links.items(), state.measure_states, strict=True):
            value, new = link.update(updates, old, params, **extra)
            found[name] = _kept(name, value, state.measurements[name])
            states.append(new)
        return updates, MonitorState(found, tuple(states))

    return init, update


@transformation(shaped=True)
def measure_with_ema(
    measure: Callable[[Any], Any],
    decay: Numeric,
    debias: bool = True,
    accumulator_dtype: DTypeLike | None = None,
):
    """Replace updates by a running mean of what a function measures of them.

    `u ← ema(measure(g))`

    It belongs into `monitor`, not into a chain: its updates are measurements.

    Args:
      measure: as in `snapshot`. Bools and integers count as numbers: the mean of
        `norm > 1` is how often that holds.
      decay, debias, accumulator_dtype: as in `ema`.

    Raises:
      ArgumentError: if `decay` lies outside [0, 1).

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> often = gradtx.measure_with_ema(lambda g: jnp.max(g) > 1, decay=0.5)
      >>> state = often.init(jnp.zeros(2))
      >>> for g in (0.0, 2.0):
      ...     value, state = often.update(jnp.full(2, g), state)
      >>> round(value.item(), 3)
      0.667

    Source: the running mean of Kingma & Ba 2014, arXiv:1412.6980, section 3.
    """
    mean = ema(decay, debias, accumulator_dtype)

    def numbers(updates):
        return jax.tree.map(
            lambda x: working(jnp.asarray(x, _stored_dtype(x, numeric=True))),
            measure(updates),
        )

    def init(params):
        return mean.init(_zeros_of(numbers, _as_updates(params)))

    def update(updates, state, params=None, **extra):
        return mean.update(numbers(updates), state)

    return init, update


def _as_link(measure: Any) -> GradientTransformation:
    try:
        return as_transformation(measure)
    except ArgumentError:
        if not callable(measure):
            raise
    return stateless(lambda updates, params: measure(updates))


def _as_updates(params: Any) -> Any:
    """Return parameters with float0 in place of leaves that have no gradient."""

    def leaf(p: Any) -> Any:
        return p if bits(p) else np.zeros(jnp.shape(p), jax.dtypes.float0)

    return jax.tree.map(leaf, params)


def _zeros_of(measure: Callable[[Any], Any], updates: Any) -> Any:
    """Return zeros of the types in which what is measured of `updates` is kept.

    What is measured leaf by leaf lies where the leaves lie.
    """
    made = jax.eval_shape(lambda: measure(updates))
    leaves = jax.tree.structure(made) == jax.tree.structure(updates)

    def leaf(x: Any, beside: Any) -> jax.Array:
        if bits(beside) and x.shape == jnp.shape(beside):
            return jnp.zeros_like(beside, _stored_dtype(x))
        return jnp.zeros_like(x, _stored_dtype(x))

    return jax.tree.map(leaf, made, updates if leaves else made)


def _stored_dtype(x: Any, numeric: bool = False) -> Any:
    dtype = dtype_of(x)
    if dtype == jax.dtypes.float0:
        dtype = jnp.dtype(bool)  # what JAX itself puts for a value without information
    if numeric and not jnp.issubdtype(dtype, jnp.inexact):
        return jnp.dtype(jnp.float32)
    return widened(dtype)


def _kept(name: str, new: Any, old: Any) -> Any:
    """Return a measurement in the types of the one before."""
    try:
        check_structure(old, new, "the state", name)
        check_shapes(old, new, name)
    except (TreeMismatchError, ShapeError) as error:
        raise type(error)(
            f"{error} A measurement must not depend on more than the parameters' "
            "structure and shapes."
        ) from None

    def leaf(new: Any, old: Any) -> jax.Array:
        if dtype_of(new) == jax.dtypes.float0:
            return jnp.zeros_like(old)
        return cast(new, old.dtype)

    return jax.tree.map(leaf, new, old)
