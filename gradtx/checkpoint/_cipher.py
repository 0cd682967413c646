"""Keep the files of arrays encrypted where they rest."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from gradtx.checkpoint._files import files_below, read_small, write_new
from gradtx.core import DamagedError

_MEMORY = Path("/dev/shm")
_ANY_SIZE = 2**62


@runtime_checkable
class Cipher(Protocol):
    """What encrypts the files of a checkpoint, one by one.

    gradtx has no cipher of its own: give one of a library, such as AES-GCM or Fernet of
    `cryptography`. It should authenticate: a wrong key must raise. The manifest, with
    paths, shapes, hashes and hyperparameters, is not encrypted.

    While arrays are encrypted or decrypted they lie in a directory that only its owner
    can enter, in memory (`/dev/shm`) where there is such a place, else in `$TMPDIR`.

    Attributes:
      name: what the manifest says of it, such as `"AES-256-GCM"`.
    """

    name: str

    def encrypt(self, data: bytes, name: str) -> bytes:
        """Return `data` encrypted; `name` is that of the file, to be authenticated."""
        ...

    def decrypt(self, data: bytes, name: str) -> bytes:
        """Return what `encrypt` was given, or raise if it is not that."""
        ...


@contextlib.contextmanager
def encrypted(cipher: Cipher | None, final: Path) -> Iterator[Path]:
    """Give a directory to write to, whose files then lie encrypted in `final`."""
    if cipher is None:
        yield final
        return
    with _scratch() as scratch:
        plain = scratch / final.name
        yield plain
        for name in files_below(plain):
            data = cipher.encrypt(read_small(plain / name, _ANY_SIZE), name)
            path = final / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_new(path, bytes(data))
        final.mkdir(mode=0o700, exist_ok=True)


@contextlib.contextmanager
def decrypted(cipher: Cipher | None, final: Path) -> Iterator[Path]:
    """Give a directory to read from, with the files that lie encrypted in `final`.

    Raises:
      DamagedError: if the cipher refuses one.
    """
    if cipher is None:
        yield final
        return
    with _scratch() as scratch:
        plain = scratch / final.name
        plain.mkdir(mode=0o700)
        for name in files_below(final):
            data = read_small(final / name, _ANY_SIZE)
            try:
                data = bytes(cipher.decrypt(data, name))
            except Exception as error:
                raise DamagedError(
                    f"{final / name}: {cipher.name} refuses to decrypt it "
                    f"({type(error).__name__}). Is the key the one that it was saved with?"
                ) from error
            path = plain / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_new(path, data)
        yield plain


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    where = _MEMORY if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="gradtx-", dir=where) as scratch:
        yield Path(scratch)
