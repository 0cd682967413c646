"""The torch subjects: the same step with foreach and with fused kernels."""

from __future__ import annotations

import os
from typing import Any

import jax
import numpy as np

from benchmarks._optimizers import torch_optimizer
from benchmarks._timing import Contestant

TORCH_SUBJECTS = {"torch foreach": "foreach", "torch fused": "fused"}


def has_torch() -> bool:
    """Say whether torch is here, and works where JAX works."""
    try:
        import torch
    except ImportError:
        return False
    return jax.default_backend() == "cpu" or torch.cuda.is_available()


def device() -> str:
    """Return torch's name for the device that JAX computes on."""
    return "cpu" if jax.default_backend() == "cpu" else "cuda"


def gradients(numbers: dict[str, np.ndarray]) -> list[Any]:
    """Return torch tensors of a tree, which both subjects share."""
    import torch

    return [torch.tensor(x, device=device()) for x in numbers.values()]


def contestant(
    subject: str, name: str, numbers: dict[str, np.ndarray], grads: list[Any]
) -> Contestant | None:
    """Return the running step of torch, or None where it has none.

    torch clips in a call of its own before the step, as its users do.

    Args:
      subject: a name in `TORCH_SUBJECTS`.
      name: the optimizer.
      numbers: the parameters' first values.
      grads: what `gradients` returned.
    """
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    params = [torch.nn.Parameter(t) for t in gradients(numbers)]
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad
    made = torch_optimizer(name, params, TORCH_SUBJECTS[subject])
    if made is None:
        return None

    def run():
        if name == "clip_adamw":
            torch.nn.utils.clip_grad_norm_(params, 1.0, foreach=True)
        made.step()

    return Contestant(
        run, lambda: None if device() == "cpu" else torch.cuda.synchronize()
    )
