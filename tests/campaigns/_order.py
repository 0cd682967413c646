"""Tell from the calls of a save whether a loss of power could tear it."""

from __future__ import annotations

import os
from collections.abc import Iterator


def unsynced(calls: list[str]) -> Iterator[str]:
    """Yield what might not be on the disk when it must be.

    A file that was written is dirty until `fsync`; so is a directory in which a name
    was made. Nothing below a step may be dirty when the step takes its name, and
    nothing at all at the end.

    Args:
      calls: of `_processes.lines`.

    Example:
      >>> list(unsynced(["create /a/f", "write /a/f", "fsync /a/f"]))
      ['at the end: the list of names in /a']
      >>> list(unsynced(["create /a/f", "write /a/f", "fsync /a/f", "fsync /a"]))
      []
    """
    files: set[str] = set()
    names: set[str] = set()
    for call in calls:
        what, path, *others = call.split(" ")
        if what in ("create", "fopen", "mkdir", "rmdir", "unlink", "link"):
            names.add(os.path.dirname(path))
        if what in ("write", "ftruncate", "create"):
            files.add(path)
        elif what in ("unlink", "rmdir", "fsync"):
            files.discard(path)
            names.discard(path)
        elif what == "rename":
            (new,) = others
            if os.path.basename(new).startswith("step_"):
                early = [*files, *(f"names in {x}" for x in names)]
                yield from (f"renamed too early: {x}" for x in early if path in x)
            files = {_moved(x, path, new) for x in files}
            names = {_moved(x, path, new) for x in names}
            names |= {os.path.dirname(path), os.path.dirname(new)}
    yield from (f"at the end: {x}" for x in sorted(files))
    yield from (f"at the end: the list of names in {x}" for x in sorted(names))


def _moved(path: str, old: str, new: str) -> str:
    return new + path[len(old) :] if path == old or path.startswith(f"{old}/") else path
