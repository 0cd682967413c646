"""Measure what goes into an optimizer and comes out of it, as data in its state."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core import (
    ArgumentError,
    AxisName,
    Count,
    GradientTransformation,
    Inner,
    Link,
    MaskOrFn,
    Measured,
    PerParam,
    Role,
    after,
    as_shapes,
    as_transformation,
    bits,
    cast,
    check_count,
    fields,
    links_of,
    readings as readings_of,
    safe_increment,
    scaled_norm,
    transformation,
    varying_axes,
    varying_like,
    zero_count,
    zero_norm,
    zeros_like,
)
from gradtx.telemetry._blocks import held
from gradtx.telemetry._measure import measured, nothing_kept, nothing_measured
from gradtx.telemetry._passes import Plan, either
from gradtx.telemetry._rows import paths_of, rows_of


class ObserveState(NamedTuple):
    """The state of `observe`; `gradtx.telemetry.read` gives what it tells.

    Attributes:
      count: updates that were observed.
      inner_state: the state of the observed transformation.
      latest: what was measured of the last update, by name.
      measured: what the last measurement found, by name: one number for each row,
        which are all parameters, each group and each leaf.
      window: what was measured of the last updates, in a ring; −1 where nothing was.
      previous: gradients to compare with at the next measurement.
      groups: labels of the rows that are groups, each with nothing.
      leaves: paths of the rows that are leaves, each with nothing.
    """

    count: Count
    inner_state: Inner
    latest: Measured
    measured: Measured
    window: Measured
    previous: PerParam
    groups: Measured
    leaves: Measured


@transformation
def observe(
    inner: Link,
    *,
    every: int = 100,
    groups: MaskOrFn | None = None,
    per_leaf: bool = False,
    moments: bool = True,
    effective: bool = True,
    histograms: bool = False,
    successive: bool = False,
    window: int = 100,
    replicas: AxisName | None = None,
    axis_name: AxisName | None = None,
):
    """Apply `inner`, and keep in the state what a person wants to know of the update.

    `u ← inner(g)`, up to the rounding of what the compiler joins otherwise

    Of each update: the norm of the gradients, its mean and variance over a window,
    whether it was clipped, whether it was finite. A norm that the first link keeps,
    such as that of `clip_by_global_norm`, is not computed again. At every `every`-th
    update, and at each whose gradients are not finite, what takes another pass over
    the parameters is measured: norms of updates, parameters and moments, NaNs and
    infinities, effective learning rates. `telemetry.read(state)` gives all of it by
    name, with the learning rate, `telemetry.names(tx, params)` the names beforehand,
    `telemetry.cost(tx, params)` what it takes. Nothing is printed, sent or waited for.

    `update` takes `measure=`: `True` or `False` makes a program that measures always or
    never, without a branch, for a loop that knows when; a scalar array of bool decides
    in place of `every`. On a GPU a branch waits for the host at each update.

    Links in front that average gradients over devices come before what is measured.
    Put it inside `accumulate`, to see updates rather than micro-steps.

    Args:
      inner: what to observe; all of an optimizer.
      every: updates from one measurement to the next, 1 or more. The first update is
        measured too. Measuring takes about the time of five updates of Adam on a CPU.
      groups: labels for parameters, such as `label_paths(...)`: what is measured is
        given for each group too. A mask gives the groups "True" and "False".
      per_leaf: whether it is given for each leaf too.
      moments: whether to measure what states keep per parameter.
      effective: whether to measure `|update|/|gradient|` of single elements, of at most
        4,096 evenly spaced ones of each leaf: its median and its tenth and ninetieth
        percentiles, each as the mean of its bin, an eighth of an octave.
      histograms: whether to keep counts of the same elements by magnitude, for all and
        for each group.
      successive: whether to measure the cosine between successive gradients, and from
        their difference the variance of the gradient and its noise scale. The state
        then holds one gradient more.
      window: updates in the window, or measurements for variance and noise scale.
      replicas: mapped axes whose devices hold the same parameters and gradients of
        their own, averaged by the first link: variance and noise scale are then taken
        from the differences between devices, and the drift of parameters is measured.
      axis_name: mapped axes over which leaves are sharded; see `global_norm`.

    Raises:
      ArgumentError: if `every` or `window` is no integer of 1 or more, or labels do not
        fit the parameters.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.observe(gradtx.sgd(0.5), every=1)
      >>> params = {"w": jnp.array([3.0, 4.0])}
      >>> updates, state = tx.update({"w": jnp.ones(2)}, tx.init(params), params)
      >>> found = gradtx.telemetry.read(state)
      >>> found["param_norm"], found["learning_rate"], found["effective_learning_rate"]
      (5.0, 0.5, 0.5)

    Source: McCandlish et al. 2018, arXiv:1812.06162, appendix A.1 (noise scale);
      Pascanu, Mikolov & Bengio 2012, arXiv:1211.5063 (norms as a diagnosis).
    """
    inner = as_transformation(inner)
    check_count(1, every=every, window=window)
    if replicas is not None and successive:
        raise ArgumentError(
            "replicas= and successive=True both measure the variance of the gradient: "
            "give one of them."
        )

    def own(tree: Any) -> Any:
        # of the two sets of `lookahead`, the one that gradients are of
        pairs = inner.traits.form == "pairs"
        return getattr(tree, "fast", tree) if pairs else tree

    def plan(params: Any) -> Plan:
        rows = rows_of(own(params), groups, per_leaf)
        return Plan(rows, effective, histograms, replicas, axis_name)

    def init(params):
        inner_state = inner.init(params)
        seen, count = plan(params), zero_count()
        latest = {
            "gradient_norm": jnp.zeros((), jnp.float32),
            "nonfinite_updates": count,
        }
        ring = {"gradient_norm": jnp.full(window, -1, jnp.float32)}
        if _flags(inner_state):
            latest["clipped_updates"] = count
            ring["clipped"] = jnp.full(window, -1, jnp.float32)
        if successive or replicas is not None:
            ring["pair"] = jnp.zeros((window, 3), jnp.float32)
        found = nothing_measured(seen, own(params), successive)
        found["measured_update"] = count
        if moments:
            found |= nothing_kept(seen, _kept(inner_state, seen))
        # in a shard_map, what is measured of what varies differs between devices
        zero = zero_norm(params, axis_name=axis_name)
        typed = lambda tree: jax.tree.map(lambda x: varying_like(zero, x), tree)
        return ObserveState(
            count=count,
            inner_state=inner_state,
            latest=typed(latest),
            measured=typed(found),
            window=typed(ring),
            previous=zeros_like(own(params)) if successive else (),
            groups=dict.fromkeys(seen.rows.groups, ()),
            leaves=dict.fromkeys(seen.rows.leaves, ()),
        )

    def update(updates, state, params=None, **extra):
        links = list(_flat(inner, state.inner_state))
        first = next(
            (i for i, (link, _) in enumerate(links) if link.traits.stage != "reduce"),
            len(links),
        )
        apply = functools.partial(_applied, params=params, extra=extra)
        grads, done = apply(links[:first], updates)
        links = links[first:]

        # 1. the norm, unless the first link keeps it
        field = _norm_of(links[0][1]) if links else None
        if field is None:
            norm = scaled_norm(grads, axis_name=axis_name, kept=True).bounded
            rest, begun, entering = links, [], grads
        else:
            entering, begun = apply(links[:1], grads)
            norm, rest = getattr(begun[0], field), links[1:]
        finite = jnp.isfinite(norm)

        # 2. what takes a pass over memory, before anything in memory is overwritten
        number = safe_increment(state.count)
        seen = plan(params if params is not None else updates)
        trees = {"grads": grads}
        trees |= {"params": params} if params is not None else {}
        trees |= {"previous": state.previous} if successive else {}
        trees |= {"local": updates} if replicas is not None else {}

        def whole(ended):
            return _rebuilt(inner, state.inner_state, iter(done + begun + ended))

        def anew():
            # what the update makes is in no memory yet: it is made for this as well
            parts, few = held(links, trees, extra)
            now, lead = few.get("params"), len(begun)

            def enter():
                return _applied(parts[:lead], few["grads"], now, extra)[0]

            def leave(updates):
                return _applied(parts[lead:], updates, now, extra)

            def again(token=None):
                return own(leave(enter() if token is None else _after(first, token))[0])

            first = enter()
            leaving, ended = leave(first)
            kept = _kept(whole(ended), seen) if moments else None
            alike = {name: own(tree) for name, tree in few.items()}
            found, token = measured(seen, again, kept, updates=own(leaving), **alike)
            return found | {"measured_update": number}, token

        asked = _asked(extra.get("measure"))
        due = (number % every == 0) | (state.count == 0) if asked is None else asked
        always = asked is True or (asked is None and every == 1)
        found, token = state.measured, jnp.zeros((), jnp.float32)
        if always:  # no branch: a GPU's queue runs dry at each
            found, token = anew()
        elif asked is not False:
            found, token = either(_agreed(due | ~finite), anew, (found, token))
        leaving, ended = apply(rest, _after(entering, token))
        inner_state = whole(ended)

        # 3. what is kept of this update for the next measurement
        previous = state.previous
        if successive:
            # `token` is never NaN: what is kept is written when it has been compared
            keep = (number % every == every - 1) & ~jnp.isnan(token)
            copy = lambda: jax.tree.map(_stored, grads, previous)
            previous = either(keep, copy, previous) if every > 1 else copy()

        # 4. what is told of each update
        latest = {
            "gradient_norm": cast(norm, jnp.float32),
            "nonfinite_updates": _one_more(state.latest["nonfinite_updates"], ~finite),
        }
        place = state.count % window
        # numbers that are not finite tell nothing of the others in the window
        seen_norm = jnp.where(finite, latest["gradient_norm"], -1)
        ring = {"gradient_norm": state.window["gradient_norm"].at[place].set(seen_norm)}
        if flags := _flags(inner_state):
            # a link that was left out still says what it did before
            clipped = functools.reduce(jnp.logical_or, flags) & finite
            so_far = state.latest["clipped_updates"]
            latest["clipped_updates"] = _one_more(so_far, clipped)
            column = state.window["clipped"]
            ring["clipped"] = column.at[place].set(clipped.astype(column.dtype))
        if "pair" in found:
            column, place = state.window["pair"], (number // every) % window
            row = jnp.where(due, found["pair"], column[place])
            ring["pair"] = column.at[place].set(row)
        return leaving, state._replace(
            count=number,
            inner_state=inner_state,
            latest=latest,
            measured=found,
            window=ring,
            previous=previous,
        )

    return init, update


def _flat(tx: GradientTransformation, state: Any) -> Iterator[Any]:
    """Yield the links of a chain, and of chains inside it, with their states."""
    links = links_of(tx)
    if not links or len(links) != len(state):  # a wrong state is for `update` to refuse
        yield tx, state
        return
    for link, part in zip(links, state, strict=True):
        yield from _flat(link, part)


def _rebuilt(tx: GradientTransformation, state: Any, new: Iterator[Any]) -> Any:
    """Return a state like `state`, of the new states of its links in order."""
    links = links_of(tx)
    if not links or len(links) != len(state):
        return next(new)
    parts = [_rebuilt(link, part, new) for link, part in zip(links, state, strict=True)]
    return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)


def _applied(
    links: Sequence[Any], updates: Any, params: Any, extra: dict[str, Any]
) -> Any:
    """Apply links one after the other; return updates and a list of new states."""
    made = []
    for link, old in links:
        updates, new = link.update(updates, old, params, **extra)
        made.append(new)
    return updates, made


def _norm_of(state: Any) -> str | None:
    """Return the field in which a state keeps the norm of what went in, if any."""
    found = readings_of(state).items()
    return next((name for name, told in found if told == "gradient_norm"), None)


def _flags(state: Any) -> list[jax.Array]:
    """Return what links say of whether they clipped."""
    return [field.value for field in fields(state) if field.reading == "clipped"]


def _kept(state: Any, plan: Plan) -> dict[str, Any]:
    """Return what a state keeps per parameter, by path."""
    found = {}
    for field in fields(state):
        known = field.role in (Role.PER_PARAM, Role.FACTORED)
        if field.state == "ObserveState" or not (known or field.role is None):
            continue
        paths = paths_of(as_shapes(field.value))
        if paths if known else paths == plan.rows.leaves_in_order:
            found[field.path] = field.value
    return found


def _agreed(flag: jax.Array) -> jax.Array:
    """Return whether the flag is set on any device, so that all do the same."""
    axes = tuple(jax.sharding.get_abstract_mesh().manual_axes)
    axes = varying_axes(flag, axes) if axes else ()
    return lax.pmax(flag.astype(jnp.int32), axes) > 0 if axes else flag


def _after(updates: Any, token: jax.Array) -> Any:
    """Return updates when the token, which is never NaN, is there."""
    return jax.tree.map(lambda x: after(x, token) if bits(x) else x, updates)


def _asked(measure: Any) -> bool | jax.Array | None:
    """Return what `update` was told of measuring; a bool decides for the program."""
    if measure is None:
        return None
    if isinstance(measure, (bool, np.bool_)):
        return bool(measure)
    if getattr(measure, "dtype", None) != np.dtype(bool) or measure.shape != ():
        raise ArgumentError(
            f"measure must be True, False or a scalar array of bool, got {measure!r}. "
            "Leave it out to measure at every `every`-th update.",
            "observe",
        )
    return measure


def _one_more(count: jax.Array, flag: jax.Array) -> jax.Array:
    return jnp.where(flag, safe_increment(count), count)


def _stored(new: Any, old: Any) -> Any:
    return cast(new, old.dtype) if bits(new) else old
