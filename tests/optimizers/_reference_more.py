"""More update rules in NumPy float64, in the form of `_reference`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.optimizers._reference import Decay, Step, at, sign


def adabelief(b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16, nesterov=False) -> Step:
    """Zhuang et al. 2020, Algorithm 2."""
    m = s = 0.0

    def step(p, g, t, lr):
        nonlocal m, s
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * (g - m) ** 2 + eps_root
        m_hat = m / (1 - b1**t)
        if nesterov:
            m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        return p - lr * m_hat / (np.sqrt(s / (1 - b2**t)) + eps)

    return step


def acprop(b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16, weight_decay=0.0) -> Step:
    """Zhuang et al. 2021, Algorithm 2, with the surprise as optax has it."""
    m = s = 0.0

    def step(p, g, t, lr):
        nonlocal m, s
        s_hat = 1.0 if t == 1 else s / (1 - b2 ** (t - 1))
        u = g / (np.sqrt(s_hat) + eps)
        s = b2 * s + (1 - b2) * (g - m) ** 2 + eps_root
        m = b1 * m + (1 - b1) * g
        return p - lr * (u + at(weight_decay, t) * p)

    return step


def yogi(b1=0.9, b2=0.999, eps=1e-3) -> Step:
    """Zaheer et al. 2018, Algorithm 2, with optax's start and correction."""
    m = v = 1e-6

    def step(p, g, t, lr):
        nonlocal m, v
        m = b1 * m + (1 - b1) * g
        v = v - (1 - b2) * np.sign(v - g**2) * g**2
        return p - lr * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)

    return step


def adadelta(rho=0.9, eps=1e-6, weight_decay=0.0) -> Step:
    """Zeiler 2012, Algorithm 1."""
    squares = steps = 0.0

    def step(p, g, t, lr):
        nonlocal squares, steps
        g = g + at(weight_decay, t) * p
        squares = rho * squares + (1 - rho) * g**2
        u = np.sqrt(steps + eps) / np.sqrt(squares + eps) * g
        steps = rho * steps + (1 - rho) * u**2
        return p - lr * u

    return step


def adan(b1=0.98, b2=0.92, b3=0.99, eps=1e-8, eps_root=1e-8, weight_decay=0.0) -> Step:
    """Xie et al. 2022, Algorithm 1 and the authors' code; decay as in AdamW."""
    m = v = n = 0.0
    before: Any = None

    def step(p, g, t, lr):
        nonlocal m, v, n, before
        d = 0 * g if before is None else g - before
        before = g
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * d
        n = b3 * n + (1 - b3) * (g + b2 * d) ** 2
        m_hat, v_hat, n_hat = m / (1 - b1**t), v / (1 - b2**t), n / (1 - b3**t)
        u = (m_hat + b2 * v_hat) / (np.sqrt(n_hat + eps_root) + eps)
        return p - lr * (u + at(weight_decay, t) * p)

    return step


def novograd(b1=0.9, b2=0.25, eps=1e-6, eps_root=0.0, weight_decay=0.0) -> Step:
    """Ginsburg et al. 2019, Algorithm 1."""
    m: Any = 0.0
    v = 0.0

    def step(p, g, t, lr):
        nonlocal m, v
        square = np.sum(g**2)
        v = square if t == 1 else b2 * v + (1 - b2) * square
        m = b1 * m + g / (np.sqrt(v + eps_root) + eps) + at(weight_decay, t) * p
        return p - lr * m

    return step


def rprop(
    start, eta_minus=0.5, eta_plus=1.2, min_step_size=1e-6, max_step_size=50.0
) -> Step:
    """Riedmiller & Braun 1993, without weight backtracking."""
    size: Any = start
    before: Any = 0.0

    def step(p, g, t, lr):
        nonlocal size, before
        turn = np.sign(g * before)
        factor = np.where(turn > 0, eta_plus, np.where(turn < 0, eta_minus, 1.0))
        size = np.clip(size * factor, min_step_size, max_step_size)
        before = np.where(turn < 0, 0.0, g)
        return p - size * np.sign(before)

    return step


def sm3(momentum=0.9, eps=1e-8) -> Step:
    """Anil et al. 2019, SM3-II, whose cover is one set per slice of each axis."""
    bounds: list[Any] = []
    m = 0.0

    def step(p, g, t, lr):
        nonlocal m
        if not bounds:
            bounds.extend(np.zeros(n) for n in g.shape)
        a = np.empty(g.shape)
        for index in np.ndindex(*g.shape):
            a[index] = min(b[i] for b, i in zip(bounds, index, strict=True))
        a = a + g**2
        for axis, b in enumerate(bounds):
            others = tuple(i for i in range(g.ndim) if i != axis)
            b[:] = a.max(axis=others) if others else a
        m = momentum * m + (1 - momentum) * np.where(a > 0, g / np.sqrt(a + eps), 0.0)
        return p - lr * m

    return step


def signum(beta=0.9) -> Step:
    """Bernstein et al. 2018, Algorithms 1 (beta = 0) and 2."""
    m = 0.0

    def step(p, g, t, lr):
        nonlocal m
        m = beta * m + (1 - beta) * g
        return p - lr * sign(m)

    return step


def adopt(b1=0.9, b2=0.9999, eps=1e-6, nesterov=False, use_clipping=True) -> Step:
    """Taniguchi et al. 2024, Algorithm 2, with the clipping of section 5."""
    m: Any = 0.0
    v: Any = None

    def step(p, g, t, lr):
        nonlocal m, v
        if v is None:
            v = g**2
            return p
        n = g / np.maximum(np.sqrt(v), eps)
        if use_clipping:
            n = np.clip(n, -((t - 1) ** 0.25), (t - 1) ** 0.25)
        m = b1 * m + (1 - b1) * n
        v = b2 * v + (1 - b2) * g**2
        return p - lr * (b1 * m + (1 - b1) * n if nesterov else m)

    return step


def ademamix(
    b1=0.9, b2=0.999, b3: Decay = 0.9999, alpha: Decay = 5.0, eps=1e-8, weight_decay=0.0
) -> Step:
    """Pagliardini et al. 2024, Algorithm 1."""
    m1 = m2 = v = 0.0

    def step(p, g, t, lr):
        nonlocal m1, m2, v
        m1 = b1 * m1 + (1 - b1) * g
        m2 = at(b3, t) * m2 + (1 - at(b3, t)) * g
        v = b2 * v + (1 - b2) * g**2
        top = m1 / (1 - b1**t) + at(alpha, t) * m2
        u = top / (np.sqrt(v / (1 - b2**t)) + eps)
        return p - lr * (u + at(weight_decay, t) * p)

    return step


def simplified_ademamix(b1=0.99, b2=0.95, alpha: Decay = 0.0, eps=1e-8) -> Step:
    """Morwani et al. 2025, section 5."""
    m = n = 0.0

    def step(p, g, t, lr):
        nonlocal m, n
        m = b1 * m + g
        n = b2 * n + (1 - b2) * g**2
        return p - lr * (m + at(alpha, t) * g) / (np.sqrt(n / (1 - b2**t)) + eps)

    return step


def optimistic(alpha: Decay = 1.0, beta: Decay = 1.0) -> Step:
    """Mokhtari et al. 2019, equation 11."""
    before: Any = None

    def step(p, g, t, lr):
        nonlocal before
        last, before = (g if before is None else before), g
        return p - lr * ((at(alpha, t) + at(beta, t)) * g - at(beta, t) * last)

    return step


def _trust(p: Any, u: Any, eps: float = 0.0) -> float:
    size, length = np.sqrt(np.sum(p**2)), np.sqrt(np.sum(u**2))
    return 1.0 if size == 0 or length == 0 else size / (length + eps)


def lars(
    weight_decay=0.0, trust_coefficient=0.001, eps=0.0, momentum=0.9, nesterov=False
) -> Step:
    """You, Gitman & Ginsburg 2017, Algorithm 1."""
    total = 0.0

    def step(p, g, t, lr):
        nonlocal total
        u = g + at(weight_decay, t) * p
        u = lr * trust_coefficient * _trust(p, u, eps) * u
        total = momentum * total + u
        return p - (u + momentum * total if nesterov else total)

    return step


def lamb(b1=0.9, b2=0.999, eps=1e-6, weight_decay=0.0) -> Step:
    """You et al. 2019, Algorithm 2."""
    m = v = 0.0

    def step(p, g, t, lr):
        nonlocal m, v
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        u = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        u = u + at(weight_decay, t) * p
        return p - lr * _trust(p, u) * u

    return step


def fromage(min_norm=1e-6) -> Step:
    """Bernstein et al. 2020, Algorithm 1; the decay of p as optax adds it."""

    def step(p, g, t, lr):
        size = max(np.sqrt(np.sum(p**2)), min_norm)
        length = max(np.sqrt(np.sum(g**2)), min_norm)
        return (p - lr * g * size / length) / np.sqrt(1 + lr**2)

    return step


def adafactor(
    min_dim_size_to_factor=128,
    decay_rate=0.8,
    decay_offset=0,
    multiply_by_parameter_scale=True,
    clipping_threshold=1.0,
    momentum=None,
    weight_decay_rate=None,
    factored=True,
) -> Step:
    """Shazeer & Stern 2018, Algorithm 4, for vectors and matrices."""
    row: Any = 0.0
    column: Any = 0.0
    v: Any = 0.0
    m: Any = 0.0

    def step(p, g, t, lr):
        nonlocal row, column, v, m
        b = 1 - max(t - decay_offset, 1) ** -decay_rate
        square = g**2 + 1e-30
        if factored and g.ndim == 2 and min(g.shape) >= min_dim_size_to_factor:
            row = b * row + (1 - b) * square.mean(axis=1, keepdims=True)
            column = b * column + (1 - b) * square.mean(axis=0, keepdims=True)
            u = g / np.sqrt(row @ column / row.mean())
        else:
            v = b * v + (1 - b) * square
            u = g / np.sqrt(v)
        if clipping_threshold is not None:
            u = u / max(1.0, np.sqrt(np.mean(u**2)) / clipping_threshold)
        u = lr * u
        if multiply_by_parameter_scale:
            u = u * max(np.sqrt(np.mean(p**2)), 1e-3)
        if momentum is not None:
            m = momentum * m + (1 - momentum) * u
            u = m
        return p - u - (0 if weight_decay_rate is None else weight_decay_rate * p)

    return step
