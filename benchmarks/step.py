"""Step: update and apply, jitted and donated, beside optax, torch and the limit."""

from __future__ import annotations

import gc

from benchmarks import _limit, _subjects, _torch
from benchmarks._optimizers import cases
from benchmarks._options import Options, Row
from benchmarks._timing import Contestant, interleaved, median, ratio
from benchmarks._trees import arrays, count, shapes

TITLE = "Step time"


def note() -> str:
    """Say how it was taken."""
    return (
        "One jitted step with parameters and state donated: medians of interleaved "
        "rounds, and medians of the ratios within a round. Limit: " + _limit.how() + "."
    )


def run(options: Options) -> list[Row]:
    """Time a step of every subject on every tree with every optimizer."""
    rows: list[Row] = []
    for tree, name in cases(options):
        rows += _case(options, tree, name)
    return rows


def _case(options: Options, tree: str, name: str) -> list[Row]:
    leaves = shapes(tree, options.size)
    contestants = _contestants(options.size, tree, name)
    seconds = interleaved(contestants, **options.timing)
    del contestants
    gc.collect()
    case = {"tree": tree, "optimizer": name, "parameters": count(leaves)}
    rows = []
    for subject, taken in seconds.items():
        row = case | {"measure": "step", "unit": "ms", "subject": subject}
        rows.append(
            row
            | {
                "value": 1e3 * median(taken),
                "to_optax": ratio(taken, seconds["optax"]),
                "to_limit": ratio(taken, seconds["limit"]),
                "rounds": [1e3 * t for t in taken],
            }
        )
    return rows


def _contestants(size: str, tree: str, name: str) -> dict[str, Contestant]:
    leaves = shapes(tree, size)
    grads = _subjects.initial(leaves, scale=0.1, seed=1)
    found = {
        subject: _subjects.contestant(subject, name, tree, size, grads)
        for subject in _subjects.subjects(name)
    }
    if _torch.has_torch():
        numbers = arrays(leaves, 0.02, 0)
        shared = _torch.gradients(arrays(leaves, 0.1, 1))
        for subject in _torch.TORCH_SUBJECTS:
            made = _torch.contestant(subject, name, numbers, shared)
            found |= {subject: made} if made else {}
    return found | {"limit": _limit.contestant(name, count(leaves))}
