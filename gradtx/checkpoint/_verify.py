"""Find damage in checkpoints, and the newest step without any."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gradtx.checkpoint._arrays import read_arrays
from gradtx.checkpoint._cipher import Cipher, decrypted
from gradtx.checkpoint._digest import check_leaves
from gradtx.checkpoint._files import check_files, files_below
from gradtx.checkpoint._leaves import Found
from gradtx.checkpoint._manifest import ARRAYS, NAME, read_manifest
from gradtx.checkpoint._records import Manifest
from gradtx.checkpoint._steps import is_step, steps
from gradtx.core import ArgumentError, DamagedError, NoCheckpointError

_BELOW_A_BYTE = {"int2", "int4", "uint2", "uint4", "float4_e2m1fn"}


class Good(NamedTuple):
    """The newest step that is whole.

    Attributes:
      path: where it is.
      step: its number.
      manifest: what is in it.
      skipped: newer steps that are not good, each with what is wrong.
    """

    path: Path
    step: int
    manifest: Manifest
    skipped: tuple[tuple[Path, str], ...]


def verify(
    path: str | os.PathLike[str],
    *,
    key: bytes | None = None,
    arrays: bool = False,
    cipher: Cipher | None = None,
) -> Manifest:
    """Compare all bytes of a step with what was written.

    Args:
      path: of the step.
      key: the secret that it was signed with; without it, only accidents are found.
      arrays: whether to decode the arrays too and compare them element by element,
        for which their memory is needed.
      cipher: decrypts the files; needed for the arrays of an encrypted step only.

    Returns:
      The manifest.

    Raises:
      DamagedError: naming the first file that differs, and how.
      NoCheckpointError: if `path` is no step.
    """
    directory = Path(path)
    _check_directory(directory)
    manifest = read_manifest(directory, key)
    if is_step(directory) and int(directory.name[5:]) != manifest.step:
        raise DamagedError(
            f"{directory}: it holds step {manifest.step}. It was renamed: give it the "
            "name that it had."
        )
    _check_listed(directory, manifest)
    _check_sizes(directory, manifest)
    check_files(directory, manifest.files)
    if arrays:
        _check_arrays(directory, manifest, cipher)
    return manifest


def latest_good(directory: str | os.PathLike[str], *, key: bytes | None = None) -> Good:
    """Return the newest step of a run that verifies, and what was wrong with newer ones.

    Args:
      directory: of the run.
      key: the secret that its steps were signed with.

    Raises:
      NoCheckpointError: if there is none; with what is wrong with each that there is.
    """
    skipped: list[tuple[Path, str]] = []
    for step, path in steps(Path(directory)).items():
        try:
            manifest = verify(path, key=key)
        except (DamagedError, NoCheckpointError) as error:
            skipped.append((path, str(error)))
        else:
            return Good(path, step, manifest, tuple(skipped))
    lines = "".join(f"\n  {path.name}: {why}" for path, why in skipped)
    raise NoCheckpointError(
        f"{Path(directory)}: no step is good, of {len(skipped)}.{lines}"
        if skipped
        else f"{Path(directory)}: there are no steps."
    )


def check_cipher(manifest: Manifest, cipher: Cipher | None, directory: Path) -> None:
    """Raise unless a step's arrays can be decrypted.

    Raises:
      ArgumentError: if it was encrypted and there is no cipher, or the other way round.
    """
    name = "" if cipher is None else cipher.name
    if name != manifest.cipher:
        raise ArgumentError(
            f"{directory}: its arrays are encrypted with {manifest.cipher or 'nothing'}, "
            f"and cipher= is {name or 'not given'}."
        )


def _check_directory(directory: Path) -> None:
    try:
        mode = os.lstat(directory).st_mode
    except OSError as error:
        raise NoCheckpointError(f"{directory}: {error.strerror or error}.") from error
    if not stat.S_ISDIR(mode):
        raise DamagedError(
            f"{directory}: expected a directory, and no link to one. Give the path that "
            "it leads to."
        )
    if not os.path.lexists(directory / NAME):
        raise DamagedError(
            f"{directory}: there is no {NAME}. It is no step of gradtx, or was not "
            "written to its end."
        )


def _check_listed(directory: Path, manifest: Manifest) -> None:
    names = {record.name for record in manifest.files}
    arrays = directory / ARRAYS
    there = {f"{ARRAYS}/{name}" for name in files_below(arrays)}
    if missing := sorted(names - there):
        raise DamagedError(f"{directory / missing[0]}: the file is missing.")
    if unknown := sorted(there - names):
        raise DamagedError(
            f"{directory / unknown[0]}: no such file was written. Move it away."
        )


def _check_sizes(directory: Path, manifest: Manifest) -> None:
    """Raise where arrays are larger than their files: they are not compressed."""
    needed = sum(
        leaf.nbytes
        for leaves in manifest.trees.values()
        for leaf in leaves
        if leaf.dtype not in _BELOW_A_BYTE
    )
    held = sum(record.size for record in manifest.files)
    if needed > held:
        raise DamagedError(
            f"{directory}: arrays of {needed} bytes cannot be in files of {held}."
        )


def _check_arrays(directory: Path, manifest: Manifest, cipher: Cipher | None) -> None:
    check_cipher(manifest, cipher, directory)
    with decrypted(cipher, directory / ARRAYS) as plain:
        for number, (where, leaf) in enumerate(_numbered(manifest)):
            like = Found(leaf, np.empty(()), ())
            (value,) = read_arrays(plain, {number: leaf}, {number: like}).values()
            check_leaves([(leaf, value, f"{directory}: {where}")])


def _numbered(manifest: Manifest) -> Iterator:
    for tree, leaves in manifest.trees.items():
        for leaf in leaves:
            yield f"{tree}{leaf.path}", leaf
