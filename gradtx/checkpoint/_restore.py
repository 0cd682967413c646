"""Read a checkpoint back, if it is whole and made for what it is read into."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gradtx.checkpoint._allow import allowed_changes
from gradtx.checkpoint._arrays import read_arrays, sharding_of
from gradtx.checkpoint._changes import Change, shown, tree_changes
from gradtx.checkpoint._cipher import Cipher, decrypted
from gradtx.checkpoint._digest import check_leaves
from gradtx.checkpoint._leaves import Found, Listing, listed
from gradtx.checkpoint._manifest import ARRAYS, NAME
from gradtx.checkpoint._migrate import (
    Source,
    matched,
    migrated,
    outdated,
    sources_of,
)
from gradtx.checkpoint._records import Leaf, Manifest
from gradtx.checkpoint._save import check_key
from gradtx.checkpoint._steps import is_step, step_path
from gradtx.checkpoint._verify import check_cipher, latest_good, verify
from gradtx.core import (
    ArgumentError,
    GradientTransformation,
    MismatchError,
    as_shapes,
    has_packed,
    repack,
    unpack,
)


@dataclasses.dataclass(frozen=True)
class Restored:
    """What came back.

    `restored["params"]` is the tree that was saved under that name.

    Attributes:
      step: the number of the step.
      trees: the trees that were asked for, by name.
      record: the plain data that was saved beside them.
      counts: `batches_consumed` and `updates_applied` (None where it was not given),
        and `states`, the counters of the states by path.
      changes: what differs from what was saved, all of it allowed by the caller.
      skipped: newer steps that are not good, each with what is wrong.
      path: of the step.
    """

    step: int
    trees: Mapping[str, Any]
    record: Any
    counts: Mapping[str, Any]
    changes: tuple[Change, ...]
    skipped: tuple[tuple[Path, str], ...]
    path: Path

    def __getitem__(self, name: str) -> Any:
        return self.trees[name]


def restore(
    path: str | os.PathLike[str],
    *,
    step: int | None = None,
    tx: GradientTransformation | None = None,
    allow_hyperparameters: Collection[str] = (),
    allow_opaque: bool = False,
    migrate: bool = False,
    key: bytes | None = None,
    cipher: Cipher | None = None,
    **like: Any,
) -> Restored:
    """Read trees of a checkpoint, bit for bit, onto the devices that they belong on.

    Everything is compared before an array is read: the bytes on the disk with what was
    written, the optimizer with the one that was saved, paths, shapes and dtypes with
    those of `like`. What differs is an error that lists all of it, unless it is
    allowed:

    - another number of devices, another mesh: always, values are the same bits;
    - hyperparameters and schedules: those named in `allow_hyperparameters`;
    - what cannot be compared, with `allow_opaque`: functions such as a mask that is a
      lambda, or an optimizer of which nothing was recorded;
    - an older schema of a state: where a `migration` is registered;
    - other links, wrappers, groups: with `migrate`. What has a counterpart by name
      goes on, the rest is as in `like`, and `changes` says which is which.

    Counts go on too: a constant learning rate is counted as well, so that a schedule in
    its place continues at the step of the run. The count of a link that was not there
    begins at 0, as a warm-up would have it. `gradtx.tree.set(state.link, count=step)`
    lets it begin elsewhere. The snapshot of a guard that was not there is the one in
    `like`: give it `tx.init` of parameters that have been restored.

    Args:
      path: of a run, for its newest good step, or of one step.
      step: which step of the run; no other is taken if it is damaged.
      tx: the optimizer that goes on. Needed where one was saved and its state is asked
        for.
      allow_hyperparameters: names as `gradtx.hyperparameters(tx)` has them, or their
        last parts. One that neither optimizer has is an error; one that did not change
        is none. Where a state holds the number, as that of `inject_hyperparams` does,
        the new one is taken.
      allow_opaque: whether what only has a name may have changed.
      migrate: whether states may be carried over to another optimizer. `like` must
        then hold arrays, such as those of `tx.init(params)`.
      key: the secret that the step was signed with.
      cipher: decrypts the arrays.
      **like: the trees to read, by the names that they were saved under. Leaves are
        arrays, or `jax.ShapeDtypeStruct`, with the shardings that are wanted; where
        there is none the default device gets it, and NumPy stays NumPy.

    Raises:
      NoCheckpointError: if there is no good step.
      DamagedError: if the step that was asked for is damaged.
      MismatchError: listing what differs and is not allowed.
      ArgumentError: if an argument is wrong, or a hyperparameter has another name.

    Example:
      >>> import tempfile, jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.adam(1e-3), {"w": jnp.ones(2)}
      >>> state = tx.init(params)
      >>> with tempfile.TemporaryDirectory() as run:
      ...     _ = gradtx.checkpoint.save(run, 7, tx=tx, params=params, opt_state=state)
      ...     back = gradtx.checkpoint.restore(run, tx=tx, params=params, opt_state=state)
      >>> back.step, back["params"]["w"].tolist()
      (7, [1.0, 1.0])
    """
    check_key(key)
    if not like:
        raise ArgumentError(
            "nothing to restore: give trees by name, such as params=params.",
            "checkpoint.restore",
        )
    names = (
        [allow_hyperparameters]
        if isinstance(allow_hyperparameters, str)
        else list(allow_hyperparameters)
    )
    directory, manifest, skipped = _found(Path(path), step, key)
    check_cipher(manifest, cipher, directory)
    plain = {
        name: unpack(tree) if migrate else as_shapes(tree)
        for name, tree in like.items()
    }
    now = listed(plain)
    _check_width(directory, now)
    changes = allowed_changes(
        directory, manifest, now, tx, names, allow_opaque, migrate
    )
    with decrypted(cipher, directory / ARRAYS) as arrays:
        sources = sources_of(manifest, list(like))
        stored, states = dict(sources), list(manifest.states)
        if wanted := outdated(manifest, now):
            stored = _read_outdated(arrays, stored, wanted, directory)
            stored, states = migrated(stored, states, wanted, now)
        plan, moved = _planned(directory, manifest, stored, states, now, migrate)
        chosen = {c.path for c in changes if c.kind == "hyperparameter"}
        plan, renewed = _renewed(plan, now, chosen)
        values = _read(arrays, plan, now, directory)
    trees = {name: _built(like[name], plain[name], values[name]) for name in like}
    return Restored(
        step=manifest.step,
        trees=trees,
        record=manifest.record,
        counts=manifest.counts,
        changes=(*changes, *moved, *renewed),
        skipped=skipped,
        path=directory,
    )


def _found(path: Path, step: int | None, key: bytes | None):
    if (path / NAME).is_file() or is_step(path):
        if step is not None:
            raise ArgumentError(
                f"{path} is a step; leave out step=, or give the run.",
                "checkpoint.restore",
            )
        return path, verify(path, key=key), ()
    if step is not None:
        path = step_path(path, step)
        return path, verify(path, key=key), ()
    good = latest_good(path, key=key)
    return good.path, good.manifest, good.skipped


def _check_width(directory: Path, now: Listing) -> None:
    """Raise where JAX would halve the numbers of an array."""
    if jax.config.read("jax_enable_x64"):
        return
    for tree, found in now.trees.items():
        for item in found:
            wide = item.leaf.dtype in ("int64", "uint64", "float64", "complex128")
            if wide and not isinstance(item.value, np.ndarray):
                raise MismatchError(
                    f"{directory}: {tree}{item.leaf.path} is to be {item.leaf.dtype}, "
                    "and 64-bit types are off. Switch them on, as when it was saved, "
                    'with jax.config.update("jax_enable_x64", True), or restore it into '
                    "an array of NumPy. Nothing was read."
                )


def _read_outdated(
    arrays: Path,
    sources: dict[str, list[Source]],
    wanted: Mapping[int, int],
    directory: Path,
) -> dict[str, list[Source]]:
    """Return leaves with the values of those in outdated states."""
    old = {
        item.number: item
        for items in sources.values()
        for item in items
        if item.leaf.state in wanted and item.number is not None
    }
    leaves = {number: item.leaf for number, item in old.items()}
    host = {number: Found(item.leaf, np.empty(()), ()) for number, item in old.items()}
    values = read_arrays(arrays, leaves, host)
    check_leaves(
        (leaves[number], value, f"{directory}: {leaves[number].path}")
        for number, value in values.items()
    )
    return {
        tree: [
            item._replace(value=values[item.number]) if item.number in values else item
            for item in items
        ]
        for tree, items in sources.items()
    }


def _planned(
    directory: Path,
    manifest: Manifest,
    sources: Mapping[str, list[Source]],
    states: Sequence[Any],
    now: Listing,
    migrate: bool,
) -> tuple[dict[str, list[Source | None]], list[Change]]:
    """Return where each leaf comes from."""
    if not migrate:
        then = dataclasses.replace(
            manifest,
            trees={
                tree: tuple(i.leaf for i in items) for tree, items in sources.items()
            },
            states=tuple(states),
        )
        if changes := tree_changes(then, now):
            raise MismatchError(
                f"{directory}: the trees are not those that were saved (then -> now):\n"
                f"{shown(changes)}\nGive trees like those of then; migrate=True carries "
                "states over to another optimizer. Nothing was read."
            )
        return {
            tree: _by_path(sources[tree], found) for tree, found in now.trees.items()
        }, []
    plan, moved = {}, []
    for tree, found in now.trees.items():
        plan[tree], changes = matched(sources[tree], found)
        moved += changes
        for item, source in zip(found, plan[tree], strict=True):
            if source is None and item.leaf.state is None:
                raise MismatchError(
                    f"{directory}: {tree}{item.leaf.path} was not saved, and is in no "
                    "state of an optimizer: only these can begin anew."
                )
            if source is None and not _is_concrete(item.value):
                raise ArgumentError(
                    f"{tree}{item.leaf.path} is not in the checkpoint, and its first "
                    "value is not known. Give arrays: opt_state=tx.init(params).",
                    "checkpoint.restore",
                )
    return plan, moved


def _by_path(sources: Sequence[Source], found: Sequence[Found]) -> list[Source | None]:
    by_path = {item.leaf.path: item for item in sources}
    return [by_path[item.leaf.path] for item in found]


def _renewed(
    plan: dict[str, list[Source | None]], now: Listing, chosen: Collection[str]
) -> tuple[dict[str, list[Source | None]], list[Change]]:
    """Take numbers that the states hold and the caller changed from the new states."""
    ends = {f"hyperparams[{name.rpartition('.')[2]!r}]" for name in chosen}
    changes = []
    for tree, found in now.trees.items():
        for index, item in enumerate(found):
            if any(item.leaf.path.endswith(end) for end in ends):
                if not _is_concrete(item.value):
                    raise ArgumentError(
                        f"{tree}{item.leaf.path} changes, and its new value is not "
                        "known. Give arrays: opt_state=tx.init(params).",
                        "checkpoint.restore",
                    )
                plan[tree][index] = None
                path = f"{tree}{item.leaf.path}"
                changes.append(Change("leaf", path, "saved value", "new value"))
    return plan, changes


def _read(
    arrays: Path,
    plan: Mapping[str, Sequence[Source | None]],
    now: Listing,
    directory: Path,
) -> dict[str, list[Any]]:
    pairs = [
        (tree, item, source)
        for tree, found in now.trees.items()
        for item, source in zip(found, plan[tree], strict=True)
    ]
    leaves: dict[int, Leaf] = {}
    like: dict[int, Found] = {}
    for _, item, source in pairs:
        if source is not None and source.number is not None and source.value is None:
            leaves[source.number], like[source.number] = source.leaf, item
    values = read_arrays(arrays, leaves, like)
    check_leaves(
        (source.leaf, values[source.number], f"{directory}: {tree}{source.leaf.path}")
        for tree, _, source in pairs
        if source is not None and source.number in values
    )
    made: dict[str, list[Any]] = {tree: [] for tree in now.trees}
    taken: set[int] = set()
    for tree, item, source in pairs:
        if source is None:
            value = item.value
        elif source.number in values:
            value = values[source.number]
            if source.number in taken:  # each leaf has a buffer that it may give away
                value = value.copy()
            taken.add(source.number)
        else:
            value = jax.device_put(source.value, sharding_of(item.value))
        made[tree].append(_as_kind(item, value))
    return made


def _as_kind(item: Found, value: Any) -> Any:
    kind, _, generator = item.leaf.kind.partition(":")
    if kind == "key":
        return jax.random.wrap_key_data(jax.numpy.asarray(value), impl=generator)
    return value if kind == "array" else np.asarray(value).item()


def _is_concrete(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray)


def _built(like: Any, plain: Any, values: Sequence[Any]) -> Any:
    tree = jax.tree.structure(plain).unflatten(values)
    if not has_packed(like):
        return tree
    place = lambda new, old: jax.device_put(new, sharding_of(old))
    return jax.tree.map(place, repack(tree, like), like)
