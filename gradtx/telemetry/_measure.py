"""Measure trees leaf by leaf, each in one pass: norms, counts, magnitudes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core import (
    AxisName,
    after,
    all_max,
    as_shapes,
    bits,
    cast,
    has_packed,
    leaf_sums,
    shards,
    unpack,
    varying_axes,
    working,
)
from gradtx.telemetry._blocks import blocks_of, holder
from gradtx.telemetry._histogram import BINS
from gradtx.telemetry._rows import Rows, paths_of
from gradtx.telemetry._sample import (
    counted,
    counts_of,
    quantiles,
    sample,
    sample_size,
)

#: The shares of elements that lie below the percentiles that are reported.
SHARES = (0.1, 0.5, 0.9)
#: What trees are called in the names of metrics.
_NAMES = {"grads": "gradient", "updates": "update", "params": "param"}


class Plan(NamedTuple):
    """What to measure.

    Attributes:
      rows: the rows of every table.
      effective: whether to measure effective learning rates.
      histograms: whether to keep counts by magnitude.
      replicas: mapped axes over which each device has gradients of its own.
      axis_name: mapped axes over which leaves are sharded.
    """

    rows: Rows
    effective: bool
    histograms: bool
    replicas: AxisName | None
    axis_name: AxisName | None


def measured(
    plan: Plan, again: Callable[[jax.Array], Any] | None = None, **trees: Any
) -> tuple[dict[str, Any], jax.Array]:
    """Return what a plan asks for of trees of one structure, and a number to wait for.

    Args:
      plan: what to measure.
      again: returns the updates once more, when the number that it gets is there. Few
        elements of them are looked at; of updates that are in no memory, computing
        these anew takes less than keeping all for it.
      **trees: `grads` and `updates`; `params`, `previous` gradients and each device's
        `local` gradients where there are any.

    Returns:
      Arrays of float32 by name, and a number once all are there. A number that cannot
      be negative is −1 where there is none, a cosine −2: a state that is well holds no
      NaN.
    """
    pairs = [("grads", "previous")] if "previous" in trees else []
    table, token = _sums(plan, trees, pairs)
    # one gradient per example has no such ratio
    alike = _shapes(trees["grads"]) == _shapes(trees["updates"])
    ratio = ["effective"] if plan.effective and alike else []
    kinds = [*ratio, *(k for k in _NAMES if k in trees and plan.histograms)]

    def samples(row: Mapping[str, jax.Array]) -> list[jax.Array]:
        found = []
        if ratio:
            size, moved = sample(row["grads"]), sample(row["updates"])
            usable = (size > 0) & jnp.isfinite(size)
            found.append(moved / jnp.where(usable, size, jnp.nan))
        return found + [sample(row[k]) for k in kinds if k in row]

    seen = {name: trees[name] for name in _NAMES if name in trees}
    if again is not None and kinds:
        seen["updates"] = again(token)
    counts, last = _counts(plan, seen, kinds, samples, token)
    if plan.replicas is not None and "params" in trees:
        drift = [_apart(x, plan.replicas) for x in _numbers(trees["params"])]
        drift = [cast(all_max(x, plan.axis_name), jnp.float32) for x in drift]
        table["drift"] = jnp.stack([*drift, _zeros()])[:-1]
    made = _tables(plan, table, counts, frozenset(trees))
    return jax.tree.map(lambda x: lax.convert_element_type(x, jnp.float32), made), last


def measured_moments(plan: Plan, trees: Mapping[str, Any]) -> dict[str, Any]:
    """Return norms, root mean squares and magnitudes of what a state keeps.

    Args:
      plan: what to measure.
      trees: by name, trees of arrays that lie at paths of the parameters. Of others,
        such as factored ones, only the first row is filled. The norm of a row of which
        nothing is kept is −1.
    """
    made: dict[str, Any] = {"moment_norm": {}, "moment_rms": {}}
    made |= {"moment_histogram": {}} if plan.histograms else {}
    alike: dict[Any, dict[str, Any]] = {}
    for name, tree in trees.items():
        key = (paths_of(as_shapes(tree)), *_shapes(tree), has_packed(tree))
        alike.setdefault(key, {})[name] = tree
    for together in alike.values():
        first = next(iter(together.values()))
        paths = paths_of(as_shapes(first))
        hold = holder(first)
        kinds = list(together) if plan.histograms else []
        samples = lambda row, kinds=kinds: [sample(row[k]) for k in kinds]
        packed = {name: hold(tree) for name, tree in together.items()}
        table, token = _sums(plan, packed, [])
        counts, _ = _counts(plan, packed, kinds, samples, token)
        spread = zip(_shapes(first), _spread(plan, [first]), strict=True)
        sizes = jnp.array([math.prod(x) * n for x, n in spread], jnp.float32)
        sizes = _rows_of_some(Rows.sums, plan.rows, paths, sizes)
        for name in together:
            norms = table[f"{name} norm"]
            norms = _rows_of_some(Rows.norms, plan.rows, paths, norms)
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
    zeros = _zeros(len(places), *column.shape[1:])
    if set(paths) <= places.keys():
        where = jnp.array([places[path] for path in paths], jnp.int32)
        return reduce(rows, zeros.at[where].set(column))
    alone = Rows((), (), (), np.ones((1, len(paths)), bool), False)
    return reduce(rows, zeros).at[:1].set(reduce(alone, column))


def nothing_measured(plan: Plan, params: Any, successive: bool) -> dict[str, Any]:
    """Return zeros of the types of what `measured` finds of gradients of `params`."""
    # no axis is mapped where a state is made
    alone = plan._replace(replicas=None, axis_name=None)
    trees = {"grads": params, "updates": params, "params": params}
    trees |= {"previous": params} if successive else {}
    found = _zeros_of(lambda trees: measured(alone, **trees)[0], trees)
    if plan.replicas is not None:
        found |= {"replica_drift": found["param_norm"], "pair": _zeros(3)}
    return found


def nothing_kept(plan: Plan, trees: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `measured_moments` finds of `trees` full of zeros."""
    found = _zeros_of(
        lambda trees: measured_moments(plan._replace(axis_name=None), trees),
        dict(trees),
    )
    for name, tree in trees.items():
        sizes = jnp.array([math.prod(x) for x in _shapes(tree)], jnp.float32)
        paths = paths_of(as_shapes(tree))
        sizes = _rows_of_some(Rows.sums, plan.rows, paths, sizes)
        found["moment_norm"][name] = jnp.where(sizes > 0, sizes * 0, -1)
    return found


def _sums(
    plan: Plan, trees: Mapping[str, Any], pairs: Sequence[tuple[str, str]]
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Sum over blocks of leaves, each in one pass over memory.

    They are measured one after the other, so that what one needs in memory is free
    before the next needs it.

    Args:
      plan: what to measure.
      trees: by name, all packed alike, or none of them.
      pairs: names of trees of which to take inner products.

    Returns:
      Columns of one number a leaf, and a number once all are there.
    """
    names, blocks = list(trees), blocks_of(trees)
    columns = [f"{n} norm" for n in names] + [f"{n} nonfinite" for n in names]
    columns += [f"{a} {b}" for a, b in pairs]
    if not blocks:
        return dict.fromkeys(columns, _zeros(0)), _zeros()

    @jax.jit  # traced once for each type of block
    def one(token: jax.Array, *row: Any) -> Any:
        seen = [_after(x, token) for x in row]
        named = dict(zip(names, seen, strict=True))
        dots = [(named[a], named[b]) for a, b in pairs]
        numbers = leaf_sums(seen, dots, axis_name=plan.axis_name)
        return numbers, numbers[2 * len(seen) - 1, 0]  # a count: never NaN

    token, numbers = _zeros(), []
    for block in blocks:
        made, token = one(token, *block.arrays.values())
        numbers.append(made)
    order = [place for block in blocks for place in block.places]
    stacked = jnp.concatenate(numbers, 1)
    if order != sorted(order):
        stacked = stacked[:, np.argsort(order)]
    return dict(zip(columns, stacked, strict=True)), token


def _counts(
    plan: Plan,
    trees: Mapping[str, Any],
    kinds: Sequence[str],
    samples: Callable[[Mapping[str, jax.Array]], list[jax.Array]],
    token: jax.Array,
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Count some elements of blocks of leaves by magnitude.

    Args:
      plan: what to measure.
      trees: as in `_sums`.
      kinds: what `samples` returns, in its order.
      samples: returns magnitudes of some elements of a block of each tree.
      token: a number to wait for.

    Returns:
      Counts by magnitude of each kind and leaf, with "sums" of the first kind, and a
      number once all are there.
    """
    if not kinds:
        return {}, token
    shapes, blocks = _shapes(next(iter(trees.values()))), blocks_of(trees)
    if not blocks:
        return dict.fromkeys([*kinds, "sums"], _zeros(0, BINS)), token

    @jax.jit  # traced once for each type of block
    def one(places: jax.Array, token: jax.Array, *row: Any) -> Any:
        seen = [_after(x, token) for x in row]
        named = dict(zip(trees, seen, strict=True))
        return counted(samples(named), places, len(shapes))

    found = [
        one(jnp.array(block.places, jnp.int32), token, *block.arrays.values())
        for block in blocks
    ]
    sizes = [math.prod(shape) for shape in shapes]
    sampled = [sample_size(shape) for shape in shapes]
    spread, kinds_, axis = _spread(plan, trees.values()), len(kinds), plan.axis_name
    counts, sums = counts_of(found, sizes, sampled, spread, kinds_, axis)
    # counts are no NaN either
    last = jnp.where(jnp.isnan(jnp.sum(counts)), jnp.nan, token)
    return dict(zip([*kinds, "sums"], [*counts, sums], strict=True)), last


def _after(x: Any, token: jax.Array) -> jax.Array:
    """Return `x` in 32 bits or more, when the token is there; it has no derivative."""
    return after(lax.stop_gradient(working(x)), token)


def _tables(
    plan: Plan,
    table: Mapping[str, jax.Array],
    counts: Mapping[str, jax.Array],
    given: frozenset[str],
) -> dict[str, Any]:
    """Return the metrics of all rows, from what was found of each leaf."""
    rows, made = plan.rows, {}
    nothing = _zeros(rows.count) - 1
    wrong = _zeros(len(rows.leaves))
    for kind, name in _NAMES.items():
        if kind in given:
            bad = table[f"{kind} nonfinite"]
            made[f"{name}_norm"] = rows.norms(table[f"{kind} norm"])
            made[f"{name}_nonfinite"] = rows.sums(bad)
            wrong = wrong + bad
        else:
            made |= {f"{name}_norm": nothing, f"{name}_nonfinite": nothing}
        if plan.histograms:
            zeros = _zeros(len(rows.leaves), BINS)
            made[f"{name}_histogram"] = rows.whole.sums(counts.get(kind, zeros))
    made["first_nonfinite"] = rows.first(wrong)
    if plan.effective:
        none = _zeros(len(rows.leaves), BINS)
        by_row = rows.sums(counts.get("effective", none))
        sums = rows.sums(counts["sums"] if "effective" in counts else none)
        made["effective_learning_rate"] = quantiles(by_row, sums, SHARES)
        if plan.histograms:
            whole = by_row[: len(rows.members)]
            made["effective_learning_rate_histogram"] = whole
    mean = made["gradient_norm"][0]
    if "previous" in given:
        before = rows.norms(table["previous norm"])[0]
        dot = jnp.sum(table["grads previous"])
        known = (before > 0) & (mean > 0)  # before the first update there was none
        whole = lambda norm: jnp.where(known, norm, 1)
        cosine = jnp.where(known, dot / whole(mean) / whole(before), -2)
        made["gradient_cosine"] = cosine
        variance = (mean * mean + before * before) / 2 - dot
        made["pair"] = _pair(variance, dot, known)
    if plan.replicas is not None:
        there = "drift" in table
        made["replica_drift"] = rows.largest(table["drift"]) if there else nothing
        own = rows.norms(table["local norm"])[0]
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
        return _zeros(3)
    # E|g_d|² = |G|² + D·v and E|ḡ|² = |G|² + v, where v is the variance of the mean
    variance = (lax.pmean(own * own, axes) - mean * mean) / (devices - 1)
    return _pair(variance, mean * mean - variance, jnp.ones((), bool))


def _pair(variance: jax.Array, square: jax.Array, known: jax.Array) -> jax.Array:
    """Return variance and squared mean of the gradient, and 1; 0 where not known."""
    known = known & jnp.isfinite(variance) & jnp.isfinite(square)
    return jnp.where(known, jnp.stack([variance, square, jnp.ones_like(square)]), 0)


def _apart(x: jax.Array, replicas: AxisName) -> jax.Array:
    """Return the largest difference of an element between devices."""
    axes = varying_axes(x, replicas)
    if not axes:  # the type says that it is equal everywhere
        return _zeros()
    x = working(x)
    parts = (x.real, x.imag) if jnp.iscomplexobj(x) else (x,)
    apart = [lax.pmax(part, axes) - lax.pmin(part, axes) for part in parts]
    return functools.reduce(jnp.maximum, [jnp.max(a, initial=0) for a in apart])


def _zeros_of(function: Any, trees: Any) -> Any:
    shapes = jax.eval_shape(function, as_shapes(trees))
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def _zeros(*shape: int) -> jax.Array:
    return jnp.zeros(shape, jnp.float32)


def _shapes(tree: Any) -> list[tuple[int, ...]]:
    return [x.shape for x in jax.tree.leaves(as_shapes(tree)) if bits(x)]


def _spread(plan: Plan, trees: Iterable[Any]) -> list[int]:
    """Return over how many devices each leaf of trees that are alike is sharded."""
    if plan.axis_name is None:
        return [1] * len(_shapes(next(iter(trees))))
    columns = [[shards(x, plan.axis_name) for x in _numbers(tree)] for tree in trees]
    return [max(row) for row in zip(*columns, strict=True)]


def _numbers(tree: Any) -> list[Any]:
    return [x for x in jax.tree.leaves(unpack(tree)) if bits(x)]
