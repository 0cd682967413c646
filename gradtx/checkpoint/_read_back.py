"""Read arrays back that were just written, before the step takes its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gradtx.checkpoint._digest import is_same
from gradtx.checkpoint._files import in_threads
from gradtx.checkpoint._leaves import is_here
from gradtx.checkpoint._records import Leaf
from gradtx.core import CheckpointError, imported


def read_back(directory: Path, leaves: Sequence[Leaf], values: Sequence[Any]) -> None:
    """Read all arrays, the i-th under the name of i, and compare them with `values`.

    Of an array that lies in several processes, its hashes are compared.

    The hashes of files tell nothing of what should be in them: Orbax does not notice
    where the files of a process cannot be listed, and leaves its arrays out. It is not
    Orbax that reads, since one process does, and Orbax waits for all.

    Raises:
      CheckpointError: naming the first array that does not come back as it was.
    """
    store = imported("tensorstore", "checkpoint")
    # without a cache each array reads the index of all arrays again
    context = store.Context({"cache_pool#index": {"total_bytes_limit": 100_000_000}})
    files = {"driver": "file", "path": f"{directory.absolute()}/"}
    index = {"driver": "ocdbt", "base": files, "cache_pool": "cache_pool#index"}

    def check(item: tuple[int, Leaf]) -> None:
        number, leaf = item
        spec = {
            "driver": "zarr",
            "kvstore": {**index, "path": f"{number}/"},
            "fill_missing_data_reads": False,
        }
        try:
            array = store.open(spec, read=True, open=True, context=context).result()
            value: Any = np.asarray(array.read().result())
        except (ValueError, OSError, RuntimeError) as error:
            why = str(error).partition(" [tensorstore_spec")[0][:300]
            raise CheckpointError(
                f"{directory}: {leaf.path} was written and cannot be read: {why}"
            ) from error
        told = (tuple(value.shape), value.dtype.name) == (leaf.shape, leaf.dtype)
        if not told or not _is_same(leaf, value, values[number]):
            raise CheckpointError(
                f"{directory}: {leaf.path} was written, and other elements are read."
            )

    held = [(i, leaf) for i, leaf in enumerate(leaves) if np.prod(leaf.shape) > 0]
    for _ in in_threads(check, held):
        pass


def _is_same(leaf: Leaf, value: np.ndarray, written: Any) -> bool:
    if not is_here(written):
        return is_same(leaf, value)
    # four times as fast as hashes; as integers, since NaN is not equal to itself
    return bool(np.array_equal(_bytes(value), _bytes(np.asarray(written))))


def _bytes(array: np.ndarray) -> np.ndarray:
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return flat.view(np.uint64) if flat.size % 8 == 0 else flat
