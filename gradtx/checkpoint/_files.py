"""Read and write files so that damage, links and half-written ones are noticed."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

from gradtx.core import DamagedError

#: Threads that hash: `hashlib` lets go of the interpreter.
THREADS = min(8, os.cpu_count() or 1)
_CHUNK = 1 << 20
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)


class FileRecord(NamedTuple):
    """A file as it was written.

    Attributes:
      name: its path inside the step's directory, with slashes.
      size: its length in bytes.
      sha256: the hash of its contents, in hexadecimal.
    """

    name: str
    size: int
    sha256: str


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file to read; a link, a device or a pipe in its place is refused.

    Raises:
      DamagedError: if there is no such file, or it is no regular one.
    """
    try:
        handle = os.open(path, _READ)
    except OSError as error:
        raise DamagedError(f"{path}: {error.strerror or error}.") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise DamagedError(f"{path}: expected a regular file.")
    with os.fdopen(handle, "rb") as file:
        try:
            yield file
        except OSError as error:
            raise DamagedError(f"{path}: {error.strerror or error}.") from error


def read_small(path: Path, limit: int) -> bytes:
    """Return the contents of a file of at most `limit` bytes, read at once.

    Raises:
      DamagedError: if it is larger, cannot be read or is no regular file.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise DamagedError(f"{path}: {size} bytes, where at most {limit} may be.")
        return file.read(size + 1)  # a larger number would be set aside at once


def write_new(path: Path, data: bytes) -> None:
    """Write a file that must not be there yet, for its owner alone, to the disk."""
    handle = os.open(path, _NEW, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(handle)


def make_directory(path: Path) -> None:
    """Make a directory and those above it, for their owner alone, to the disk."""
    missing = list(itertools.takewhile(lambda p: not p.exists(), [path, *path.parents]))
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for made in missing:
        # what cannot be listed cannot be opened for it; its owner has to see to it
        with contextlib.suppress(PermissionError):
            sync(made.parent)


def sync(path: Path) -> None:
    """Wait until a file, or the list of names in a directory, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(root: Path) -> None:
    """Do so for all files and directories below `root`, and let their owner alone in."""
    for directory, _, names in os.walk(root, topdown=False):
        for name in names:
            os.chmod(os.path.join(directory, name), 0o600)
            sync(Path(directory, name))
        os.chmod(directory, 0o700)
        sync(Path(directory))


def files_below(root: Path) -> list[str]:
    """Return the names of all files below `root`, with slashes, sorted.

    Raises:
      DamagedError: if anything there is neither a file nor a directory.
    """
    if not stat.S_ISDIR(_mode(root)):
        raise DamagedError(f"{root}: expected a directory, and no link to one.")
    found, waiting = [], [""]
    while waiting:
        inside = waiting.pop()
        try:
            with os.scandir(root / inside) as entries:
                for entry in entries:
                    name = f"{inside}{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{name}/")
                    elif entry.is_file(follow_symlinks=False):
                        found.append(name)
                    else:
                        raise DamagedError(
                            f"{root / name}: a link or a device, where files must be."
                        )
        except OSError as error:
            raise DamagedError(
                f"{root / inside}: {error.strerror or error}."
            ) from error
    return sorted(found)


def _mode(path: Path) -> int:
    try:
        return os.lstat(path).st_mode
    except OSError as error:
        raise DamagedError(f"{path}: {error.strerror or error}.") from error


def records_of(root: Path, names: Iterable[str]) -> list[FileRecord]:
    """Return sizes and hashes of files as they are on the disk, in order."""

    def record(name: str) -> FileRecord:
        with opened(root / name) as file:
            size, digest = _hashed(file)
        return FileRecord(name, size, digest)

    return list(in_threads(record, list(names)))


def check_files(root: Path, records: Iterable[FileRecord]) -> None:
    """Compare files with their records: all of them there, sizes, then contents.

    Raises:
      DamagedError: naming the first file that differs, and how.
    """
    records = list(records)
    for record in records:
        with opened(root / record.name) as file:
            size = os.fstat(file.fileno()).st_size
        if size != record.size:
            raise DamagedError(
                f"{root / record.name}: {size} bytes, where {record.size} were written."
            )

    def check(record: FileRecord) -> None:
        with opened(root / record.name) as file:
            size, digest = _hashed(file)
        if (size, digest) != (record.size, record.sha256):
            raise DamagedError(
                f"{root / record.name}: its bytes are not those that were written "
                "(SHA-256 differs)."
            )

    # for a few small files, starting threads takes longer than the hashes
    large = sum(record.size for record in records) > _CHUNK
    for _ in (in_threads if large else map)(check, records):
        pass


def in_threads(function, items: list):
    """Map over items, in threads where there are several large ones to hash."""
    if len(items) < 2 or THREADS == 1:
        return map(function, items)
    with ThreadPoolExecutor(THREADS) as pool:
        return iter(list(pool.map(function, items)))


def _hashed(file: IO[bytes]) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()
