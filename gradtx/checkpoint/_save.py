"""Write a checkpoint that is there as a whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gradtx._version import __version__
from gradtx.checkpoint._arrays import write_arrays
from gradtx.checkpoint._cipher import Cipher, encrypted
from gradtx.checkpoint._digest import digests, with_digest
from gradtx.checkpoint._files import (
    files_below,
    make_directory,
    read_small,
    records_of,
    sync,
    sync_tree,
    write_new,
)
from gradtx.checkpoint._json import LONGEST, canonical, parsed
from gradtx.checkpoint._leaves import Found, Listing, counters, listed
from gradtx.checkpoint._manifest import ARRAYS, NAME, sealed, unsealed
from gradtx.checkpoint._processes import agree, barrier, is_first
from gradtx.checkpoint._read_back import read_back
from gradtx.checkpoint._records import Leaf, Manifest
from gradtx.checkpoint._steps import WRITING, hidden_path, step_path
from gradtx.core import (
    ArgumentError,
    CheckpointError,
    GradientTransformation,
    describe,
    imported,
)


def save(
    directory: str | os.PathLike[str],
    step: int,
    *,
    tx: GradientTransformation | None = None,
    batches: int | None = None,
    updates: int | None = None,
    record: Any = None,
    key: bytes | None = None,
    cipher: Cipher | None = None,
    **trees: Any,
) -> Path:
    """Save trees of arrays as one step of a run, with all that restoring must check.

    The step takes its name once everything is on the disk and was read back: a crash,
    a full disk or a kill at any moment leaves the steps before as they were, and no
    half of this one. With `jax.distributed`, all processes call it, with one directory
    that all of them see.

    Args:
      directory: of the run; each step is a directory in it. Made if it is missing.
      step: the number of the step, 0 or more.
      tx: the optimizer. With it, `restore` knows whether it is the same.
      batches: batches consumed so far; by default `step`.
      updates: updates applied so far, as far as it is known; a number that no counter
        of the states has is an error.
      record: plain data to come back with the arrays: seeds, settings, the position
        in the data.
      key: a secret to sign the manifest with (HMAC-SHA256), 16 bytes or more, so that
        changes made on purpose are found too.
      cipher: encrypts files at rest; see `Cipher`.
      **trees: what to save, by name: `params=params, opt_state=opt_state`. Leaves are
        arrays, typed keys and numbers. A `Packed` is saved as the tree that it holds.

    Returns:
      The path of the step.

    Raises:
      ArgumentError: if something cannot be saved, naming the leaf, before anything is
        written.
      CheckpointError: if the step is there already, or was not written as it should.
      OSError: if the disk refuses.

    Example:
      >>> import tempfile, jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.adam(1e-3), {"w": jnp.ones(2)}
      >>> with tempfile.TemporaryDirectory() as run:
      ...     path = gradtx.checkpoint.save(
      ...         run, 100, tx=tx, params=params, opt_state=tx.init(params))
      ...     gradtx.checkpoint.verify(path).step
      100
    """
    plan = Plan(step, tx, batches, updates, record, key, cipher, trees)
    return plan.write(Path(directory))


class Plan:
    """A save of which everything that can be checked beforehand has been."""

    def __init__(
        self,
        step: int,
        tx: GradientTransformation | None,
        batches: int | None,
        updates: int | None,
        record: Any,
        key: bytes | None,
        cipher: Cipher | None,
        trees: Mapping[str, Any],
    ):
        imported("orbax.checkpoint", "checkpoint")
        for name, value in {
            "step": step,
            "batches": batches,
            "updates": updates,
        }.items():
            if value is None and name != "step":
                continue
            if type(value) is not int and not isinstance(value, np.integer):
                raise _bad(f"{name} must be an integer, got {value!r}.")
            if not 0 <= value < 2**62:
                raise _bad(f"{name} must be 0 or more, got {value!r}.")
        check_key(key)
        if not trees:
            raise _bad("nothing to save: give trees by name, such as params=params.")
        if cipher is not None and jax.process_count() > 1:
            raise _bad("a cipher works in one process only, and there are several.")
        self.step = int(step)
        self._key, self._cipher = key, cipher
        self._record = checked_record(record)
        self._optimizer = None if tx is None else describe(tx, opaque=True)
        self._counts = _counts(self.step, batches, updates, trees)
        self._listing = listed(trees)
        self._mesh = _mesh(trees)

    def detached(self) -> Plan:
        """Return the plan with copies of the arrays, which nothing can change."""
        copy = lambda item: item._replace(value=_copied(item.value))
        self._listing = Listing(
            {
                tree: list(map(copy, items))
                for tree, items in self._listing.trees.items()
            },
            self._listing.states,
        )
        return self

    def write(self, directory: Path) -> Path:
        """Write the step below `directory`, and return its path."""
        final = step_path(directory.absolute(), self.step)
        if agree(f"{final} exists", os.path.lexists(final)):
            raise CheckpointError(
                f"{final} is there already. Save under another step, or move it away."
            )
        nonce = agree(f"{final} nonce", secrets.randbits(48))
        temporary = hidden_path(final, "writing", nonce)
        if jax.process_count() > 1:  # the name tells one process: the first
            temporary = final.with_name(agree(f"{final} name", temporary.name))
        WRITING.add(temporary.name)
        try:
            if is_first():
                make_directory(final.parent)
                temporary.mkdir(mode=0o700)
            barrier(f"{temporary} made")
            self._write_into(temporary)
            if is_first():
                os.rename(temporary, final)
                sync(final.parent)
            barrier(f"{temporary} renamed")
        except BaseException:
            # what is left is no step; removing it is a kindness to the disk
            with contextlib.suppress(OSError):
                shutil.rmtree(temporary)
            raise
        finally:
            WRITING.discard(temporary.name)
        return final

    def _write_into(self, temporary: Path) -> None:
        items = [item for items in self._listing.trees.values() for item in items]
        with ThreadPoolExecutor(1) as beside:
            hashing = beside.submit(digests, items)
            values = [item.value for item in items]
            with encrypted(self._cipher, temporary / ARRAYS) as arrays:
                write_arrays(arrays, values)
                own = hashing.result()
                if self._cipher is not None:  # later they can be read no more
                    read_back(arrays, _hashed(items, [own]), values)
        if jax.process_count() > 1:
            write_new(temporary / _part(jax.process_index()), canonical(own))
        barrier(f"{temporary} written")
        if not is_first():
            return
        parts = [own]
        if jax.process_count() > 1:
            files = [temporary / _part(index) for index in range(jax.process_count())]
            parts = [parsed(read_small(file, LONGEST)) for file in files]
            for file in files:
                os.unlink(file)
        leaves = _hashed(items, parts)
        if self._cipher is None:
            read_back(temporary / ARRAYS, leaves, values)
        rest = iter(leaves)
        trees = {
            name: tuple(next(rest) for _ in found)
            for name, found in self._listing.trees.items()
        }
        sync_tree(temporary)
        names = files_below(temporary)
        manifest = self._manifest(trees, records_of(temporary, names))
        raw = sealed(manifest, self._key)
        if len(raw) > LONGEST:
            raise CheckpointError(
                f"the manifest would have {len(raw)} bytes, and at most {LONGEST} may "
                "be. Shorten record=, or save fewer leaves: pack(params) makes few."
            )
        unsealed(raw, self._key)
        write_new(temporary / NAME, raw)
        sync(temporary)
        if read_small(temporary / NAME, LONGEST) != raw:
            raise CheckpointError(f"{temporary / NAME}: the disk returns other bytes.")

    def _manifest(self, trees: Mapping[str, tuple[Leaf, ...]], files: Any) -> Manifest:
        orbax = imported("orbax.checkpoint", "checkpoint")
        return Manifest(
            step=self.step,
            counts=self._counts,
            optimizer=self._optimizer,
            record=self._record,
            trees=trees,
            states=tuple(self._listing.states),
            files=tuple(files),
            versions={
                "gradtx": __version__,
                "jax": jax.__version__,
                "orbax": getattr(orbax, "__version__", "unknown"),
            },
            x64=bool(jax.config.read("jax_enable_x64")),
            mesh=self._mesh,
            cipher="" if self._cipher is None else self._cipher.name,
            processes=jax.process_count(),
        )


def check_key(key: Any) -> None:
    """Raise unless a key can sign.

    Raises:
      ArgumentError: if it is no bytes, or too short to be a secret.
    """
    if key is not None and (not isinstance(key, bytes) or len(key) < 16):
        raise _bad(
            "key must be 16 bytes or more: secrets.token_bytes(32), kept apart. If a key "
            "of random numbers is to be saved, give its tree another name: rng=key."
        )


def checked_record(record: Any) -> Any:
    """Return plain data as it comes back.

    Raises:
      ArgumentError: if JSON cannot carry it, or carries something else.
    """
    try:
        same = parsed(canonical(record))
    except (TypeError, ValueError, RecursionError, CheckpointError) as error:
        raise _bad(f"record must be plain data, for JSON: {error}.") from error
    if same != record:
        raise _bad(
            "record must come back as it is: give lists for tuples, and strings for the "
            "keys of dicts."
        )
    return same


def _counts(
    step: int, batches: int | None, updates: int | None, trees: Mapping[str, Any]
) -> dict[str, Any]:
    states = counters(trees)
    batches = step if batches is None else int(batches)
    if updates is not None:
        if updates > batches:
            raise _bad(
                f"{updates} updates of {batches} batches: each batch makes at most one. "
                "Give batches= if the step counts something else."
            )
        if states and updates not in states.values():
            raise _bad(
                f"updates={updates}, and the counters of the states say "
                f"{sorted(set(states.values()))}. Was the step saved one update too "
                "early or too late?"
            )
        updates = int(updates)
    return {"batches_consumed": batches, "updates_applied": updates, "states": states}


def _hashed(items: Sequence[Found], parts: Sequence[Any]) -> list[Leaf]:
    """Return the records of leaves, with what each process hashed of them."""
    return [
        with_digest(item.leaf, part) for item, *part in zip(items, *parts, strict=True)
    ]


def _mesh(trees: Mapping[str, Any]) -> dict[str, int]:
    for leaf in jax.tree.leaves(dict(trees)):
        mesh = getattr(getattr(leaf, "sharding", None), "mesh", None)
        if mesh is not None and getattr(mesh, "shape", None):
            return {str(name): int(size) for name, size in mesh.shape.items()}
    return {}


def _copied(value: Any) -> Any:
    """Return what later steps of the training do not change."""
    if not isinstance(value, jax.Array):
        return np.array(value, copy=True)
    if not value.is_fully_addressable:
        return jax.numpy.copy(value)
    # on a CPU this is a view: while it is there, JAX gives the buffer to no other array,
    # donated or not
    return np.asarray(value)


def _part(process: int) -> str:
    return f"digests-{process}.json"


def _bad(message: str) -> ArgumentError:
    return ArgumentError(message, "checkpoint.save")
