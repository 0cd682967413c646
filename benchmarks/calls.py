"""Calls: what a call costs beside its arithmetic, jitted and not."""

from __future__ import annotations

from typing import Any

import jax
import optax

import gradtx
from benchmarks import _subjects, _torch
from benchmarks._optimizers import RATE
from benchmarks._options import Options, Row
from benchmarks._timing import Contestant, interleaved, median, ratio
from benchmarks._trees import arrays, shapes

TITLE = "Calls"
NOTE = (
    "Overhead: the jitted step on leaves of 8 numbers, beside a jitted function that "
    "returns its arguments. Eager: `update`, `apply_updates` and `init` called outside "
    "`jit` on a GPT-2 of 148 small leaves (quick: on the ten-leaf MLP); torch's step is always eager."
)


def run(options: Options) -> list[Row]:
    """Time calls on trees so small that arithmetic does not count."""
    rows: list[Row] = []
    for leaves in (100,) if options.quick else (100, 1000):
        case = {"optimizer": "clip_adamw", "leaves": leaves}
        rows += _rows("call overhead", case, _overhead(leaves), options)
    # without jit 148 leaves take seconds
    tree = shapes("mlp" if options.quick else "gpt2", "tiny")
    names = ("clip_adamw",) if options.quick else ("clip_adamw", "MultiSteps(adamw)")
    for name in names:
        case = {"optimizer": name, "leaves": len(tree)}
        rows += _rows("eager step", case, _eager(tree, name), options)
    case = {"optimizer": "clip_adamw", "leaves": len(tree)}
    rows += _rows("eager init", case, _init(tree, jitted=False), options)
    return rows + _rows("jitted init", case, _init(tree, jitted=True), options)


def _rows(
    measure: str, case: Row, contestants: dict[str, Contestant], options: Options
) -> list[Row]:
    seconds = interleaved(contestants, **options.timing | {"pipelined": False})
    return [
        case
        | {"measure": measure, "unit": "ms", "subject": subject}
        | {"value": 1e3 * median(taken), "to_optax": ratio(taken, seconds["optax"])}
        for subject, taken in seconds.items()
    ]


def _running(function: Any, params: Any, state: Any, grads: Any) -> Contestant:
    held = [params, state]

    def run():
        held[:] = function(*held, grads)

    return Contestant(run, lambda: jax.block_until_ready(held))


def _overhead(leaves: int) -> dict[str, Contestant]:
    tree = {f"leaf{i:05}": (8,) for i in range(leaves)}
    found = {}
    for subject in _subjects.subjects():
        tx, apply, hold = _subjects.parts(subject, "clip_adamw")
        params = hold(_subjects.initial(tree))
        grads = hold(_subjects.initial(tree, seed=1))
        state = jax.jit(tx.init)(params)
        found[subject] = _running(_subjects.step_of(tx, apply), params, state, grads)
    nothing = jax.jit(
        lambda params, state, grads: (params, state), donate_argnums=(0, 1)
    )
    params = _subjects.initial(tree)
    state = jax.jit(optax.adamw(RATE).init)(params)
    found["jit alone"] = _running(nothing, params, state, _subjects.initial(tree))
    return found


def _transformation(library: Any, subject: str, name: str) -> Any:
    if name != "MultiSteps(adamw)":
        return _subjects.parts(subject, name)[0]
    return library.MultiSteps(library.adamw(RATE), 4).gradient_transformation()


def _eager(tree: Any, name: str) -> dict[str, Contestant]:
    found = {}
    for subject in _subjects.subjects():
        library = optax if subject == "optax" else gradtx
        _, apply, hold = _subjects.parts(subject, "clip_adamw")
        tx = _transformation(library, subject, name)

        def step(params, state, grads, tx=tx, apply=apply):
            updates, state = tx.update(grads, state, params)
            return apply(params, updates), state

        params = hold(_subjects.initial(tree))
        grads = hold(_subjects.initial(tree, seed=1))
        found[subject] = _running(step, params, tx.init(params), grads)
    if name == "clip_adamw" and _torch.has_torch():
        shared = _torch.gradients(arrays(tree, 0.02, 1))
        for subject in _torch.TORCH_SUBJECTS:
            made = _torch.contestant(subject, name, arrays(tree, 0.02, 0), shared)
            found |= {subject: made} if made else {}
    return found


def _init(tree: Any, *, jitted: bool) -> dict[str, Contestant]:
    found = {}
    for subject in _subjects.subjects():
        tx, _, hold = _subjects.parts(subject, "clip_adamw")
        init = jax.jit(tx.init) if jitted else tx.init
        params = hold(_subjects.initial(tree))
        found[subject] = Contestant(
            lambda init=init, params=params: jax.block_until_ready(init(params))
        )
    return found
