"""Say for each leaf of the parameters what an optimizer does to it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import (
    Link,
    Params,
    Selector,
    as_shapes,
    as_transformation,
    dtype_of,
    label_paths,
    path_matches,
    shape_of,
    slashed,
)
from gradtx.telemetry._links import Acts, Around, Step
from gradtx.telemetry._table import (
    broken_call,
    broken_line,
    html_table,
    text_table,
)
from gradtx.telemetry._walk import walk

_HEADER = ("leaf", "shape", "dtype", "group", "learning rate", "weight decay", "links")
_INSIDE = " inside "


@dataclasses.dataclass(frozen=True)
class ExplainedLeaf:
    """What an optimizer does to one leaf.

    Attributes:
      path: its path, joined by slashes.
      shape: its shape.
      dtype: the name of its dtype.
      links: the links that act on it, in order, as their calls; wrappers around a link
        come after it: `trace(0.9) inside accumulate(every=2)`.
      group: its label where transformations are chosen by label; labels inside labels
        are joined by slashes; else empty.
      learning_rate: the number by which its update is scaled at step 0, positive for
        descent; `None` where nothing says so, and for a frozen leaf.
      schedules: the schedules in the learning rate, as their calls.
      weight_decay: the factor of weight decay at step 0; 0 where there is none.
      coupled: whether weight decay passes through more than a scaling on its way, as an
        L2 penalty does; `None` where a link decays in its own way, or nothing is known of one.
      shrinkage: the share of itself that decay takes from the leaf at step 0,
        learning rate included; `None` where decay is coupled.
      frozen: whether its update is always zero. An integer leaf has no gradient.
      opaque: whether a link acts on it of which nothing is known.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    links: tuple[str, ...]
    group: str
    learning_rate: float | None
    schedules: tuple[str, ...]
    weight_decay: float
    coupled: bool | None
    shrinkage: float | None
    frozen: bool
    opaque: bool


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What an optimizer does to each leaf; it prints as a table.

    Attributes:
      optimizer: the call that made the optimizer.
      leaves: one for each leaf of the parameters, in order.
      notes: what may be a mistake: a pattern that matches no leaf, a leaf that no
        learning rate scales, one that is set to zero and then moved.
    """

    optimizer: str
    leaves: tuple[ExplainedLeaf, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, fit for JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def __getitem__(self, path: str) -> ExplainedLeaf:
        """Return the leaf at a path."""
        for leaf in self.leaves:
            if leaf.path == path:
                return leaf
        raise KeyError(
            f"no leaf has the path {path!r}; the first is "
            f"{self.leaves[0].path if self.leaves else None!r}."
        )

    def __str__(self) -> str:
        header, rows, below = self._table()
        top = broken_call(self.optimizer)
        parts = [top, text_table(header, rows), "\n".join(below)]
        return "\n\n".join(part for part in parts if part)

    def _repr_html_(self) -> str:
        header, rows, below = self._table()
        return html_table(self.optimizer, header, rows, notes=below)

    def _table(self) -> tuple[list[str], list[list[str]], list[str]]:
        """Return columns, rows, and below them the lists of links that they refer to.

        Columns in which nothing stands are left out.
        """
        kinds: dict[tuple[str, ...], str] = {}
        for leaf in self.leaves:
            kinds.setdefault(leaf.links, f"({len(kinds) + 1})")
        rows = [_cells(leaf, kinds[leaf.links]) for leaf in self.leaves]
        used = [any(column) for column in zip(*rows, strict=True)] or [True] * 7
        rows = [list(itertools.compress(row, used)) for row in rows]
        below = [_grouped(mark, names) for names, mark in kinds.items()]
        notes = [f"note: {note}" for note in self.notes]
        return list(itertools.compress(_HEADER, used)), rows, [*below, *notes]


def explain(tx: Link, params: Params) -> Explanation:
    """Return a table of what an optimizer does to each leaf of the parameters.

    It follows the calls that transformations remember, through chains, masks, labels
    and wrappers; nothing is allocated. Of a pair made by hand, and of a transformation
    of optax, it says only that it is there.

    Args:
      tx: an optimizer, or any transformation.
      params: arrays, shapes as `jax.ShapeDtypeStruct`, or `Packed`.

    Returns:
      A value to print: `print(gradtx.explain(tx, params))`. Its leaves are data.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
      >>> tx = gradtx.adamw(1e-3, weight_decay=0.1, mask=gradtx.ndim_at_least(2))
      >>> table = gradtx.explain(tx, params)
      >>> [(leaf.path, leaf.weight_decay) for leaf in table.leaves]
      [('bias', 0.0), ('kernel', 0.1)]
    """
    tx = as_transformation(tx)
    tree = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(shape_of(x), dtype_of(x)), as_shapes(params)
    )
    found, selectors = walk(tx, tree, Around())
    held = [(slashed(path), x) for path, x in jax.tree_util.tree_leaves_with_path(tree)]
    leaves = tuple(_explained(path, x, found[path]) for path, x in held)
    notes = [*_unmatched(selectors, held), *_unscaled(leaves), *_moved(found)]
    return Explanation(repr(tx), leaves, tuple(notes))


def _explained(path: str, x: Any, acts: Acts) -> ExplainedLeaf:
    steps = [step for step in acts.steps if not step.around.aside]
    after = _after_zero(steps)
    still = len(after) < len(steps) and _rest(after)
    frozen = still or not jnp.issubdtype(dtype_of(x), jnp.inexact)
    acting = [] if frozen else after
    scaling = [step for step in acting if step.factor is not None]
    decaying = [i for i, step in enumerate(acting) if step.decay]
    coupled = _coupled(acting, decaying)
    shrinkage = None
    if coupled is False:
        # from 0, since 0 - 0 is no negative zero
        shrinkage = 0.0 - sum(acting[i].decay * _factor(acting[i:]) for i in decaying)
    return ExplainedLeaf(
        path=path or "params",
        shape=shape_of(x),
        dtype=str(dtype_of(x)),
        links=tuple(map(_shown, acts.steps)),
        group="/".join(acts.labels),
        learning_rate=_learning_rate(acting) if scaling else None,
        schedules=tuple(step.schedule for step in scaling if step.schedule),
        weight_decay=sum((acting[i].decay for i in decaying), 0.0),
        coupled=coupled,
        shrinkage=shrinkage,
        frozen=frozen,
        opaque=any(step.opaque for step in steps),
    )


def _factor(steps: Sequence[Step]) -> float:
    return math.prod(step.factor for step in steps if step.factor is not None)


def _learning_rate(steps: Sequence[Step]) -> float:
    """Return the product of the rates, negative only where that surely goes uphill.

    A link that does more than scale may turn the sign around: after the last rate, or
    by its own.
    """
    factor = _factor(steps)
    last = max(i for i, step in enumerate(steps) if step.factor is not None)
    plain = all(step.scales for step in steps if step.factor is not None)
    plain &= all(step.scales or step.decays for step in steps[last:])
    return -factor if plain else abs(factor)


def _after_zero(steps: Sequence[Step]) -> Sequence[Step]:
    """Return the steps after the last one that sets updates to zero, if any does."""
    surely = lambda step: step.zero and not step.around.sometimes
    zeros = [i for i, step in enumerate(steps) if surely(step)]
    return steps[zeros[-1] + 1 :] if zeros else steps


def _rest(steps: Sequence[Step]) -> bool:
    """Say whether updates of zero come out of all these steps as zero."""
    return all(step.rests and not step.opaque for step in steps)


def _coupled(steps: Sequence[Step], decaying: Sequence[int]) -> bool | None:
    if not decaying:
        return False
    if not all(steps[i].decays for i in decaying):
        return None
    later = steps[decaying[0] + 1 :]
    if any(step.opaque for step in later):
        return None
    return not all(step.scales or step.decays for step in later)


def _grouped(mark: str, names: Sequence[str]) -> str:
    """Print links in order, those inside the same wrappers together."""
    if not names:
        return f"{mark} the gradient, as it is"
    parts = []
    for around, run in itertools.groupby(names, lambda x: x.partition(_INSIDE)[2]):
        arrow = " → " if parts else " "
        inside = [name.partition(_INSIDE)[0] for name in run]
        if around:
            wrappers = [f"inside {call}" for call in around.split(_INSIDE)]
            parts += [f"{arrow}{wrappers[0]}", *(f" {x}" for x in wrappers[1:])]
            inside[0], arrow = f"[{inside[0]}", " "
            inside[-1] += "]"
        parts += [f"{arrow}{inside[0]}", *(f" → {name}" for name in inside[1:])]
    return broken_line([f"{mark}{parts[0]}", *parts[1:]])


def _shown(step: Step) -> str:
    return _INSIDE.join([step.text, *reversed(step.around.wrappers)])


def _unmatched(
    selectors: Sequence[Selector], held: Sequence[tuple[str, Any]]
) -> list[str]:
    """Return a line for each pattern of a selector that matches no leaf."""
    patterns = []
    for selector in selectors:
        given = selector.call.arguments
        if selector.call.factory is path_matches:
            patterns.append(given["pattern"])
        elif selector.call.factory is label_paths:
            patterns += given["labels"]
    return [
        f"{pattern!r} matched nothing"
        for pattern in dict.fromkeys(patterns)
        if not any(path_matches(pattern).choose(path, x) for path, x in held)
    ]


def _unscaled(leaves: Sequence[ExplainedLeaf]) -> list[str]:
    moving = [leaf for leaf in leaves if not (leaf.frozen or leaf.opaque)]
    loose = [leaf.path for leaf in moving if leaf.learning_rate is None]
    uphill = [leaf.path for leaf in moving if (leaf.learning_rate or 0.0) < 0]
    lines = []
    if loose:
        lines.append(
            f"no learning rate acts on {_some(loose)}: an update that nothing turns "
            "around goes uphill. Freeze them, or give them a learning rate"
        )
    if uphill:
        lines.append(
            f"the learning rate of {_some(uphill)} is negative: it goes uphill"
        )
    return lines


def _moved(found: dict[str, Acts]) -> list[str]:
    """Return a line for leaves that are set to zero and may be moved by what follows."""
    lines = {}
    for path, acts in found.items():
        steps = [step for step in acts.steps if not step.around.aside]
        after = _after_zero(steps)
        if len(after) < len(steps) and not _rest(after):
            names = [step.name for step in after if step.opaque or not step.rests]
            lines.setdefault(", ".join(dict.fromkeys(names)), []).append(path)
    return [
        f"{_some(paths)}: set to zero, then given to {names}, which may move it. "
        "Freeze last."
        for names, paths in lines.items()
    ]


def _some(paths: Sequence[str]) -> str:
    shown = ", ".join(map(repr, paths[:3]))
    more = len(paths) - 3
    return (
        f"{shown} and {more} more lea{'f' if more == 1 else 'ves'}"
        if more > 0
        else shown
    )


def _cells(leaf: ExplainedLeaf, mark: str) -> list[str]:
    rate = "none" if leaf.learning_rate is None else f"{leaf.learning_rate:.6g}"
    if leaf.schedules:
        rate += " at step 0"
    if leaf.opaque:
        rate = "opaque" if leaf.learning_rate is None else f"{rate} × opaque"
    decay = f"{leaf.weight_decay:.6g}" if leaf.weight_decay else ""
    if decay:
        kind = {True: "coupled", False: "decoupled", None: "its own way"}[leaf.coupled]
        decay += f" ({kind})"
    shape = "×".join(map(str, leaf.shape)) if leaf.shape else "scalar"
    rate = "frozen" if leaf.frozen else rate
    return [leaf.path, shape, leaf.dtype, leaf.group, rate, decay, mark]
