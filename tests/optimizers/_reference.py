"""Every update rule in NumPy float64, written from its paper and as slow as it reads.

A rule takes hyperparameters and returns `step(p, g, t, lr) -> p`, which keeps its own
moments: `p` and `g` are one parameter array and its gradient, `t` = 1, 2, … counts the
steps and `lr` is the learning rate of this one. Numbers may be complex.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

Step: TypeAlias = Callable[[Any, Any, int, float], Any]
Decay: TypeAlias = float | Callable[[int], float]


def sgd(momentum: float = 0.0, nesterov: bool = False) -> Step:
    """Sutskever et al. 2013, section 2, with the sum of gradients for the velocity."""
    total = 0.0

    def step(p, g, t, lr):
        nonlocal total
        total = momentum * total + g
        return p - lr * (g + momentum * total if nesterov else total)

    return step


def rmsprop(
    decay: float = 0.9,
    eps: float = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: float = 0.0,
    nesterov: bool = False,
    bias_correction: bool = False,
    momentum_after: str = "learning_rate",
    weight_decay: Decay = 0.0,
) -> Step:
    """Graves 2013, equations 38 to 41, and what other libraries made of them."""
    mean, square, total = 0.0, initial_scale, 0.0

    def step(p, g, t, lr):
        nonlocal mean, square, total
        g = g + at(weight_decay, t) * p
        mean = decay * mean + (1 - decay) * g
        square = decay * square + (1 - decay) * abs(g) ** 2
        weight = 1 - decay**t if bias_correction else 1.0
        power = square / weight
        if centered:
            power = power - abs(mean / weight) ** 2
        u = g / (np.sqrt(power + eps) if eps_in_sqrt else np.sqrt(power) + eps)
        if momentum_after == "learning_rate":
            total = momentum * total + lr * u
            return p - (lr * u + momentum * total if nesterov else total)
        total = momentum * total + u
        return p - lr * (u + momentum * total if nesterov else total)

    return step


def adam(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    nesterov: bool = False,
    weight_decay: Decay = 0.0,
) -> Step:
    """Kingma & Ba 2014, Algorithm 1; decay of Loshchilov & Hutter 2017, Algorithm 2.

    With Nesterov Dozat 2016, Algorithm 2, with one b1 for all steps and a plain `v`.
    """
    m = v = 0.0

    def step(p, g, t, lr):
        nonlocal m, v
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * abs(g) ** 2
        m_hat = m / (1 - b1**t)
        if nesterov:
            m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        v_hat = v / (1 - b2**t)
        u = m_hat / (np.sqrt(v_hat + eps_root) + eps)
        return p - lr * (u + at(weight_decay, t) * p)

    return step


def amsgrad(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
) -> Step:
    """Reddi, Kale & Kumar 2018, Algorithm 2, and corrections after the maximum."""
    m = v = top = 0.0

    def step(p, g, t, lr):
        nonlocal m, v, top
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * abs(g) ** 2
        top = np.maximum(top, v)
        m_hat = m / (1 - b1**t) if bias_correction_mu else m
        v_hat = top / (1 - b2**t) if bias_correction_nu else top
        return p - lr * m_hat / (np.sqrt(v_hat + eps_root) + eps)

    return step


def adamax(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, weight_decay: Decay = 0.0
) -> Step:
    """Kingma & Ba 2014, Algorithm 2, with torch's eps beside the magnitude."""
    m = top = 0.0

    def step(p, g, t, lr):
        nonlocal m, top
        m = b1 * m + (1 - b1) * g
        top = np.maximum(b2 * top, abs(g) + eps)
        return p - lr * (m / (1 - b1**t) / top + at(weight_decay, t) * p)

    return step


def adagrad(
    initial_accumulator_value: float = 0.1, eps: float = 1e-7, eps_in_sqrt: bool = True
) -> Step:
    """Duchi, Hazan & Singer 2011, Figure 1, for diagonal matrices."""
    total = initial_accumulator_value

    def step(p, g, t, lr):
        nonlocal total
        total = total + abs(g) ** 2
        root = np.sqrt(total + eps) if eps_in_sqrt else np.sqrt(total) + eps
        return p - lr * g / root

    return step


def radam(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    threshold: float = 5.0,
    nesterov: bool = False,
) -> Step:
    """Liu et al. 2019, Algorithm 2, with the threshold of the authors' code."""
    m = v = 0.0
    rho_inf = 2 / (1 - b2) - 1

    def step(p, g, t, lr):
        nonlocal m, v
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * abs(g) ** 2
        m_hat = m / (1 - b1**t)
        if nesterov:
            m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        rho = rho_inf - 2 * t * b2**t / (1 - b2**t)
        if rho < threshold:
            return p - lr * m_hat
        over = (rho - 4) * (rho - 2) * rho_inf
        under = (rho_inf - 4) * (rho_inf - 2) * rho
        v_hat = v / (1 - b2**t)
        return p - lr * np.sqrt(over / under) * m_hat / (
            np.sqrt(v_hat + eps_root) + eps
        )

    return step


def lion(
    b1: float = 0.9,
    b2: float = 0.99,
    weight_decay: Decay = 0.0,
    mode: str = "hard",
    smooth_beta: float = 1.0,
) -> Step:
    """Chen et al. 2023, Algorithm 2; the other modes as optax defines them."""
    m = 0.0

    def step(p, g, t, lr):
        nonlocal m
        c = b1 * m + (1 - b1) * g
        m = b2 * m + (1 - b2) * g
        u = {
            "hard": sign(c),
            "smooth": np.tanh(smooth_beta * c),
            "refined": np.where(abs(c) < 1, c, sign(c)),
        }[mode]
        return p - lr * (u + at(weight_decay, t) * p)

    return step


def at(value: Decay, t: int) -> float:
    """Return a number, or a schedule's value before step `t`, counted from 0."""
    return value(t - 1) if callable(value) else value


def sign(x: Any) -> Any:
    """Return `x / |x|`, or 0 where `x` is 0."""
    size = abs(x)
    return x / np.where(size == 0, 1, size)
