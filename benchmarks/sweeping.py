"""Sweeping: K learning rates, one after another and in one program."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

import gradtx
from benchmarks import _subjects
from benchmarks._options import Options, Row
from benchmarks._timing import Contestant, interleaved, median
from benchmarks._trees import Shapes, count, mlp, shapes

TITLE = "A sweep of learning rates"
NOTE = (
    "One AdamW step for each of 64 learning rates: a Python loop over a jitted step that "
    "takes the rate, or `vmap` of it. On a tree as large as the ten-leaf MLP the 64 "
    "copies leave the cache, and what one program saves is lost in memory."
)

RATES = 64


def run(options: Options) -> list[Row]:
    """Time a loop and a vmap, on a small and a smaller network."""
    trees = {"tiny mlp": mlp((16, 16, 16, 16, 16, 4)), "mlp": shapes("mlp")}
    rows: list[Row] = []
    for tree, leaves in trees.items():
        contestants = {}
        for subject in ("gradtx", "optax"):
            library: Any = optax if subject == "optax" else gradtx
            contestants[subject, "loop"] = _loop(library, leaves)
            contestants[subject, "vmap"] = _vmapped(library, leaves)
        seconds = interleaved(contestants, **options.timing)
        rows += [
            {"measure": f"step of {RATES} rates", "unit": "ms", "tree": tree}
            | {"parameters": count(leaves), "form": form, "subject": subject}
            | {"value": 1e3 * median(taken)}
            for (subject, form), taken in seconds.items()
        ]
    return rows


def _step(library: Any) -> Any:
    def step(params, state, grads, rate):
        updates, state = library.adamw(rate).update(grads, state, params)
        return library.apply_updates(params, updates), state

    return step


def _loop(library: Any, leaves: Shapes) -> Contestant:
    step = jax.jit(_step(library), donate_argnums=(0, 1))
    grads = _subjects.initial(leaves, seed=1)
    init = jax.jit(library.adamw(1e-3).init)
    held = [(p, init(p)) for p in (_subjects.initial(leaves) for _ in range(RATES))]
    rates = [jnp.float32(rate) for rate in jnp.geomspace(1e-5, 1e-1, RATES)]

    def run():
        held[:] = [step(*one, grads, r) for one, r in zip(held, rates, strict=True)]

    return Contestant(run, lambda: jax.block_until_ready(held))


def _vmapped(library: Any, leaves: Shapes) -> Contestant:
    step = jax.jit(
        jax.vmap(_step(library), in_axes=(0, 0, None, 0)), donate_argnums=(0, 1)
    )
    grads = _subjects.initial(leaves, seed=1)
    stacked = jax.tree.map(lambda x: jnp.stack([x] * RATES), _subjects.initial(leaves))
    held = [stacked, jax.jit(jax.vmap(library.adamw(1e-3).init))(stacked)]
    rates = jnp.geomspace(1e-5, 1e-1, RATES)

    def run():
        held[:] = step(*held, grads, rates)

    return Contestant(run, lambda: jax.block_until_ready(held))
