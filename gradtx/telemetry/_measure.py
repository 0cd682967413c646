"""Measure what goes through an optimizer, for all, for groups and for leaves."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core import (
    AxisName,
    all_max,
    as_shapes,
    cast,
    has_packed,
    varying_axes,
    working,
)
from gradtx.telemetry._blocks import holder
from gradtx.telemetry._histogram import BINS
from gradtx.telemetry._passes import (
    NAMES,
    Plan,
    inexact,
    magnitudes_of,
    nonfinite_of,
    norms_of,
    shapes_of,
    spread_of,
    zeros,
)
from gradtx.telemetry._rows import Rows, paths_of
from gradtx.telemetry._sample import quantiles, sample

#: The shares of elements that lie below the percentiles that are reported.
SHARES = (0.1, 0.5, 0.9)


def measured(
    plan: Plan,
    again: Callable[..., Any] | None = None,
    kept: Mapping[str, Any] | None = None,
    **trees: Any,
) -> tuple[dict[str, Any], jax.Array]:
    """Return what a plan asks for of trees of one structure, and a number to wait for.

    Args:
      plan: what to measure.
      again: returns the updates once more, when the number that it gets is there, or
        without one from nothing but what is in memory. Few elements of them are looked
        at; of updates that are in no memory, computing these anew takes less than
        keeping all for it.
      kept: what `measured_moments` is asked for, if anything: what is like the
        gradients is measured in the same pass.
      **trees: `grads` and `updates`; `params`, `previous` gradients and each device's
        `local` gradients where there are any.

    Returns:
      Arrays of float32 by name, and a number once all are there. A number that cannot
      be negative is −1 where there is none, a cosine −2: a state that is well holds no
      NaN.
    """
    pairs = [("grads", "previous")] if "previous" in trees else []
    form = _form(trees["grads"])
    beside = {k: tree for k, tree in (kept or {}).items() if _form(tree) == form}
    both = trees | {f"kept {name}": tree for name, tree in beside.items()}
    norms, token = norms_of(plan, both, pairs)
    # one gradient per example has no such ratio
    alike = shapes_of(trees["grads"]) == shapes_of(trees["updates"])
    ratio = ["effective"] if plan.effective and alike else []
    kinds = [*ratio, *(k for k in NAMES if k in trees and plan.histograms)]

    def samples(row: Mapping[str, jax.Array]) -> list[jax.Array]:
        found = []
        if ratio:
            size, moved = sample(row["grads"]), sample(row["updates"])
            usable = (size > 0) & jnp.isfinite(size)
            found.append(moved / jnp.where(usable, size, jnp.nan))
        return found + [sample(row[k]) for k in kinds if k in row]

    seen = {name: trees[name] for name in NAMES if name in trees}
    wrong = nonfinite_of(plan, seen, norms, again)
    if again is not None and kinds:
        seen["updates"] = again(token)
    counts, last = magnitudes_of(plan, seen, kinds, samples, token)
    made = _tables(plan, norms, wrong, counts, frozenset(trees))
    if plan.replicas is not None:
        made["replica_drift"] = _drift(plan, plan.replicas, trees.get("params"))
    if kept is not None:
        known = {name: norms[f"kept {name}"] for name in beside}
        made |= measured_moments(plan, kept, known)
    return jax.tree.map(lambda x: lax.convert_element_type(x, jnp.float32), made), last


def _form(tree: Any) -> Any:
    """Return what two trees share if they can be measured in one pass."""
    shapes = as_shapes(tree)
    return jax.tree.structure(tree), paths_of(shapes), shapes_of(shapes)


def measured_moments(
    plan: Plan, trees: Mapping[str, Any], known: Mapping[str, jax.Array]
) -> dict[str, Any]:
    """Return norms, root mean squares and magnitudes of what a state keeps.

    Args:
      plan: what to measure.
      trees: by name, trees of arrays that lie at paths of the parameters. Of others,
        such as factored ones, only the first row is filled. The norm of a row of which
        nothing is kept is −1.
      known: the norms of the leaves of some of them.
    """
    made: dict[str, Any] = {"moment_norm": {}, "moment_rms": {}}
    made |= {"moment_histogram": {}} if plan.histograms else {}
    alike: dict[Any, dict[str, Any]] = {}
    for name, tree in trees.items():
        key = (paths_of(as_shapes(tree)), *shapes_of(tree), has_packed(tree))
        alike.setdefault(key, {})[name] = tree
    for together in alike.values():
        first = next(iter(together.values()))
        paths = paths_of(as_shapes(first))
        hold = holder(first)
        kinds = list(together) if plan.histograms else []
        samples = lambda row, kinds=kinds: [sample(row[k]) for k in kinds]
        packed = {name: hold(tree) for name, tree in together.items()}
        rest = {name: tree for name, tree in packed.items() if name not in known}
        table, token = norms_of(plan, rest)
        table |= {name: known[name] for name in together if name in known}
        counts, _ = magnitudes_of(plan, packed, kinds, samples, token)
        spread = zip(shapes_of(first), spread_of(plan, [first]), strict=True)
        sizes = jnp.array([math.prod(x) * n for x, n in spread], jnp.float32)
        sizes = _rows_of_some(Rows.sums, plan.rows, paths, sizes)
        for name in together:
            norms = _rows_of_some(Rows.norms, plan.rows, paths, table[name])
            made["moment_norm"][name] = jnp.where(sizes > 0, norms, -1)
            made["moment_rms"][name] = norms / jnp.sqrt(jnp.maximum(sizes, 1))
            if plan.histograms:
                whole, column = plan.rows.whole, counts[name]
                found = _rows_of_some(Rows.sums, whole, paths, column)
                made["moment_histogram"][name] = found
    return made


def _rows_of_some(
    reduce: Callable[[Rows, jax.Array], jax.Array],
    rows: Rows,
    paths: Sequence[str],
    column: jax.Array,
) -> jax.Array:
    """Return numbers of all rows from those of some leaves; of other rows 0.

    Args:
      reduce: `Rows.norms` or `Rows.sums`.
      rows: the rows.
      paths: of the leaves. Where they are none of the parameters', the first row alone
        can be told.
      column: a number, or several, for each of them.
    """
    places = {path: i for i, path in enumerate(rows.leaves_in_order)}
    none = zeros(len(places), *column.shape[1:])
    if set(paths) <= places.keys():
        where = jnp.array([places[path] for path in paths], jnp.int32)
        return reduce(rows, none.at[where].set(column))
    alone = Rows((), (), (), np.ones((1, len(paths)), bool), False)
    return reduce(rows, none).at[:1].set(reduce(alone, column))


def nothing_measured(plan: Plan, params: Any, successive: bool) -> dict[str, Any]:
    """Return zeros of the types of what `measured` finds of gradients of `params`."""
    # no axis is mapped where a state is made
    alone = plan._replace(replicas=None, axis_name=None)
    trees = {"grads": params, "updates": params, "params": params}
    trees |= {"previous": params} if successive else {}
    found = _zeros_of(lambda trees: measured(alone, **trees)[0], trees)
    if plan.replicas is not None:
        found |= {"replica_drift": found["param_norm"], "pair": zeros(3)}
    return found


def nothing_kept(plan: Plan, trees: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `measured_moments` finds of `trees` full of zeros."""
    found = _zeros_of(
        lambda trees: measured_moments(plan._replace(axis_name=None), trees, {}),
        dict(trees),
    )
    for name, tree in trees.items():
        sizes = jnp.array([math.prod(x) for x in shapes_of(tree)], jnp.float32)
        paths = paths_of(as_shapes(tree))
        sizes = _rows_of_some(Rows.sums, plan.rows, paths, sizes)
        found["moment_norm"][name] = jnp.where(sizes > 0, sizes * 0, -1)
    return found


def _tables(
    plan: Plan,
    norms: Mapping[str, jax.Array],
    nonfinite: Mapping[str, jax.Array],
    counts: Mapping[str, jax.Array],
    given: frozenset[str],
) -> dict[str, Any]:
    """Return the metrics of all rows, from what was found of each leaf."""
    rows, made = plan.rows, {}
    nothing = zeros(rows.count) - 1
    first = jnp.full((), -1, jnp.float32)
    for kind, name in NAMES.items():
        if kind in given:
            made[f"{name}_norm"] = rows.norms(norms[kind])
            made[f"{name}_nonfinite"] = rows.sums(nonfinite[kind])
        else:
            made |= {f"{name}_norm": nothing, f"{name}_nonfinite": nothing}
        if plan.histograms:
            none = zeros(len(rows.leaves), BINS)
            made[f"{name}_histogram"] = rows.whole.sums(counts.get(kind, none))
    for kind in ("grads", "params", "updates"):  # causes come before effects
        if kind in given:
            first = jnp.where(first < 0, rows.first(nonfinite[kind]), first)
    made["first_nonfinite"] = first
    if plan.effective:
        none = zeros(len(rows.leaves), BINS)
        by_row = rows.sums(counts.get("effective", none))
        sums = rows.sums(counts["sums"] if "effective" in counts else none)
        made["effective_learning_rate"] = quantiles(by_row, sums, SHARES)
        if plan.histograms:
            whole = by_row[: len(rows.members)]
            made["effective_learning_rate_histogram"] = whole
    mean = made["gradient_norm"][0]
    if "previous" in given:
        before = rows.norms(norms["previous"])[0]
        dot = jnp.sum(norms["grads previous"])
        known = (before > 0) & (mean > 0)  # before the first update there was none
        whole = lambda norm: jnp.where(known, norm, 1)
        cosine = jnp.where(known, dot / whole(mean) / whole(before), -2)
        made["gradient_cosine"] = cosine
        variance = (mean * mean + before * before) / 2 - dot
        made["pair"] = _pair(variance, dot, known)
    if plan.replicas is not None:
        own = rows.norms(norms["local"])[0]
        made["pair"] = _between_devices(own, mean, plan.replicas)
    return made


def _between_devices(own: jax.Array, mean: jax.Array, replicas: AxisName) -> jax.Array:
    """Return variance and squared mean of the gradient, from norms on each device.

    Args:
      own: the norm of each device's gradient.
      mean: that of their mean.
      replicas: the axes of the devices.
    """
    axes = varying_axes(own, replicas)
    devices = math.prod(lax.axis_size(axis) for axis in axes)
    if devices < 2:  # or differentiation has summed the gradients already
        return zeros(3)
    # E|g_d|² = |G|² + D·v and E|ḡ|² = |G|² + v, where v is the variance of the mean
    variance = (lax.pmean(own * own, axes) - mean * mean) / (devices - 1)
    return _pair(variance, mean * mean - variance, jnp.ones((), bool))


def _pair(variance: jax.Array, square: jax.Array, known: jax.Array) -> jax.Array:
    """Return variance and squared mean of the gradient, and 1; 0 where not known."""
    known = known & jnp.isfinite(variance) & jnp.isfinite(square)
    return jnp.where(known, jnp.stack([variance, square, jnp.ones_like(square)]), 0)


def _drift(plan: Plan, replicas: AxisName, params: Any) -> jax.Array:
    """Return by how much parameters of each row differ between devices at most."""
    if params is None:
        return zeros(plan.rows.count) - 1
    apart = [_apart(x, replicas) for x in inexact(params)]
    apart = [cast(all_max(x, plan.axis_name), jnp.float32) for x in apart]
    return plan.rows.largest(jnp.stack([*apart, zeros()])[:-1])


def _apart(x: jax.Array, replicas: AxisName) -> jax.Array:
    """Return the largest difference of an element between devices."""
    axes = varying_axes(x, replicas)
    if not axes:  # the type says that it is equal everywhere
        return zeros()
    x = working(x)
    parts = (x.real, x.imag) if jnp.iscomplexobj(x) else (x,)
    apart = [lax.pmax(part, axes) - lax.pmin(part, axes) for part in parts]
    return functools.reduce(jnp.maximum, [jnp.max(a, initial=0) for a in apart])


def _zeros_of(function: Any, trees: Any) -> Any:
    shapes = jax.eval_shape(function, as_shapes(trees))
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
