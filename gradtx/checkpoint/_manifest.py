"""Say of a checkpoint all that must fit before its arrays are read."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from gradtx.checkpoint._described import is_described
from gradtx.checkpoint._files import FileRecord, read_small
from gradtx.checkpoint._json import LONGEST, canonical, parsed
from gradtx.core import DamagedError

#: The name of the file, written last: without it a directory is no checkpoint.
NAME = "manifest.json"
#: The directory of the arrays beside it.
ARRAYS = "arrays"
FORMAT = "gradtx.checkpoint"
VERSION = 1

_MOST_LEAVES = 10**6
_LONGEST_PATH = 1024
_LONGEST_LAST = 256  # two digests and their names
_LARGEST = 2**62
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FILE = re.compile(r"arrays(/[A-Za-z0-9_][A-Za-z0-9_.\-]*){1,8}")
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
#: What a leaf was beside an array: a Python number, or a typed key of a generator.
_KINDS = re.compile(r"array|int|float|bool|complex|key:[a-z0-9_]{1,32}")


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
        return math.prod(self.shape) * _itemsize(self.dtype)


_LEAF = {field.name for field in dataclasses.fields(Leaf)}


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


def sealed(manifest: Manifest, key: bytes | None) -> bytes:
    """Return the contents of the file: the manifest, and a line with its digests."""
    data = dataclasses.asdict(manifest)
    data["files"] = [record._asdict() for record in manifest.files]
    body = canonical({"format": FORMAT, "version": VERSION, **data})
    return body + b"\n" + canonical(_digests(body, key)) + b"\n"


def read_manifest(directory: Path, key: bytes | None = None) -> Manifest:
    """Return the manifest of a checkpoint, after its own digests were checked.

    Raises:
      DamagedError: if it is missing, damaged, or not signed with `key`.
    """
    path = directory / NAME
    raw = read_small(path, LONGEST)
    try:
        return unsealed(raw, key)
    except DamagedError as error:
        raise DamagedError(f"{path}: {error.args[0]}") from error


def unsealed(raw: bytes, key: bytes | None = None) -> Manifest:
    """Return the manifest that `sealed` wrote.

    Raises:
      DamagedError: for any other bytes; nothing else, whatever they are.
    """
    body, _, last = raw.removesuffix(b"\n").rpartition(b"\n")
    if not body or b"\n" in body or not raw.endswith(b"\n"):
        raise DamagedError("expected two lines, the manifest and its digest.")
    digests = parsed(last) if len(last) <= _LONGEST_LAST else None
    if not isinstance(digests, dict) or not {"sha256"} <= digests.keys() <= {
        "sha256",
        "hmac",
    }:
        raise DamagedError("the last line holds no digest.")
    if digests["sha256"] != hashlib.sha256(body).hexdigest():
        raise DamagedError("its bytes are not those that were written (SHA-256).")
    if key is not None:
        if "hmac" not in digests:
            raise DamagedError(
                "it is not signed, and a key was given to check it with."
            )
        given, wanted = str(digests["hmac"]), _digests(body, key)["hmac"]
        if not hmac.compare_digest(given.encode(), wanted.encode()):
            raise DamagedError("it was changed, or signed with another key (HMAC).")
    data = parsed(body)
    try:
        return _read(data)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise DamagedError(f"the manifest has another form: {error}.") from error


def is_signed(directory: Path) -> bool:
    """Say whether a manifest carries a signature, be it right or wrong."""
    return b'"hmac"' in read_small(directory / NAME, LONGEST).rpartition(b"}\n{")[2]


def _digests(body: bytes, key: bytes | None) -> dict[str, str]:
    digests = {"sha256": hashlib.sha256(body).hexdigest()}
    if key is not None:
        digests["hmac"] = hmac.new(key, body, hashlib.sha256).hexdigest()
    return digests


def _read(data: Any) -> Manifest:
    expect(isinstance(data, dict), "it is no object")
    expect(data.pop("format") == FORMAT, "it is no checkpoint of gradtx")
    version = data.pop("version")
    expect(
        version == VERSION and type(version) is int,
        f"version {version!r} is not the {VERSION} that this gradtx reads",
    )
    names = {field.name for field in dataclasses.fields(Manifest)}
    expect(data.keys() == names, f"unexpected keys {sorted(data.keys() ^ names)[:4]}")
    trees = {}
    for name, leaves in data["trees"].items():
        expect(isinstance(name, str) and len(name) <= 64, "a tree's name is too long")
        trees[name] = tuple(map(_leaf, _listed(leaves)))
    count = sum(map(len, trees.values()))
    expect(count <= _MOST_LEAVES, f"{count} leaves are too many")
    states = tuple(map(_state, _listed(data["states"])))
    for leaf in (leaf for leaves in trees.values() for leaf in leaves):
        expect(
            leaf.state is None or 0 <= leaf.state < len(states),
            f"{leaf.path} is in a state that is not listed",
        )
    made = Manifest(**{**data, "trees": trees, "states": states, "files": _files(data)})
    expect(_is_whole(made.step), "the step is no whole number")
    expect(_is_whole(made.processes), "the processes are no whole number")
    expect(_are_counts(made.counts), "the counts are no numbers")
    expect(
        made.optimizer is None
        or (isinstance(made.optimizer, dict) and is_described(made.optimizer)),
        "the optimizer is described in another way",
    )
    expect(isinstance(made.x64, bool), "x64 is neither true nor false")
    expect(isinstance(made.cipher, str), "the cipher is no name")
    expect(_are_texts(made.versions), "the versions are no texts")
    expect(
        isinstance(made.mesh, dict) and all(map(_is_whole, made.mesh.values())),
        "the mesh has no sizes",
    )
    return made


def _are_counts(counts: Any) -> bool:
    names = {"batches_consumed", "updates_applied", "states"}
    if not isinstance(counts, dict) or counts.keys() != names:
        return False
    states, updates = counts["states"], counts["updates_applied"]
    return (
        _is_whole(counts["batches_consumed"])
        and (updates is None or _is_whole(updates))
        and isinstance(states, dict)
        and all(type(value) is int for value in states.values())
    )


def _files(data: Any) -> tuple[FileRecord, ...]:
    files = tuple(FileRecord(**file) for file in _listed(data["files"]))
    for file in files:
        expect(
            isinstance(file.name, str)
            and len(file.name) <= _LONGEST_PATH
            and _FILE.fullmatch(file.name) is not None
            and ".." not in file.name,
            "a file's name leads elsewhere",
        )
        expect(_is_whole(file.size), f"{file.name} has no size")
        expect(_is_digest(file.sha256), f"{file.name} has no digest")
    expect(len({file.name for file in files}) == len(files), "a file is listed twice")
    return files


def _leaf(data: Any) -> Leaf:
    expect(data.keys() == _LEAF, "a leaf has other entries")
    shape, pieces = tuple(_listed(data["shape"])), tuple(_listed(data["pieces"]))
    spec = None if data["spec"] is None else tuple(_listed(data["spec"]))
    leaf = Leaf(
        **{
            **data,
            "shape": shape,
            "spec": spec,
            "pieces": pieces,
        }
    )
    expect(
        isinstance(leaf.path, str) and len(leaf.path) <= _LONGEST_PATH,
        f"a path is longer than {_LONGEST_PATH} characters",
    )
    expect(
        len(shape) <= 32 and all(map(_is_whole, shape)),
        f"{leaf.path} has no shape",
    )
    expect(leaf.dtype in DTYPES, f"{leaf.path} has a dtype that is not known")
    expect(
        isinstance(leaf.kind, str) and _KINDS.fullmatch(leaf.kind) is not None,
        f"{leaf.path} is of a kind that is not known",
    )
    expect(
        all(axis is None or isinstance(axis, str | list) for axis in spec or ()),
        f"{leaf.path} was spread in no known way",
    )
    # NumPy refuses empty arrays too, where the other dimensions are too large
    nbytes = math.prod(filter(None, shape)) * _itemsize(leaf.dtype)
    expect(nbytes <= _LARGEST, f"{leaf.path} is larger than any memory")
    expect(_is_digest(leaf.sha256), f"{leaf.path} has no digest")
    expect(isinstance(leaf.field, str), f"{leaf.path} is in no field")
    expect(
        leaf.state is None or _is_whole(leaf.state), f"{leaf.path} is in an odd state"
    )
    expect(
        not leaf.pieces or leaf.sha256 == digest_of_pieces(leaf.pieces),
        f"{leaf.path} has other pieces than were written",
    )
    for piece in leaf.pieces:
        index, digest = piece
        expect(
            len(index) == len(shape)
            and all(
                _is_whole(start) and _is_whole(stop) and start <= stop <= size
                for (start, stop), size in zip(index, shape, strict=True)
            )
            and _is_digest(digest),
            f"{leaf.path} has a piece that does not fit",
        )
    return leaf


def _state(data: Any) -> StateRecord:
    state = StateRecord(**data)
    texts = (state.tree, state.path, state.links, state.group, state.name)
    expect(all(isinstance(text, str) for text in texts), "a state has no name")
    expect(_is_whole(state.version), f"{state.path} has no version")
    expect(_are_texts(state.fields), f"{state.path} has no fields")
    return state


def digest_of_pieces(pieces: Any) -> str:
    """Return the hash that stands for those of an array's pieces."""
    return hashlib.sha256(canonical(pieces)).hexdigest()


def expect(holds: bool, otherwise: str) -> None:
    """Raise `ValueError` unless something holds of data from a file."""
    if not holds:
        raise ValueError(otherwise)


def _listed(value: Any) -> list[Any]:
    # a text or an object could be taken for the list of its items
    expect(isinstance(value, list), "a list is something else")
    return value


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(x, str) for x in value.values())


def _is_whole(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _itemsize(dtype: str) -> int:
    return jnp.dtype(dtype).itemsize
