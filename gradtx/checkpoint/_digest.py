"""Hash the elements of leaves, and compare them with what was hashed before."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gradtx.checkpoint._files import in_threads
from gradtx.checkpoint._leaves import Found, is_here
from gradtx.checkpoint._records import Leaf, digest_of_pieces
from gradtx.core import DamagedError

#: `[[start, stop], …]` by dimension, and the hash of that part of an array.
Piece = list[Any]


def digest(value: Any) -> str:
    """Return the hash of an array's elements, little-endian, in C order."""
    array = np.ascontiguousarray(np.asarray(value))
    return hashlib.sha256(array.reshape(-1).view(np.uint8).data).hexdigest()


def digests(found: Sequence[Found]) -> list[str | list[Piece]]:
    """Return the hash of each leaf, or those of the pieces that this process has.

    Where no process has all of an array, each piece counts for the one process that
    holds its first replica.
    """

    def one(item: Found) -> str | list[Piece]:
        value = item.value
        if is_here(value):
            return digest(value)
        return [
            [_bounds(shard.index, value.shape), digest(shard.data)]
            for shard in value.addressable_shards
            if shard.replica_id == 0
        ]

    return list(in_threads(one, list(found)))


def with_digest(leaf: Leaf, parts: Iterable[str | list[Piece]]) -> Leaf:
    """Return the record of a leaf with its hash, from what all processes hashed."""
    parts = list(parts)
    for whole in parts:
        if isinstance(whole, str):
            return dataclasses.replace(leaf, sha256=whole)
    pieces = sorted(piece for part in parts for piece in part)
    return dataclasses.replace(
        leaf, sha256=digest_of_pieces(pieces), pieces=tuple(pieces)
    )


def check_leaves(triples: Iterable[tuple[Leaf, Any, str]]) -> None:
    """Compare the elements of restored arrays with their hashes.

    Of an array that is spread over processes, the pieces that this one holds are
    compared where they are cut as they were when saved; the files have been checked
    by then.

    Args:
      triples: the record of each leaf, the array, and where it is, to be told.

    Raises:
      DamagedError: naming the first leaf that differs.
    """

    def check(triple: tuple[Leaf, Any, str]) -> None:
        leaf, value, where = triple
        if is_same(leaf, value):
            return
        raise DamagedError(
            f"{where}: the elements that were read are not those that were saved, though "
            "the files are. Was it read by another version of Orbax? Read it once more; "
            "if that fails too, go back to an earlier step."
        )

    for _ in in_threads(check, list(triples)):
        pass


def is_same(leaf: Leaf, value: Any) -> bool:
    """Say whether the elements of an array are those that were hashed."""
    if is_here(value):
        if not leaf.pieces:
            return digest(value) == leaf.sha256
        whole = np.asarray(value)
        return all(
            digest(whole[tuple(slice(*bounds) for bounds in index)]) == wanted
            for index, wanted in leaf.pieces
        )
    wanted = {str(index): sha256 for index, sha256 in leaf.pieces}
    for shard in value.addressable_shards:
        known = wanted.get(str(_bounds(shard.index, value.shape)))
        if known is not None and digest(shard.data) != known:
            return False
    return True


def _bounds(index: Any, shape: Sequence[int]) -> list[list[int]]:
    return [
        [s.start or 0, size if s.stop is None else s.stop]
        for s, size in zip(index, shape, strict=True)
    ]
