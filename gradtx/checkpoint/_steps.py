"""Name the steps of a run on the disk, and find them."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from gradtx.core import NoCheckpointError

_STEP = re.compile(r"step_(\d{8,19})")
_LEFT = re.compile(
    r"\.(step_\d{8,19})\.(?:writing|removing)\.([^/]+)\.(\d+)\.[0-9a-f]+"
)


def step_path(directory: Path, step: int) -> Path:
    """Return where a step of a run is kept."""
    return directory / f"step_{step:08d}"


def hidden_path(path: Path, what: str, nonce: int) -> Path:
    """Return where a step lies while it is written or removed, and is none.

    The name tells the host and the process, so that others know what was left over.
    """
    host = re.sub(r"[^A-Za-z0-9\-]", "_", socket.gethostname())[:64] or "host"
    return path.with_name(f".{path.name}.{what}.{host}.{os.getpid()}.{nonce:x}")


def steps(directory: Path) -> dict[int, Path]:
    """Return the steps of a run by number, the newest first, be they good or not.

    Raises:
      NoCheckpointError: if there is no such directory.
    """
    try:
        names = os.listdir(directory)
    except OSError as error:
        raise NoCheckpointError(f"{directory}: {error.strerror or error}.") from error
    found = {}
    for name in names:
        match = _STEP.fullmatch(name)
        if match and step_path(directory, int(match[1])).name == name:
            found[int(match[1])] = directory / name
    return dict(sorted(found.items(), reverse=True))


def is_step(path: Path) -> bool:
    """Say whether a path has the name of a step."""
    return _STEP.fullmatch(path.name) is not None


#: What this process is writing: a number of a process that is gone may come again.
WRITING: set[str] = set()


def leftovers(directory: Path) -> Iterator[Path]:
    """Yield what processes of this host that are gone left half written."""
    here = hidden_path(directory / "step_00000000", "writing", 0).name.split(".")[3]
    for name in sorted(os.listdir(directory)):
        match = _LEFT.fullmatch(name)
        if not match or match[2] != here:
            continue
        mine = int(match[3]) == os.getpid()
        if name not in WRITING if mine else not _lives(int(match[3])):
            yield directory / name


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
