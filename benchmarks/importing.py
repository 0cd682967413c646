"""Importing: seconds that a library adds to `import jax`."""

from __future__ import annotations

import statistics
import subprocess
import sys

from benchmarks._options import Options, Row

TITLE = "Import"
NOTE = "Each in fresh processes, in turn, after `import jax`."

_PROGRAM = """
import time, jax, jax.numpy
begin = time.perf_counter()
import {library}
print(time.perf_counter() - begin)
"""


def run(options: Options) -> list[Row]:
    """Import each library in processes of its own."""
    libraries = ("gradtx", "optax")
    seconds: dict[str, list[float]] = {library: [] for library in libraries}
    for _ in range(2 if options.quick else 5):
        for library in libraries:
            command = [sys.executable, "-c", _PROGRAM.format(library=library)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds[library].append(float(done.stdout))
    return [
        {"measure": "import", "unit": "s", "subject": library}
        | {"value": statistics.median(taken)}
        for library, taken in seconds.items()
    ]
