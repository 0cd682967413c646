"""Write arrays to files and read them, by Orbax, under numbers for names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gradtx.checkpoint._leaves import Found
from gradtx.checkpoint._records import Leaf
from gradtx.core import DamagedError, imported

#: The size of a file from which on the next begins: several are hashed at once.
_FILE = 64 << 20


def _checkpointer() -> Any:
    ocp = imported("orbax.checkpoint", "checkpoint")
    # moments do not compress, and zstd takes longer than all hashes together
    return ocp.Checkpointer(
        ocp.PyTreeCheckpointHandler(use_ocdbt=True, use_compression=False)
    )


def write_arrays(directory: Path, values: Sequence[Any]) -> None:
    """Write arrays, the i-th under the name of i; those without elements are left out.

    Raises:
      OSError: if the disk refuses.
    """
    numbered = {str(i): x for i, x in enumerate(values) if np.prod(x.shape) > 0}
    if not numbered:
        directory.mkdir(mode=0o700)
        return
    try:
        with _checkpointer() as checkpointer:
            args = imported("orbax.checkpoint", "checkpoint").args.PyTreeSave(
                numbered, ocdbt_target_data_file_size=_FILE
            )
            checkpointer.save(directory.absolute(), args=args)
    except ValueError as error:
        # TensorStore reports a full disk as an error of value
        raise OSError(f"{directory}: {_first_line(error)}") from error


def read_arrays(
    directory: Path, leaves: Mapping[int, Leaf], like: Mapping[int, Found]
) -> dict[int, Any]:
    """Return arrays by number, each placed as `like` says.

    Args:
      directory: where `write_arrays` wrote them.
      leaves: the records of the arrays to read.
      like: what to read them into: onto the devices of a `jax.Array` or of an abstract
        array with a sharding, into NumPy where it is an array of NumPy, and else onto
        the default device.

    Raises:
      DamagedError: if Orbax cannot read what lies there.
    """
    ocp = imported("orbax.checkpoint", "checkpoint")
    made = {i: _empty(leaf) for i, leaf in leaves.items() if np.prod(leaf.shape) == 0}
    wanted = [i for i in leaves if i not in made]
    arguments = {}
    for i in wanted:
        sharding = sharding_of(like[i].value)
        shape, dtype = tuple(leaves[i].shape), np.dtype(leaves[i].dtype)
        if sharding is None:
            arguments[str(i)] = ocp.RestoreArgs(restore_type=np.ndarray, dtype=dtype)
        else:
            arguments[str(i)] = ocp.ArrayRestoreArgs(
                sharding=sharding, global_shape=shape, dtype=dtype, strict=True
            )
    if wanted:
        try:
            with _checkpointer() as checkpointer:
                found = checkpointer.restore(
                    directory.absolute(),
                    args=ocp.args.PyTreeRestore(
                        item=dict.fromkeys(arguments, 0),
                        restore_args=arguments,
                        partial_restore=True,
                    ),
                )
        except (ValueError, KeyError, OSError, RuntimeError) as error:
            raise DamagedError(
                f"{directory}: Orbax cannot read the arrays: {_first_line(error)}"
            ) from error
        made.update({i: found[str(i)] for i in wanted})
    for i, leaf in leaves.items():
        shape, dtype = tuple(made[i].shape), made[i].dtype.name
        if (shape, dtype) != (leaf.shape, leaf.dtype):
            raise DamagedError(
                f"{directory}: array {i} is {dtype}{list(shape)}, where the manifest "
                f"says {leaf.dtype}{list(leaf.shape)}."
            )
    return {i: _placed(made[i], like[i].value) for i in leaves}


def _empty(leaf: Leaf) -> np.ndarray:
    return np.zeros(leaf.shape, leaf.dtype)


def _placed(array: Any, like: Any) -> Any:
    if isinstance(array, jax.Array) or isinstance(like, np.ndarray):
        return array
    return jax.device_put(array, sharding_of(like))


def sharding_of(like: Any) -> Any:
    """Return where a leaf must lie, or None where `jit` may choose.

    An array that was never put anywhere must not come back bound to a device: a step
    of arrays on several devices would refuse it.
    """
    free = isinstance(like, jax.Array) and not like.committed
    return None if free else getattr(like, "sharding", None)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:300]
