"""Let a room show names that live in a room it may not import."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def shown_here(room: str, *names: str) -> Callable[[str], Any]:
    """Return a module's `__getattr__` that finds `names` at the top of the package.

    For names that other libraries file under another heading. They are looked up when
    they are asked for, when all rooms are there.

    Args:
      room: `__name__` of the module.
      *names: what it shows besides its own.
    """

    def find(name: str) -> Any:
        if name in names:
            return getattr(importlib.import_module("gradtx"), name)
        raise AttributeError(f"module {room!r} has no attribute {name!r}")

    return find
