"""Make a manifest of data from a file, if it has the form of one in every part."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

from gradtx.checkpoint._described import is_described
from gradtx.checkpoint._files import FileRecord
from gradtx.checkpoint._records import (
    DTYPES,
    Leaf,
    Manifest,
    StateRecord,
    digest_of_pieces,
    itemsize,
)

FORMAT = "gradtx.checkpoint"
VERSION = 1

_MOST_LEAVES = 10**6
_LONGEST_PATH = 1024
_LARGEST = 2**62
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FILE = re.compile(r"arrays(/[A-Za-z0-9_][A-Za-z0-9_.\-]*){1,8}")
#: What a leaf was beside an array: a Python number, or a typed key of a generator.
_KINDS = re.compile(r"array|int|float|bool|complex|key:[a-z0-9_]{1,32}")
_LEAF = {field.name for field in dataclasses.fields(Leaf)}


def manifest_of(data: Any) -> Manifest:
    """Return the manifest that data from a file holds.

    Raises:
      ValueError, KeyError, TypeError, AttributeError, OverflowError: if it holds none.
    """
    _expect(isinstance(data, dict), "it is no object")
    _expect(data.pop("format") == FORMAT, "it is no checkpoint of gradtx")
    version = data.pop("version")
    _expect(
        version == VERSION and type(version) is int,
        f"version {version!r} is not the {VERSION} that this gradtx reads",
    )
    names = {field.name for field in dataclasses.fields(Manifest)}
    _expect(data.keys() == names, f"unexpected keys {sorted(data.keys() ^ names)[:4]}")
    trees = {}
    for name, leaves in data["trees"].items():
        _expect(isinstance(name, str) and len(name) <= 64, "a tree's name is too long")
        trees[name] = tuple(map(_leaf, _listed(leaves)))
    count = sum(map(len, trees.values()))
    _expect(count <= _MOST_LEAVES, f"{count} leaves are too many")
    states = tuple(map(_state, _listed(data["states"])))
    for leaf in (leaf for leaves in trees.values() for leaf in leaves):
        _expect(
            leaf.state is None or 0 <= leaf.state < len(states),
            f"{leaf.path} is in a state that is not listed",
        )
    made = Manifest(**{**data, "trees": trees, "states": states, "files": _files(data)})
    _expect(_is_whole(made.step), "the step is no whole number")
    _expect(_is_whole(made.processes), "the processes are no whole number")
    _expect(_are_counts(made.counts), "the counts are no numbers")
    _expect(
        made.optimizer is None
        or (isinstance(made.optimizer, dict) and is_described(made.optimizer)),
        "the optimizer is described in another way",
    )
    _expect(isinstance(made.x64, bool), "x64 is neither true nor false")
    _expect(isinstance(made.cipher, str), "the cipher is no name")
    _expect(_are_texts(made.versions), "the versions are no texts")
    _expect(
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
        _expect(
            isinstance(file.name, str)
            and len(file.name) <= _LONGEST_PATH
            and _FILE.fullmatch(file.name) is not None
            and ".." not in file.name,
            "a file's name leads elsewhere",
        )
        _expect(_is_whole(file.size), f"{file.name} has no size")
        _expect(_is_digest(file.sha256), f"{file.name} has no digest")
    _expect(len({file.name for file in files}) == len(files), "a file is listed twice")
    return files


def _leaf(data: Any) -> Leaf:
    _expect(data.keys() == _LEAF, "a leaf has other entries")
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
    _expect(
        isinstance(leaf.path, str) and len(leaf.path) <= _LONGEST_PATH,
        f"a path is longer than {_LONGEST_PATH} characters",
    )
    _expect(
        len(shape) <= 32 and all(map(_is_whole, shape)),
        f"{leaf.path} has no shape",
    )
    _expect(leaf.dtype in DTYPES, f"{leaf.path} has a dtype that is not known")
    _expect(
        isinstance(leaf.kind, str) and _KINDS.fullmatch(leaf.kind) is not None,
        f"{leaf.path} is of a kind that is not known",
    )
    _expect(
        all(axis is None or isinstance(axis, str | list) for axis in spec or ()),
        f"{leaf.path} was spread in no known way",
    )
    # NumPy refuses empty arrays too, where the other dimensions are too large
    nbytes = math.prod(filter(None, shape)) * itemsize(leaf.dtype)
    _expect(nbytes <= _LARGEST, f"{leaf.path} is larger than any memory")
    _expect(_is_digest(leaf.sha256), f"{leaf.path} has no digest")
    _expect(isinstance(leaf.field, str), f"{leaf.path} is in no field")
    _expect(
        leaf.state is None or _is_whole(leaf.state), f"{leaf.path} is in an odd state"
    )
    _expect(
        not leaf.pieces or leaf.sha256 == digest_of_pieces(leaf.pieces),
        f"{leaf.path} has other pieces than were written",
    )
    for piece in leaf.pieces:
        index, digest = piece
        _expect(
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
    _expect(all(isinstance(text, str) for text in texts), "a state has no name")
    _expect(_is_whole(state.version), f"{state.path} has no version")
    _expect(_are_texts(state.fields), f"{state.path} has no fields")
    return state


def _expect(holds: bool, otherwise: str) -> None:
    """Raise `ValueError` unless something holds of data from a file."""
    if not holds:
        raise ValueError(otherwise)


def _listed(value: Any) -> list[Any]:
    # a text or an object could be taken for the list of its items
    _expect(isinstance(value, list), "a list is something else")
    return value


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(x, str) for x in value.values())


def _is_whole(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None
