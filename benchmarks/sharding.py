"""Sharding: eight devices that each hold and update all, or an eighth of the state."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from benchmarks._options import Options, Row

TITLE = "Replicated and sharded state"
NOTE = (
    "clip + AdamW on eight host devices that share this machine's cores, parameters and "
    "gradients replicated. Sharded: moments split over the devices along a leaf's first "
    "axis, so that each updates an eighth and the parameters are gathered."
)


def run(options: Options) -> list[Row]:
    """Time both in a process that has eight devices."""
    flags = os.environ.get("XLA_FLAGS", "")
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count=8",
    }
    command = [sys.executable, "-m", "benchmarks.sharding", options.size]
    command += [str(options.rounds), str(options.turn)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(size: str, rounds: int, turn: float) -> list[Row]:
    """Time the steps on the eight devices of this process."""
    from benchmarks import _subjects
    from benchmarks._timing import interleaved, median, ratio
    from benchmarks._trees import count, gpt2

    width = 128 if size == "quick" else 256
    leaves = gpt2(width, layers=2, vocabulary=4096)
    contestants = {
        (subject, form): _placed(subject, leaves, form)
        for subject in _subjects.subjects()
        for form in ("replicated", "sharded")
    }
    seconds = interleaved(contestants, rounds=rounds, turn=turn)
    case = {"measure": "step on 8 devices", "unit": "ms", "parameters": count(leaves)}
    return [
        case
        | {"form": form, "subject": subject, "value": 1e3 * median(taken)}
        | {"to_optax": ratio(taken, seconds["optax", form])}
        for (subject, form), taken in seconds.items()
    ]


def _placed(subject: str, leaves: Any, form: str) -> Any:
    import jax
    from jax.sharding import NamedSharding, PartitionSpec as P

    from benchmarks import _subjects
    from benchmarks._timing import Contestant

    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    everywhere = NamedSharding(mesh, P())
    split = NamedSharding(mesh, P("data"))

    def place(leaf):
        fits = form == "sharded" and leaf.ndim > 0 and leaf.shape[0] % 8 == 0
        return split if fits else everywhere

    tx, apply, hold = _subjects.parts(subject, "clip_adamw")
    params = jax.device_put(hold(_subjects.initial(leaves)), everywhere)
    grads = jax.device_put(hold(_subjects.initial(leaves, seed=1)), everywhere)
    shardings = jax.tree.map(place, jax.eval_shape(tx.init, params))
    state = jax.jit(tx.init, out_shardings=shardings)(params)

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return apply(params, updates), state

    function = jax.jit(
        step, donate_argnums=(0, 1), out_shardings=(everywhere, shardings)
    )
    held = [params, state]

    def run():
        held[:] = function(*held, grads)

    return Contestant(run, lambda: jax.block_until_ready(held))


if __name__ == "__main__":
    rows = measure(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
    print(json.dumps(rows))
