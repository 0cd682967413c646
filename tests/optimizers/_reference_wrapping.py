"""Rules that wrap another rule, in NumPy float64, in the form of `_reference_adaptive`."""

from __future__ import annotations

import numpy as np

from tests.optimizers._reference_adaptive import Leaves, Rule, dot, norm


def mechanic_sgd(weight_decay=1e-2, eps=1e-8, s_init=1e-6, num_betas=6) -> Rule:
    """Cutkosky, Defazio & Mehta 2023, Algorithm 1, over gradient descent."""
    betas = 1 - 0.1 ** np.arange(1, num_betas + 1)
    start: Leaves = {}
    r = m = v = np.zeros(num_betas)
    s = np.full(num_betas, s_init)

    def rule(p, g, t, rate, value):
        nonlocal r, m, v, s
        for k in p:
            start.setdefault(k, p[k])
        scale = s.sum()
        back = {k: (start[k] - p[k]) / (scale + eps) for k in p}
        pull = weight_decay * scale * norm(g) / (norm(p) + eps)
        h = dot({k: g[k] + pull * p[k] for k in p}, back)
        won = np.clip(h, -m, m) * s
        m = np.maximum(betas * m, abs(h) + eps)
        v = betas**2 * v + h**2
        r = betas * r + won
        wealth = s_init / num_betas * m + np.maximum(r, 0)
        s = wealth / (np.sqrt(v) + eps)
        return {k: start[k] - s.sum() * (back[k] + rate * g[k]) for k in p}

    return rule


def schedule_free(b1=0.9, b2=None, eps=1e-8, weight_decay=0.0, power=2.0) -> Rule:
    """Defazio et al. 2024, Algorithm 1, over gradient descent or Adam (with `b2`)."""
    x: Leaves = {}
    z: Leaves = {}
    v: Leaves = {}
    largest = total = 0.0

    def rule(p, g, t, rate, value):
        nonlocal largest, total
        largest = max(largest, rate)
        weight = largest**power
        total += weight
        c = weight / total if total > 0 else 0.0
        new = {}
        for k in p:
            x.setdefault(k, p[k])
            z.setdefault(k, p[k])
            u = g[k]
            if b2 is not None:
                v[k] = b2 * v.get(k, 0.0) + (1 - b2) * g[k] ** 2
                u = g[k] / (np.sqrt(v[k] / (1 - b2**t)) + eps)
            z[k] = z[k] - rate * (u + weight_decay * p[k])
            x[k] = (1 - c) * x[k] + c * z[k]
            new[k] = (1 - b1) * z[k] + b1 * x[k]
        return new

    return rule
