"""Observing: what telemetry adds to a step, on average over a measuring period."""

from __future__ import annotations

import gc
import time
from typing import Any

import jax

import gradtx
from benchmarks import _subjects
from benchmarks._optimizers import optimizer
from benchmarks._options import Options, Row
from benchmarks._timing import Contestant, interleaved, median, ratio
from benchmarks._traffic import traffic
from benchmarks._trees import abstract, count, shapes

TITLE = "Telemetry"
NOTE = (
    "Clip + AdamW, jitted and donated, without and with `observe`: its defaults; all of "
    "it per leaf, with two groups and histograms; successive gradients, of which one is "
    "kept; and the defaults in two programs, of which the host chooses by `measure=`. "
    "Updates between measurements and measured ones are timed apart, in turn; "
    "*average* is that of the 100 updates from one measurement to the next."
)

EVERY, NEVER = 100, 1_000_000
#: What the host says in each of the two programs.
TOLD = {"between": False, "measured": True}
#: What is observed, by subject.
OBSERVED: dict[str, dict[str, Any]] = {
    "default": {},
    "per leaf": {
        "per_leaf": True,
        "groups": gradtx.ndim_at_least(2),
        "histograms": True,
    },
    "successive": {"successive": True},
}


def run(options: Options) -> list[Row]:
    """Compile and time the step with and without telemetry."""
    rows: list[Row] = []
    for tree in options.pick("trees", *[("gpt2", "many")] * 3):
        rows += _case(options, tree)
        gc.collect()
    return rows


def _case(options: Options, tree: str) -> list[Row]:
    leaves = shapes(tree, options.size)
    params = abstract(dict(leaves))
    base: Any = optimizer(gradtx, "clip_adamw")
    subjects = {"off": base} | {
        name: gradtx.observe(base, every=NEVER, **given)
        for name, given in OBSERVED.items()
    }
    for when, told in TOLD.items():
        subjects[f"by the host, {when}"] = _told(subjects["default"], told)
    case = {
        "optimizer": "clip_adamw",
        "tree": tree,
        "parameters": count(leaves),
        "leaves": len(leaves),
    }
    rows: list[Row] = []
    contestants: dict[str, Contestant] = {}
    grads = _subjects.initial(leaves, scale=0.1, seed=1)
    for name, tx in subjects.items():
        function = _subjects.step_of(tx, gradtx.apply_updates)
        state = jax.eval_shape(tx.init, params)
        begin = time.perf_counter()
        lowered = function.lower(params, state, params)
        traced = time.perf_counter()
        compiled = lowered.compile()
        done = time.perf_counter()
        cost = traffic(compiled, count(leaves))
        for measure, unit, value in (
            ("trace", "s", traced - begin),
            ("compile", "s", done - traced),
            ("bytes between measurements", "B/param", cost.bytes),
            ("temporaries", "B/param", cost.temporaries),
        ):
            rows.append(case | _row(measure, unit, name, value))
        single = name == "off" or name.startswith("by the host")
        for when in ("off",) if single else TOLD:
            key = name if single else f"{name}, {when}"
            contestants[key] = _running(function, tx, leaves, grads, when)
    seconds = interleaved(contestants, **options.timing)
    del contestants
    off = seconds["off"]
    for name, taken in seconds.items():
        rows.append(case | _row("update", "ms", name, 1e3 * median(taken)))
    for name in (*OBSERVED, "by the host"):
        pairs = zip(
            seconds[f"{name}, between"], seconds[f"{name}, measured"], strict=True
        )
        average = [((EVERY - 1) * a + b) / EVERY for a, b in pairs]
        rows.append(case | _row("average", "÷ off", name, ratio(average, off)))
    return rows


def _told(tx: Any, measure: bool) -> Any:
    """Return a transformation that measures always, or never."""

    def update(updates, state, params=None):
        return tx.update(updates, state, params, measure=measure)

    return gradtx.GradientTransformation(tx.init, update)


def _row(measure: str, unit: str, subject: str, value: float) -> Row:
    return {"measure": measure, "unit": unit, "subject": subject, "value": value}


def _running(function: Any, tx: Any, leaves: Any, grads: Any, when: str) -> Contestant:
    """Return a running step whose updates are all measured, or none of them."""
    params = _subjects.initial(leaves)
    held = [params, jax.jit(tx.init)(params)]
    if when == "between":  # the first update is measured
        held[1] = held[1]._replace(count=jax.numpy.int32(1))

    def run():
        if when == "measured":
            held[1] = held[1]._replace(count=jax.numpy.int32(0))
        held[:] = function(*held, grads)

    return Contestant(run, lambda: jax.block_until_ready(held))
