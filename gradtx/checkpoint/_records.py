"""Hold what is known of a checkpoint: its leaves, states and files, and how it was made."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from gradtx.checkpoint._files import FileRecord
from gradtx.checkpoint._json import canonical

#: The dtypes that can be stored.
DTYPES = frozenset(
    [
        "bool",
        "int2",
        "int4",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint2",
        "uint4",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float16",
        "bfloat16",
        "float32",
        "float64",
        "complex64",
        "complex128",
        "float8_e3m4",
        "float8_e4m3",
        "float8_e4m3b11fnuz",
        "float8_e4m3fn",
        "float8_e4m3fnuz",
        "float8_e5m2",
        "float8_e5m2fnuz",
        "float8_e8m0fnu",
        "float4_e2m1fn",
    ]
)


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One leaf of a saved tree.

    Attributes:
      path: where it is in its tree: `['enc']['w']`, `.scale_by_adam.mu['w']`.
      shape: its shape; of a key, that of its data.
      dtype: the name of its dtype; of a key, that of its data.
      sha256: the hash of its elements, little-endian, in C order.
      kind: `"array"`, or what it was instead.
      state: the position of the state around it in `Manifest.states`, or None.
      field: the field of that state, or "".
      spec: how it was spread over the mesh, an axis name, a list of them or None for
        each dimension; None where it was not.
      pieces: for an array of which no process had all, `[[start, stop], …]` by
        dimension and the hash of each part; `sha256` is then that of this list.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    sha256: str
    kind: str = "array"
    state: int | None = None
    field: str = ""
    spec: tuple[Any, ...] | None = None
    pieces: tuple[Any, ...] = ()

    @property
    def nbytes(self) -> int:
        """Its size in bytes as an array in memory."""
        return math.prod(self.shape) * itemsize(self.dtype)


@dataclasses.dataclass(frozen=True)
class StateRecord:
    """A named tuple in a saved tree, as it was declared then.

    Attributes:
      tree: the tree that it is in, such as `"opt_state"`.
      path: where it is there: `.scale_by_adam`.
      links: the links of chains around it, outermost first, with dots between.
      group: the keys of dicts and lists around it: `['decay']` of a partition.
      name: the name of its class.
      version: the class's `schema_version`; 1 where it has none.
      fields: its fields and what each holds, a role or "".
    """

    tree: str
    path: str
    links: str
    group: str
    name: str
    version: int
    fields: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What is in a checkpoint, and how it was made.

    Attributes:
      step: the number under which it was saved.
      counts: `batches_consumed` and `updates_applied`, and `states`: the value of each
        counter in the trees, by path.
      optimizer: `describe(tx, opaque=True)`, or None.
      record: plain data of the caller's: seeds, settings, positions in the data.
      trees: the leaves of each tree, by name.
      states: the states in them.
      files: the files of the arrays.
      versions: of gradtx, jax and Orbax; for people to read.
      x64: whether 64-bit types were on.
      mesh: axes and sizes of the mesh, or {}.
      cipher: the name of the cipher, or "".
      processes: how many processes saved it.
    """

    step: int
    counts: Mapping[str, Any]
    optimizer: Mapping[str, Any] | None
    record: Any
    trees: Mapping[str, tuple[Leaf, ...]]
    states: tuple[StateRecord, ...]
    files: tuple[FileRecord, ...]
    versions: Mapping[str, str]
    x64: bool
    mesh: Mapping[str, int]
    cipher: str = ""
    processes: int = 1


def digest_of_pieces(pieces: Any) -> str:
    """Return the hash that stands for those of an array's pieces."""
    return hashlib.sha256(canonical(pieces)).hexdigest()


def itemsize(dtype: str) -> int:
    """Return the bytes of one element in memory."""
    return jnp.dtype(dtype).itemsize
