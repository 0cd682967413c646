"""Say how much memory an optimizer's state takes, before any of it is allocated."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, cast

import jax
import jax.numpy as jnp

from gradtx.core import (
    Field,
    Link,
    Params,
    Role,
    as_transformation,
    dtype_of,
    fields,
    shape_of,
)
from gradtx.telemetry._table import broken_call, html_table, show_bytes, text_table

_HEADER = ("field", "state", "role", "dtype", "arrays", "elements", "size", "B/param")
_RIGHT = ("arrays", "elements", "size", "B/param", "per device")


@dataclasses.dataclass(frozen=True)
class SummaryRow:
    """The arrays of one field of a state, or those of all parameters.

    Attributes:
      path: where the field is in the state, such as `scale_by_adam.mu`.
      link: the name of the link of a chain that keeps it; empty outside a chain.
      state: the name of the state's class.
      role: what the field holds, such as "per_param"; empty where nothing says so.
      dtypes: names of the dtypes, in order of size.
      arrays: number of arrays.
      elements: number of elements of all arrays.
      bytes: size of all arrays, each counted once, in bytes.
      bytes_per_device: what one device holds of it, in bytes.
      bytes_per_param: bytes per element of the parameters.
    """

    path: str
    link: str
    state: str
    role: str
    dtypes: tuple[str, ...]
    arrays: int
    elements: int
    bytes: int
    bytes_per_device: int
    bytes_per_param: float


@dataclasses.dataclass(frozen=True)
class Summary:
    """What an optimizer's state takes in memory; it prints as a table.

    Attributes:
      optimizer: the call that made the optimizer.
      rows: one for each field that holds arrays, in the order of the state.
      params: the parameters.
      gradients: their gradients, of the same dtypes.
      devices: devices over which the parameters are spread; 1 if they are not.
    """

    optimizer: str
    rows: tuple[SummaryRow, ...]
    params: SummaryRow
    gradients: SummaryRow
    devices: int

    @property
    def bytes(self) -> int:
        """Size of the state, in bytes: each array once, however many devices."""
        return sum(row.bytes for row in self.rows)

    @property
    def bytes_per_device(self) -> int:
        """What one device holds of the state, in bytes."""
        return sum(row.bytes_per_device for row in self.rows)

    @property
    def bytes_per_param(self) -> float:
        """Bytes of the state per element of the parameters."""
        return self.bytes / max(1, self.params.elements)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, fit for JSON."""
        plain = lambda row: dataclasses.asdict(row) | {"dtypes": [*row.dtypes]}
        return {
            "optimizer": self.optimizer,
            "bytes": self.bytes,
            "bytes_per_device": self.bytes_per_device,
            "bytes_per_param": self.bytes_per_param,
            "devices": self.devices,
            "params": plain(self.params),
            "gradients": plain(self.gradients),
            "rows": [plain(row) for row in self.rows],
        }

    def __str__(self) -> str:
        header, rows = self._table()
        table = text_table(*_by_state(header, rows), _RIGHT)
        return f"{broken_call(self.optimizer)}\n\n{table}"

    def _repr_html_(self) -> str:
        return html_table(self.optimizer, *self._table(), _RIGHT)

    def _table(self) -> tuple[list[str], list[list[str]]]:
        spread = self.devices > 1
        total = _row("state", [], self.params.elements)
        total = dataclasses.replace(
            total,
            arrays=sum(row.arrays for row in self.rows),
            elements=sum(row.elements for row in self.rows),
            bytes=self.bytes,
            bytes_per_device=self.bytes_per_device,
            bytes_per_param=self.bytes_per_param,
        )
        parts = [*self.rows, None, total, self.params, self.gradients]
        cells = [[] if row is None else _cells(row, spread) for row in parts]
        return [*_HEADER, *(["per device"] if spread else [])], cells


def _by_state(
    header: list[str], rows: list[list[str]]
) -> tuple[list[str], list[list[str]]]:
    """Return a narrower table: fields of one state stand below its path and class."""
    made, last = [], ""
    for row in rows:
        path, state, *cells = row or ("", "")
        place, _, name = path.rpartition(".")
        above = f"{place} ({state})" if place else state
        if state and above != last:
            made.append([above])
        made.append([f"  {name}" if state else path, *cells] if row else [])
        last = above
    return [header[0], *header[2:]], made


def summary(tx: Link, params: Params) -> Summary:
    """Return a table of the memory that the state of an optimizer takes.

    Nothing is allocated: `init` is only traced. Arrays of the parameters' names and
    shapes are taken to be sharded as the parameters are, all others to be replicated,
    as `init` does outside `jit`.

    Args:
      tx: an optimizer, or any transformation.
      params: arrays or shapes as `jax.ShapeDtypeStruct`, sharded or not, or `Packed`.

    Returns:
      A value to print: `print(gradtx.summary(tx, params))`. Its rows are data.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> params = {"w": jax.ShapeDtypeStruct((1000, 1000), jnp.float32)}
      >>> table = gradtx.summary(gradtx.adamw(1e-3), params)
      >>> table.bytes, [row.path for row in table.rows if row.role == "per_param"]
      (8000012, ['scale_by_adam.mu', 'scale_by_adam.nu'])
    """
    tx = as_transformation(tx)
    state = jax.eval_shape(tx.init, jax.tree.map(_shape, params))
    size, beside = _elements(jax.tree.leaves(params)), _Beside(params)
    rows = [
        _row(field.path, beside.laid_out(field.value), size, field)
        for field in fields(state)
    ]
    held = beside.laid_out(params)
    # gradients are of one of the two sets of `lookahead`
    pairs = tx.traits.form == "pairs" and hasattr(params, "slow")
    moved: Any = cast(Any, params)._replace(slow=()) if pairs else params
    trained = [
        (x, s)
        for x, s in beside.laid_out(moved)
        if jnp.issubdtype(dtype_of(x), jnp.inexact)
    ]
    return Summary(
        optimizer=repr(tx),
        rows=tuple(row for row in rows if row.arrays),
        params=_row("parameters", held, size),
        gradients=_row("gradients", trained, size),
        devices=beside.devices,
    )


def state_bytes(state: Any, *, per_device: bool = False) -> int:
    """Return the size of a state, or of any other pytree, in bytes.

    Args:
      state: arrays, shape-and-dtypes, tracers or numbers.
      per_device: whether to count what one device holds: a part of a sharded array, the
        whole of a replicated one.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.telemetry.state_bytes(gradtx.trace(0.9).init({"w": jnp.zeros(10)}))
      40
    """
    leaves = jax.tree.leaves(state)
    if not per_device:
        return sum(map(_bytes, leaves))
    return sum(_bytes_here(x, getattr(x, "sharding", None)) for x in leaves)


class _Beside:
    """The shardings of parameters, and of what `init` lays beside them."""

    def __init__(self, params: Any):
        self._own = {
            (path, shape_of(x)): getattr(x, "sharding", None)
            for path, x in jax.tree_util.tree_leaves_with_path(params)
        }
        known = [sharding for sharding in self._own.values() if sharding is not None]
        self.devices = max([sharding.num_devices for sharding in known], default=1)

    def laid_out(self, tree: Any) -> list[tuple[Any, Any]]:
        """Return each array of a tree with its sharding, `None` if it is in one piece.

        An array belongs to the parameter in whose path its own ends.
        """
        made = []
        for path, x in jax.tree_util.tree_leaves_with_path(tree):
            ends = [(path[start:], shape_of(x)) for start in range(len(path) + 1)]
            own = next((self._own[end] for end in ends if end in self._own), None)
            made.append((x, own))
        return made


def _row(
    path: str, held: list[tuple[Any, Any]], params: int, field: Field | None = None
) -> SummaryRow:
    leaves = [x for x, _ in held]
    by_dtype: dict[str, int] = {}
    for x in leaves:
        name = str(dtype_of(x))
        by_dtype[name] = by_dtype.get(name, 0) + _bytes(x)
    size = sum(map(_bytes, leaves))
    return SummaryRow(
        path=path,
        link=field.link if field else "",
        state=field.state if field else "",
        role=field.role.value if field and isinstance(field.role, Role) else "",
        dtypes=tuple(sorted(by_dtype, key=by_dtype.__getitem__, reverse=True)),
        arrays=len(leaves),
        elements=_elements(leaves),
        bytes=size,
        bytes_per_device=sum(_bytes_here(x, sharding) for x, sharding in held),
        bytes_per_param=size / max(1, params),
    )


def _cells(row: SummaryRow, spread: bool) -> list[str]:
    return [
        row.path,
        row.state,
        row.role,
        ", ".join(row.dtypes),
        f"{row.arrays:,}",
        f"{row.elements:,}",
        show_bytes(row.bytes),
        f"{row.bytes_per_param:.2f}",
        *([show_bytes(row.bytes_per_device)] if spread else []),
    ]


def _shape(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape_of(x), dtype_of(x))


def _elements(leaves: list[Any]) -> int:
    return sum(math.prod(shape_of(x)) for x in leaves)


def _bytes(x: Any) -> int:
    return math.prod(shape_of(x)) * dtype_of(x).itemsize


def _bytes_here(x: Any, sharding: Any) -> int:
    shape = shape_of(x) if sharding is None else sharding.shard_shape(shape_of(x))
    return math.prod(shape) * dtype_of(x).itemsize
