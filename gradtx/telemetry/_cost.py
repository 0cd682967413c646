"""Say what observing an optimizer will cost, before anything is allocated."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import jax

from gradtx.core import (
    ArgumentError,
    Link,
    Params,
    as_transformation,
    unpack,
)
from gradtx.telemetry._links import is_transformation
from gradtx.telemetry._metrics import METRICS, parse
from gradtx.telemetry._observe import ObserveState, observe
from gradtx.telemetry._read import names
from gradtx.telemetry._summary import state_bytes
from gradtx.telemetry._table import html_table, show_bytes, text_table

_HEADER = ("metrics", "all", "groups", "leaves", "fields", "sum")
_RIGHT = _HEADER[1:]


@dataclasses.dataclass(frozen=True)
class Cost:
    """What observing an optimizer costs; it prints as a table.

    Attributes:
      series: for each metric, how many values `read` gives: of all parameters, of
        groups, of leaves, and of these how many are of single fields of states.
      state_bytes: what the observers keep in the state, in bytes, without what they
        observe.
      pass_bytes: what one measurement reads, in bytes: gradients, parameters and state
        once for the updates, and what states keep per parameter once more.
      every: updates from one measurement to the next.
    """

    series: dict[str, tuple[int, int, int, int]]
    state_bytes: int
    pass_bytes: int
    every: int

    @property
    def metrics(self) -> int:
        """How many values `read` gives."""
        return sum(whole + groups + leaves for whole, groups, leaves, _ in self._counts)

    @property
    def _counts(self) -> list[tuple[int, int, int, int]]:
        return list(self.series.values())

    @property
    def _cells(self) -> list[list[str]]:
        body = [
            [name, *map(str, counts), str(sum(counts[:3]))]
            for name, counts in self.series.items()
        ]
        total = [sum(column) for column in zip(*self._counts, strict=True)]
        return [*body, [], ["", *map(str, total), str(self.metrics)]]

    @property
    def _notes(self) -> list[str]:
        return [
            f"state: {show_bytes(self.state_bytes)}",
            f"one measurement reads {show_bytes(self.pass_bytes)}, each "
            f"{self.every} updates: {show_bytes(self.pass_bytes / self.every)} an update",
        ]

    def __str__(self) -> str:
        return "\n".join([text_table(_HEADER, self._cells, _RIGHT), *self._notes])

    def _repr_html_(self) -> str:
        caption = f"{self.metrics} metrics"
        return html_table(caption, _HEADER, self._cells, _RIGHT, self._notes)


def cost(tx: Link, params: Params) -> Cost:
    """Return what observing an optimizer costs in metrics and bytes, before training.

    Args:
      tx: an optimizer with `observe` around it or in it.
      params: a pytree of arrays or of `jax.ShapeDtypeStruct`; nothing is allocated.

    Raises:
      ArgumentError: if nothing in `tx` observes.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.observe(gradtx.adam(1e-3), every=50)
      >>> found = gradtx.telemetry.cost(tx, {"w": jnp.zeros(1000)})
      >>> found.metrics, found.pass_bytes, found.series["moment_rms"]
      (22, 24024, (2, 0, 0, 2))
    """
    state = jax.eval_shape(as_transformation(tx).init, params)
    observers = _observers(state)
    if not observers:
        raise ArgumentError(
            "nothing in the optimizer observes. Wrap it: gradtx.observe(tx).", "cost"
        )
    series: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0, 0, 0])
    for name in names(tx, params):
        part = parse(name)
        kind = 1 if part.group else 2 if part.leaf else 0
        series[part.metric][kind] += 1
        series[part.metric][3] += bool(part.field)
    every = min(_everys(as_transformation(tx)), default=1)
    ordered = {name: _four(series[name]) for name in METRICS if name in series}
    weight = state_bytes(jax.eval_shape(unpack, params))
    inner = sum(state_bytes(seen.inner_state) for seen in observers)
    own = sum(state_bytes(seen) for seen in observers) - inner
    return Cost(ordered, own, 2 * weight + 2 * inner, every)


def _four(counts: list[int]) -> tuple[int, int, int, int]:
    whole, groups, leaves, of_fields = counts
    return whole, groups, leaves, of_fields


def _observers(state: Any) -> list[ObserveState]:
    is_one = lambda x: isinstance(x, ObserveState)
    found = [x for x in jax.tree.leaves(state, is_leaf=is_one) if is_one(x)]
    return found + [y for x in found for y in _observers(x.inner_state)]


def _everys(tx: Any) -> list[int]:
    """Return the numbers of updates between measurements."""
    arguments = tx.call.arguments
    leaves = jax.tree.leaves(list(arguments.values()), is_leaf=is_transformation)
    inside = filter(is_transformation, leaves)
    own = [arguments["every"]] if tx.call.factory is observe else []
    return own + [every for x in inside for every in _everys(x)]
