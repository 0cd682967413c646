"""Rules that set their own step, in NumPy float64, over all leaves at once.

A rule maps `(params, grads, t, rate, value)` to new parameters, where parameters and
gradients are dicts of arrays, t = 1, 2, … and `value` is that of the objective.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Leaves = dict[str, Any]
Rule = Callable[[Leaves, Leaves, int, float, float], Leaves]


def dot(x: Leaves, y: Leaves) -> float:
    """Return the inner product of two sets of leaves."""
    return sum(float(np.sum(x[k] * y[k])) for k in x)


def norm(x: Leaves) -> float:
    """Return the Euclidean norm of a set of leaves."""
    return np.sqrt(dot(x, x))


def cocob(alpha=100.0, eps=1e-8, weight_decay=0.0) -> Rule:
    """Orabona & Tommasi 2017, Algorithm 2."""
    start: Leaves = {}
    theta: Leaves = {}
    bound: Leaves = {}
    total: Leaves = {}
    reward: Leaves = {}

    def rule(p, g, t, rate, value):
        new = {}
        for k in p:
            if t == 1:
                start[k], bound[k] = p[k], eps + 0 * p[k]
                theta[k] = total[k] = reward[k] = 0 * p[k]
            c = -rate * (g[k] + weight_decay * p[k])
            bound[k] = np.maximum(bound[k], abs(c))
            total[k] = total[k] + abs(c)
            reward[k] = np.maximum(reward[k] + (p[k] - start[k]) * c, 0)
            theta[k] = theta[k] + c
            most = np.maximum(total[k] + bound[k], alpha * bound[k])
            bet = theta[k] / (bound[k] * most) * (bound[k] + reward[k])
            new[k] = start[k] + bet
        return new

    return rule


def dadapt_adamw(
    betas=(0.9, 0.999),
    eps=1e-8,
    estim_lr0=1e-6,
    weight_decay=0.0,
    bias_correction=False,
    growth_rate=np.inf,
) -> Rule:
    """Defazio & Mishchenko 2023, Algorithm 5, as in the authors' DAdaptAdam."""
    b1, b2 = betas
    d, numerator = estim_lr0, 0.0
    m: Leaves = {}
    v: Leaves = {}
    s: Leaves = {}

    def rule(p, g, t, rate, value):
        nonlocal d, numerator
        correction = np.sqrt(1 - b2**t) / (1 - b1**t) if bias_correction else 1.0
        dlr = d * rate * correction
        for store in (m, v, s):
            for k in p:
                store.setdefault(k, 0 * p[k])
        gathered = dlr * dot(g, {k: s[k] / (np.sqrt(v[k]) + eps) for k in p})
        for k in p:
            m[k] = b1 * m[k] + dlr * (1 - b1) * g[k]
            v[k] = b2 * v[k] + (1 - b2) * g[k] ** 2
            s[k] = np.sqrt(b2) * s[k] + dlr * (1 - np.sqrt(b2)) * g[k]
        numerator = np.sqrt(b2) * numerator + (1 - np.sqrt(b2)) * gathered
        length = sum(float(abs(s[k]).sum()) for k in p)
        if length > 0:
            d_hat = numerator / ((1 - np.sqrt(b2)) * length)
            d = max(d, min(d_hat, d * growth_rate))
        return {
            k: p[k] - weight_decay * dlr * p[k] - m[k] / (np.sqrt(v[k]) + eps)
            for k in p
        }

    return rule


def prodigy(
    betas=(0.9, 0.999),
    beta3=None,
    eps=1e-8,
    estim_lr0=1e-6,
    estim_lr_coef=1.0,
    weight_decay=0.0,
    safeguard_warmup=False,
    bias_correction=False,
) -> Rule:
    """Mishchenko & Defazio 2023, Algorithm 4, as in the authors' Prodigy."""
    b1, b2 = betas
    b3 = np.sqrt(b2) if beta3 is None else beta3
    d, numerator = estim_lr0, 0.0
    start: Leaves = {}
    m: Leaves = {}
    v: Leaves = {}
    s: Leaves = {}

    def rule(p, g, t, rate, value):
        nonlocal d, numerator
        correction = np.sqrt(1 - b2**t) / (1 - b1**t) if bias_correction else 1.0
        dlr = d * rate * correction
        for k in p:
            start.setdefault(k, p[k])
            for store in (m, v, s):
                store.setdefault(k, 0 * p[k])
        numerator *= b3
        numerator += d / estim_lr0 * dlr * dot(g, {k: start[k] - p[k] for k in p})
        for k in p:
            m[k] = b1 * m[k] + d * (1 - b1) * g[k]
            v[k] = b2 * v[k] + d * d * (1 - b2) * g[k] ** 2
            s[k] = b3 * s[k] + d / estim_lr0 * (d if safeguard_warmup else dlr) * g[k]
        length = sum(float(abs(s[k]).sum()) for k in p)
        if length > 0:
            d = max(d, estim_lr_coef * numerator / length)
        return {
            k: p[k] - weight_decay * dlr * p[k] - dlr * m[k] / (np.sqrt(v[k]) + d * eps)
            for k in p
        }

    return rule


def dog(init_step=("heuristic", 1e-6), eps=1e-8, weight_decay=0.0) -> Rule:
    """Ivgi, Hinder & Carmon 2023, Algorithm 1."""
    kind, size = init_step
    start: Leaves = {}
    far = total = 0.0

    def rule(p, g, t, rate, value):
        nonlocal far, total
        if t == 1:
            start.update(p)
            far = {"heuristic": size * (1 + norm(p)), "distance": size}.get(kind, 0.0)
        g = {k: g[k] + weight_decay * p[k] for k in p}
        far = max(far, norm({k: p[k] - start[k] for k in p}))
        total += dot(g, g)
        step = far / np.sqrt(total + eps)
        if t == 1 and kind == "learning_rate":
            step = size
        return {k: p[k] - rate * step * g[k] for k in p}

    return rule


def dowg(init_estim_sq_dist=None, eps=1e-4, weight_decay=0.0) -> Rule:
    """Khaled, Mishchenko & Jin 2023, Algorithm 1."""
    start: Leaves = {}
    far = eps if init_estim_sq_dist is None else init_estim_sq_dist
    total = 0.0

    def rule(p, g, t, rate, value):
        nonlocal far, total
        if t == 1:
            start.update(p)
        g = {k: g[k] + weight_decay * p[k] for k in p}
        away = {k: p[k] - start[k] for k in p}
        far = max(far, dot(away, away))
        total += far * dot(g, g)
        return {k: p[k] - rate * far / (np.sqrt(total) + eps) * g[k] for k in p}

    return rule


def layerwise_dog(reps_rel=1e-6, eps=1e-8) -> Rule:
    """Ivgi, Hinder & Carmon 2023, section 3.3."""
    start: Leaves = {}
    far: Leaves = {}
    total: Leaves = {}

    def rule(p, g, t, rate, value):
        new = {}
        for k in p:
            start.setdefault(k, p[k])
            far.setdefault(k, reps_rel * (1 + np.linalg.norm(p[k])))
            far[k] = max(far[k], np.linalg.norm(p[k] - start[k]))
            total[k] = total.get(k, 0.0) + float(np.sum(g[k] ** 2))
            new[k] = p[k] - rate * far[k] / np.sqrt(total[k] + eps) * g[k]
        return new

    return rule


def madgrad(momentum=0.9, weight_decay=0.0, eps=1e-6) -> Rule:
    """Defazio & Jelassi 2021, Algorithm 1."""
    start: Leaves = {}
    squares: Leaves = {}
    sums: Leaves = {}

    def rule(p, g, t, rate, value):
        new = {}
        weight = (rate + eps) * np.sqrt(t)
        for k in p:
            start.setdefault(k, p[k])
            d = g[k] + weight_decay * p[k]
            squares[k] = squares.get(k, 0.0) + weight * d**2
            sums[k] = sums.get(k, 0.0) + weight * d
            z = start[k] - sums[k] / (np.cbrt(squares[k]) + eps)
            new[k] = momentum * p[k] + (1 - momentum) * z
        return new

    return rule


def momo(beta=0.9, lower_bound=0.0, weight_decay=0.0, adapt_lower_bound=False) -> Rule:
    """Schaipp et al. 2023, Algorithm 1, as in the authors' Momo."""
    d: Leaves = {}
    f = gamma = 0.0
    bound = lower_bound

    def rule(p, g, t, rate, value):
        nonlocal f, gamma, bound
        b = 0.0 if t == 1 else beta
        f = b * f + (1 - b) * value
        gamma = b * gamma + (1 - b) * dot(g, p)
        for k in p:
            d[k] = b * d.get(k, 0.0) + (1 - b) * g[k]
        along, length, grown = dot(d, p), dot(d, d), 1 + rate * weight_decay
        if adapt_lower_bound:
            cap = grown * (f - gamma) + along
            if cap < grown * bound:
                bound = max(cap / (2 * grown), lower_bound)
        step = min(rate, max(grown * (f - bound - gamma) + along, 0) / length)
        if adapt_lower_bound:
            bound = max(f + along - gamma - 0.5 * step * length, lower_bound)
        return {k: p[k] / grown - step * d[k] for k in p}

    return rule


def momo_adam(
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    lower_bound=0.0,
    weight_decay=0.0,
    adapt_lower_bound=False,
) -> Rule:
    """Schaipp et al. 2023, Algorithm 3, as in the authors' MomoAdam."""
    m: Leaves = {}
    v: Leaves = {}
    f = gamma = 0.0
    bound = lower_bound

    def rule(p, g, t, rate, value):
        nonlocal f, gamma, bound
        f = b1 * f + (1 - b1) * value
        gamma = b1 * gamma + (1 - b1) * dot(g, p)
        u = {}
        for k in p:
            m[k] = b1 * m.get(k, 0.0) + (1 - b1) * g[k]
            v[k] = b2 * v.get(k, 0.0) + (1 - b2) * g[k] ** 2
            u[k] = m[k] / (np.sqrt(v[k] / (1 - b2**t)) + eps)
        along, length, grown = dot(m, p), dot(m, u), 1 + rate * weight_decay
        c = 1 - b1**t
        if adapt_lower_bound:
            cap = grown * (f - gamma) + along
            if cap < grown * c * bound:
                bound = max(cap / (2 * c * grown), lower_bound)
        step = min(rate / c, max(grown * (f - c * bound - gamma) + along, 0) / length)
        if adapt_lower_bound:
            bound = max((f + along - gamma - 0.5 * step * length) / c, lower_bound)
        return {k: p[k] / grown - step * u[k] for k in p}

    return rule
