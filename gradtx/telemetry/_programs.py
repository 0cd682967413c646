"""Meet outside programs: write from one process, in names that they take."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection

import jax


def writes_here(every_process: bool) -> bool:
    """Return whether this process is one that writes: the first, or every one.

    JAX is asked only after `jax.distributed.initialize()`, which must come before
    anything that starts JAX up.
    """
    alone = not jax.distributed.is_initialized()
    return every_process or alone or jax.process_index() == 0


def renamer(
    clean: Callable[[str], str], taken: Collection[str] = (), longest: int = 250
) -> Callable[[str], str]:
    """Return a function that cleans names and gives no two the same clean name.

    A name that is too long, or whose clean name is taken, ends in a digest of itself.
    """
    given: dict[str, str] = {}
    used = {*taken}

    def renamed(name: str) -> str:
        if name not in given:
            new = clean(name)
            if len(new) > longest or new in used:
                digest = hashlib.sha256(name.encode()).hexdigest()[:8]
                new = f"{new[: longest - 9]}_{digest}"
            given[name] = new
            used.add(new)
        return given[name]

    return renamed
