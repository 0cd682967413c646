"""RAdam."""

from __future__ import annotations

from fractions import Fraction
from itertools import count
from math import log, sqrt

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.optimizers import _cases, _paths

CASES = _cases.cases("radam")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_float64_path_is_that_of_the_paper(case):
    truth = _cases.reference_path(case)
    assert _paths.strict_error(_cases.ours(case, "double"), truth) <= _cases.DOUBLE


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_float32_path_is_near_the_truth(case):
    truth = _cases.reference_path(case)
    assert _paths.error(_cases.ours(case, "single"), truth) <= _cases.SINGLE


@pytest.mark.parametrize("b2", [0.9, 0.99, 0.999, 0.9999])
def test_the_rectification_is_exact_in_float32(b2):
    # the paper's difference of numbers near 2/(1 − b2) is off by 1e-2 at first
    steps = [t for t in (*range(1, 40), 100, 700, 3000) if length(b2, t) >= 5]
    wanted = [rectification(b2, t) for t in steps]
    # rho − 4 loses two bits where rho is 5; a dozen roundings of 2^-24 come on top
    np.testing.assert_allclose(rectified_ones(b2, steps), wanted, rtol=2e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("b2", [0.9, 0.99])
def test_the_rectification_is_exact_in_float64(b2):
    steps = [t for t in range(1, 100) if length(b2, t) >= 5]
    wanted = np.array([rectification(b2, t) for t in steps])
    # rho rounds a few times by 2^-53 of 2/(1 − b2), and dr/r ≤ d(rho) / (rho − 4)
    room = np.array([8 * 2**-53 * 2 / (1 - b2) / (length(b2, t) - 4) for t in steps])
    assert (abs(rectified_ones(b2, steps) / wanted - 1) <= room).all()


@pytest.mark.parametrize("threshold", [4.5, 5.0, 20.0])
def test_steps_follow_the_mean_until_the_threshold(threshold):
    first = next(t for t in count(1) if length(0.999, t) >= threshold)
    tx = gradtx.scale_by_radam(eps=0.0, threshold=threshold)
    grads = {"w": jnp.array([8.0])}
    state = tx.init(grads)
    for t in range(1, first + 1):
        updates, state = tx.update(grads, state)
        trusted = float(updates["w"][0]) < 1
        assert trusted == (t == first)
        if not trusted:
            np.testing.assert_allclose(updates["w"], 8.0, rtol=1e-6)


def test_a_memory_too_short_is_never_trusted():
    # rho stays below rho_inf = 3
    tx = gradtx.scale_by_radam(b2=0.5)
    grads = {"w": jnp.array([8.0])}
    state = tx.init(grads)
    for _ in range(50):
        updates, state = tx.update(grads, state)
        np.testing.assert_allclose(updates["w"], 8.0, rtol=1e-6)


def rectified_ones(b2: float, steps: list[int]) -> np.ndarray:
    """Return the update at some steps if all gradients are 1: the rectification."""
    tx = gradtx.scale_by_radam(b1=0.0, b2=b2, eps=0.0)

    @jax.vmap
    def update(made):
        nu = -jnp.expm1(log(b2) * made.astype(float))
        state = gradtx.ScaleByAdamState(made, {"w": jnp.zeros(())}, {"w": nu})
        return tx.update({"w": jnp.ones(())}, state)[0]["w"]

    return np.asarray(update(jnp.array(steps, jnp.int32) - 1))


def length(b2: float, t: int) -> float:
    """Return rho_t of Liu et al. 2019, Algorithm 2, in exact arithmetic."""
    b = Fraction(str(b2))
    return float(2 / (1 - b) - 1 - 2 * t * b**t / (1 - b**t))


def rectification(b2: float, t: int) -> float:
    """Return r_t of Liu et al. 2019, Algorithm 2."""
    rho, top = length(b2, t), float(2 / (1 - Fraction(str(b2))) - 1)
    return sqrt((rho - 4) * (rho - 2) * top / ((top - 4) * (top - 2) * rho))


def test_short_memory_never_rectifies_and_stays_finite():
    tx = gradtx.scale_by_radam(b2=0.55)
    g = jnp.ones(2)
    with jax.debug_nans(True):
        updates, _ = tx.update(g, tx.init(g))
    np.testing.assert_allclose(updates, 1.0, rtol=1e-6)
