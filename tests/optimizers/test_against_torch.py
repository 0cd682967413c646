"""gradtx against torch: trajectories of every optimizer that both define alike.

Left out: NAdam, whose b1 changes with the step in torch, and AdaGrad's root inside.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.optimizers import _cases, _paths

torch = pytest.importorskip("torch", reason="no small build for Python 3.12 and later")

SHARED = [case for case in _cases.CASES if case.torch]


@pytest.mark.parametrize("case", SHARED, ids=lambda case: case.id)
def test_200_steps_in_float64(case):
    gap = _paths.strict_error(_cases.ours(case, "double"), walk(case, "double"))
    assert gap <= _cases.DOUBLE


@pytest.mark.parametrize("case", SHARED, ids=lambda case: case.id)
def test_200_steps_in_float32(case):
    gap = _paths.error(_cases.ours(case, "single"), walk(case, "single"))
    assert gap <= _cases.MATCHED


@pytest.mark.parametrize("case", SHARED, ids=lambda case: case.id)
def test_float32_is_near_float64_of_torch(case):
    gap = _paths.error(_cases.ours(case, "single"), walk(case, "double"))
    assert gap <= _cases.SINGLE


def walk(case: _cases.Case, mode: _paths.Mode) -> _paths.Path:
    """Take the steps of `_paths` with torch; complex leaves, which it splits, without.

    torch computes its scalars as Python floats, so "single" is matched as it is.
    """
    assert case.torch is not None
    name, arguments = case.torch
    dtype = torch.float64 if mode == "double" else torch.float32
    params = {
        leaf: torch.tensor(_paths.START[leaf], dtype=dtype)
        for leaf in ("w", "s")
        if leaf in _paths.LEAVES[mode]
    }
    decays = case.arguments.get("mask", lambda tree: dict.fromkeys(tree, True))(params)
    groups: list[dict[str, Any]] = [
        {"params": [p]} | ({} if decays[leaf] else {"weight_decay": 0.0})
        for leaf, p in params.items()
    ]
    optimizer = getattr(torch.optim, name)(groups, lr=0.0, **arguments)
    path = [{leaf: _paths.START[leaf] for leaf in params}]
    for t in range(_paths.STEPS):
        noise = {leaf: _paths.NOISE[leaf][t] for leaf in params}
        grads = _paths.gradients(path[-1], noise)
        for leaf, p in params.items():
            p.grad = torch.tensor(grads[leaf], dtype=dtype)
        for group in optimizer.param_groups:
            group["lr"] = case.rate(t) if callable(case.rate) else case.rate
        optimizer.step()
        path.append({leaf: p.numpy().astype(float) for leaf, p in params.items()})
    return {leaf: np.stack([step[leaf] for step in path]) for leaf in params}
