"""Accumulating: a call that only adds its gradient to the sum."""

from __future__ import annotations

from typing import Any

import jax
import optax

import gradtx
from benchmarks import _subjects
from benchmarks._optimizers import optimizer
from benchmarks._options import Options, Row
from benchmarks._timing import Contestant, interleaved, median, ratio
from benchmarks._trees import shapes

TITLE = "Accumulation"
NOTE = (
    "Jitted and donated calls of which none is the last of its window, on the matrices "
    "of two layers of GPT-2. Plain: `sum + gradient`, and nothing else."
)

NEVER = 1_000_000


def run(options: Options) -> list[Row]:
    """Time micro-steps around a cheap and a dear optimizer."""
    rows: list[Row] = []
    for name in options.pick("optimizers", *[("adamw", "muon")] * 3):
        contestants = _contestants(options.size, name)
        seconds = interleaved(contestants, **options.timing)
        rows += [
            {"measure": "micro-step", "unit": "ms", "tree": "layers", "optimizer": name}
            | {"subject": subject, "value": 1e3 * median(taken)}
            | {"to_optax": ratio(taken, seconds["optax"])}
            for subject, taken in seconds.items()
        ]
    return rows


def _contestants(size: str, name: str) -> dict[str, Contestant]:
    tree = shapes("layers", size)
    grads = _subjects.initial(tree, seed=1)
    found = {}
    for subject in _subjects.subjects(name):
        library: Any = optax if subject == "optax" else gradtx
        _, apply, hold = _subjects.parts(subject, name)
        tx = _accumulated(library, name)
        step = _subjects.step_of(tx, apply)
        params = hold(_subjects.initial(tree))
        state = jax.jit(tx.init)(params)
        found[subject] = _running(step, params, state, hold(grads))

    @jax.jit
    def no_step(params, total, grads):
        return params, jax.tree.map(lambda a, g: a + g, total, grads)

    add = jax.jit(no_step, donate_argnums=(0, 1))
    params = _subjects.initial(tree)
    total = jax.tree.map(jax.numpy.zeros_like, params)
    found["plain"] = _running(add, params, total, grads)
    return found


def _accumulated(library: Any, name: str) -> Any:
    tx = optimizer(library, name)
    if library is optax:
        return optax.MultiSteps(tx, NEVER).gradient_transformation()
    return gradtx.accumulate(tx, NEVER)


def _running(function: Any, params: Any, state: Any, grads: Any) -> Contestant:
    held = [params, state]

    def run():
        held[:] = function(*held, grads)

    return Contestant(run, lambda: jax.block_until_ready(held))
