"""Continue from checkpoints that flax or Orbax wrote of an optax optimizer."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import (
    DamagedError,
    GradientTransformation,
    MismatchError,
    NoCheckpointError,
    as_shapes,
    dtype_of,
    imported,
    shape_of,
)
from gradtx.interop._optax import from_optax_state, twin


def from_flax_bytes(tx: GradientTransformation, data: bytes, params: Any) -> Any:
    """Return the state for `tx` that continues from bytes of `flax.serialization`.

    `data` is what `to_bytes` made of the state of optax's transformation of the same
    name and arguments as `tx`, or of a whole `TrainState` with it. Every path, shape
    and dtype is compared with those of a fresh state: flax itself hands moments of
    other shapes back without a word.

    The format has no checksums. Bytes that were changed within an array come through;
    save with `gradtx.checkpoint` from then on.

    Args:
      tx: the transformation that goes on.
      data: the contents of the file.
      params: the parameters, or `jax.ShapeDtypeStruct` like them; or, of a whole
        `TrainState`, a fresh one with `tx`.

    Returns:
      The state; or the `TrainState` with all that was saved in it.

    Raises:
      DamagedError: if the bytes are cut off, or are none that flax wrote.
      MismatchError: naming the path where they do not fit: they are of another
        optimizer, or of other parameters.
      ArgumentError: if optax has no transformation of the name of `tx`.
      ImportError: if flax or optax is not installed.

    Example:
      >>> import flax.serialization, jax.numpy as jnp, gradtx, optax
      >>> params = {"w": jnp.zeros(2)}
      >>> data = flax.serialization.to_bytes(optax.adam(1e-3).init(params))
      >>> state = gradtx.interop.from_flax_bytes(gradtx.adam(1e-3), data, params)
      >>> state.scale_by_adam.mu["w"].tolist()
      [0.0, 0.0]
    """
    serialization = imported("flax.serialization", "flax")
    try:
        tree = serialization.msgpack_restore(data)
    except Exception as error:  # whatever the bytes are
        raise DamagedError(
            f"{len(data)} bytes that flax cannot read, of a file that was cut off or "
            f"changed, or was not written by flax.serialization: {_first_line(error)}."
        ) from error
    return _continued(tx, tree, params, "the bytes")


def from_orbax(
    tx: GradientTransformation, path: str | os.PathLike[str], params: Any
) -> Any:
    """Return the state for `tx` that continues from a checkpoint of Orbax.

    It is one that `StandardCheckpointer`, `PyTreeCheckpointer` or an item of a
    `CheckpointManager` made of the state of optax's transformation of the same name
    and arguments as `tx`, or of a whole `TrainState` with it. Every path, shape and
    dtype is compared with those of a fresh state; nothing is cast.

    Orbax compares no checksums. Bits that flipped within an array come through; save
    with `gradtx.checkpoint` from then on.

    Args:
      tx: the transformation that goes on.
      path: of the checkpoint: the directory with the file `_METADATA`, or the one above
        if it is named `default`.
      params: as in `from_flax_bytes`.

    Returns:
      As `from_flax_bytes`. Arrays lie on the default device.

    Raises:
      NoCheckpointError: if there is none; with those below, if there are some.
      DamagedError: if Orbax cannot read it.
      MismatchError, ArgumentError, ImportError: as `from_flax_bytes`.

    Example:
      >>> import tempfile, jax.numpy as jnp, gradtx, optax, orbax.checkpoint as ocp
      >>> params = {"w": jnp.zeros(2)}
      >>> with tempfile.TemporaryDirectory() as run, ocp.StandardCheckpointer() as orbax:
      ...     orbax.save(f"{run}/old", optax.adam(1e-3).init(params))
      ...     orbax.wait_until_finished()
      ...     state = gradtx.interop.from_orbax(
      ...         gradtx.adam(1e-3), f"{run}/old", params)
      >>> state.scale_by_adam.mu["w"].tolist()
      [0.0, 0.0]
    """
    directory = _item(Path(path).absolute())
    ocp = imported("orbax.checkpoint", "checkpoint")
    try:
        with warnings.catch_warnings(), ocp.PyTreeCheckpointer() as checkpointer:
            warnings.simplefilter("ignore")  # Orbax warns of its own deprecations
            kinds = checkpointer.metadata(directory).item_metadata.tree
            host = ocp.RestoreArgs(restore_type=np.ndarray)
            arguments = jax.tree.map(lambda _: host, kinds)
            tree = checkpointer.restore(directory, restore_args=arguments)
    except Exception as error:  # whatever the files are
        raise DamagedError(
            f"{directory}: Orbax cannot read it: {_first_line(error)}."
        ) from error
    return _continued(tx, tree, params, str(directory))


def _continued(tx: GradientTransformation, tree: Any, params: Any, where: str) -> Any:
    """Return what goes on from a tree of arrays by name."""
    whole = hasattr(params, "opt_state") and hasattr(params, "params")
    if not whole and isinstance(tree, Mapping) and {"params", "opt_state"} <= {*tree}:
        raise MismatchError(
            f"{where}: this is a whole TrainState. Give a fresh one for params=: "
            "TrainState.create(apply_fn=..., params=params, tx=tx)."
        )
    weights = as_shapes(params.params if whole else params)
    # optax promotes, whatever the caller allows
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        fresh = jax.eval_shape(twin(tx).init, weights)
    if not whole:
        state = _filled(fresh, tree, "opt_state", where)
        return from_optax_state(tx, state, weights)
    filled = _filled(params.replace(opt_state=fresh), tree, "", where)
    state = from_optax_state(tx, filled.opt_state, weights)
    return filled.replace(opt_state=state)


def _filled(template: Any, data: Any, path: str, where: str) -> Any:
    """Return `template` with the arrays of `data`, in which nodes go by name."""
    children, structure = jax.tree_util.tree_flatten_with_path(
        template, is_leaf=lambda x: x is not template
    )
    if jax.tree_util.treedef_is_leaf(structure) and structure.num_leaves == 1:
        return _leaf(template, data, path, where)
    names = [_name(entry) for (entry, *_), _ in children]
    there = _named(data)
    if there is None or {*there} != {*names}:
        raise MismatchError(
            f"{where}: {path or 'the tree'} has {_listed(there, data)}, and optax's "
            f"{type(template).__name__} has {_listed(dict.fromkeys(names), data)}. Was "
            "it saved by another optimizer, or of other parameters?"
        )
    return structure.unflatten(
        _filled(child, there[name], _joined(path, entry), where)
        for name, ((entry, *_), child) in zip(names, children, strict=True)
    )


def _leaf(template: Any, data: Any, path: str, where: str) -> Any:
    if not isinstance(data, np.ndarray | np.generic | jax.Array | bool | int | float):
        raise MismatchError(
            f"{where}: {path} must be an array, got {_listed(_named(data), data)}. Was "
            "it saved by another optimizer, or of other parameters?"
        )
    if isinstance(template, bool | int | float) and not shape_of(data):
        return type(template)(data)
    got, wanted = (f"{dtype_of(x)}{list(shape_of(x))}" for x in (data, template))
    if got == wanted:
        return jnp.asarray(data)
    if all(_is_count(x) for x in (data, template)):
        return jnp.asarray(data, dtype_of(template))  # it was a Python number
    raise MismatchError(
        f"{where}: {path} is {got}, and {wanted} is expected. Nothing is cast or cut: "
        "give the parameters, dtypes and optimizer that it was saved of."
    )


def _is_count(x: Any) -> bool:
    return not shape_of(x) and jnp.issubdtype(dtype_of(x), jnp.integer)


def _named(data: Any) -> dict[str, Any] | None:
    """Return children by name; those of a node without any are none."""
    if isinstance(data, Mapping):
        return {str(name): child for name, child in data.items()}
    if isinstance(data, list | tuple):
        return {str(index): child for index, child in enumerate(data)}
    return {} if data is None else None


def _listed(there: Mapping[str, Any] | None, data: Any) -> str:
    if there is None:
        return f"one {type(data).__name__}"
    return ", ".join(sorted(there)[:8]) + ", …" * (len(there) > 8) or "nothing"


def _name(entry: Any) -> str:
    for kind in ("name", "key", "idx"):
        if hasattr(entry, kind):
            return str(getattr(entry, kind))
    raise TypeError(f"{entry!r} has no name.")


def _joined(path: str, entry: Any) -> str:
    step = jax.tree_util.keystr((entry,))
    return f"{path}{step}" if path else step.lstrip(".")


def _item(path: Path) -> Path:
    """Return the directory of a checkpoint, which `path` is or names."""
    for directory in (path, path / "default"):
        if (directory / "_METADATA").is_file():
            return directory
    if not path.is_dir():
        raise NoCheckpointError(f"{path}: there is no such directory.")
    below = sorted(
        str(found.parent.relative_to(path))
        for pattern in ("*/_METADATA", "*/*/_METADATA")
        for found in path.glob(pattern)
    )
    raise NoCheckpointError(
        f"{path}: it is no checkpoint of Orbax. "
        + (f"Below it there are {', '.join(below[-8:])}: give one." * bool(below))
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:300].rstrip(".")
