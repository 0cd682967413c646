"""Say where each leaf of a tree lies in a few arrays."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.core._call import dtype_of

Shape = tuple[int, ...]
#: Operands of one concatenation: XLA's time to compile it grows with their square.
MOST = 128


@dataclasses.dataclass(frozen=True)
class Group:
    """The leaves that lie in one array.

    Attributes:
      name: what the array is called in paths.
      members: the positions of the leaves in the tree, in their order in the array.
      shapes: their shapes.
      whole: whether they keep their axes, stacked along a new first one, since one of
        these is sharded; else all lie flat, one after another, and zeros after them.
    """

    name: str
    members: tuple[int, ...]
    shapes: tuple[Shape, ...]
    whole: bool

    def join(self, leaves: Sequence[Any]) -> Any:
        """Return the leaves as one array; if they are no arrays, what they all are."""
        if not any(map(is_array, leaves)):
            if any(x != leaves[0] for x in leaves):
                raise Cut
            return leaves[0]
        batch = leaves[0].shape[: leaves[0].ndim - len(self.shapes[0])]
        rows = []
        for x, shape in zip(leaves, self.shapes, strict=True):
            inner = (1, *shape) if self.whole else (math.prod(shape),)
            rows.append(x.reshape(*batch, *inner))
        # `float0` is a dtype of NumPy's
        outside = dtype_of(leaves[0]) == jax.dtypes.float0
        if self.padding:
            zeros = (np if outside else jnp).zeros
            rows.append(zeros((*batch, self.padding), dtype_of(leaves[0])))
        if outside:
            return np.concatenate(rows, axis=len(batch))
        while len(rows) > 1:
            few = [rows[i : i + MOST] for i in range(0, len(rows), MOST)]
            # the barrier keeps XLA from making one concatenation of all again
            few = [lax.optimization_barrier(x) for x in few] if len(few) > 1 else few
            rows = [lax.concatenate(x, len(batch)) for x in few]
        return rows[0]

    def blocks(self, array: Any) -> list[tuple[tuple[int, ...], Any]]:
        """Return the positions of leaves of one shape, and one array of them all."""
        if self.whole:
            return [(self.members, array)]
        found, begin, place = [], 0, 0
        for shape, alike in itertools.groupby(self.shapes):
            count = len(list(alike))
            end = begin + count * math.prod(shape)
            block = lax.slice_in_dim(array, begin, end, axis=-1)
            block = block.reshape(*array.shape[:-1], count, *shape)
            block = jnp.moveaxis(block, array.ndim - 1, 0)
            found.append((self.members[place : place + count], block))
            begin, place = end, place + count
        return found

    @functools.cached_property
    def padding(self) -> int:
        """How many zeros follow the leaves of a flat array.

        On a CPU, XLA took 4.5 times as long for 10,814,867 numbers as for one more.
        """
        return 0 if self.whole else -sum(map(math.prod, self.shapes)) % 64

    def split(self, array: Any) -> list[Any]:
        """Return the leaves that `join` made `array` of."""
        if not is_array(array):
            return [array] * len(self.members)
        axis = array.ndim - (1 + len(self.shapes[0]) if self.whole else 1)
        shapes = [(*array.shape[:axis], *shape) for shape in self.shapes]
        if isinstance(array, jax.ShapeDtypeStruct):
            return [jax.ShapeDtypeStruct(s, array.dtype) for s in shapes]
        sizes = [1 if self.whole else math.prod(s) for s in self.shapes]
        if dtype_of(array) == jax.dtypes.float0:
            parts = np.split(array, np.cumsum(sizes), axis)
        else:
            # its derivative is a concatenation, where that of slices is a sum of pads
            padding = [self.padding] if self.padding else []
            parts = lax.split(array, sizes + padding, axis)
        # what is left over is padding
        return [x.reshape(s) for x, s in zip(parts, shapes, strict=False)]


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """Where each leaf of a tree lies: the static part of a `Packed`."""

    structure: Any
    groups: tuple[Group, ...]

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Layout)
            and self._key == other._key
            and self.structure == other.structure
        )

    def __hash__(self) -> int:
        return self._key

    def __repr__(self) -> str:
        return f"{self.structure.num_leaves} leaves in {len(self.groups)} arrays"

    @functools.cached_property
    def _key(self) -> int:
        return hash((self.structure, self.groups))


class Cut(Exception):
    """Leaves in one array differ in what is said of them, such as a mask's flag."""


def is_array(x: Any) -> bool:
    """Say whether `x` has a shape and a dtype, and so can be joined with others."""
    return isinstance(x, (jax.Array, np.ndarray, jax.ShapeDtypeStruct))
