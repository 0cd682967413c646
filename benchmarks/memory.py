"""Memory: the bytes of a state, and what a process holds at most while it steps."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from typing import Any

import jax
import numpy as np

from benchmarks import _subjects
from benchmarks._optimizers import OPTIMIZERS
from benchmarks._options import Options, Row
from benchmarks._trees import count, shapes

TITLE = "Memory"
NOTE = (
    "State: bytes of `init`'s result per parameter, on GPT-2. Held: the most memory that "
    "a process takes for five donated steps of clip + AdamW, without what it takes "
    "before parameters are made, × (parameters + state + gradients). It includes the "
    "compiler's own memory."
)


def run(options: Options) -> list[Row]:
    """Measure states, and processes of their own."""
    rows: list[Row] = []
    tree = tuple(shapes("gpt2", options.size).items())
    for name in options.pick("optimizers", *[OPTIMIZERS] * 3):
        for subject in _subjects.subjects(name):
            size = _bytes(_subjects.step_on(subject, name, tree).state)
            case = {"optimizer": name, "subject": subject, "measure": "state"}
            value = size / count(dict(tree))
            rows.append(case | {"unit": "bytes per parameter", "value": value})
    if sys.platform != "linux" or jax.default_backend() == "gpu":
        return rows
    for subject in _subjects.subjects():
        command = [sys.executable, "-m", "benchmarks.memory", subject]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        case = {"optimizer": "clip_adamw", "subject": subject, "measure": "held"}
        unit = "× (parameters + state + gradients)"
        rows.append(case | {"unit": unit, "value": float(done.stdout)})
    return rows


def _bytes(tree: Any) -> int:
    return sum(x.size * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))


def held(subject: str) -> float:
    """Return the growth of this process over five steps, × what must be held."""

    def most() -> int:
        # what getrusage calls the most is inherited from the process that started this
        status = pathlib.Path("/proc/self/status").read_text().splitlines()
        line = next(line for line in status if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])

    leaves = {f"w{i}": (4096, 1024) for i in range(8)}
    tx, _, hold = _subjects.parts(subject, "clip_adamw")
    step = _subjects.step_on(subject, "clip_adamw", tuple(leaves.items()))
    compiled = step.lower().compile()
    make = jax.jit(
        lambda seed: {k: seed + jax.numpy.zeros(s) for k, s in leaves.items()}
    )
    make = jax.jit(lambda seed, make=make: hold(make(seed))).lower(1.0).compile()
    init = jax.jit(tx.init).lower(step.params).compile()
    before = most()
    params, grads = make(1.0), make(1e-3)
    state = init(params)
    for _ in range(5):
        params, state = jax.block_until_ready(compiled(params, state, grads))
    return (most() - before) / _bytes((params, state, grads))


if __name__ == "__main__":
    print(held(sys.argv[1]))
