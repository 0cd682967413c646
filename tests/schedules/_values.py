"""Evaluate schedules at many steps: gradtx's, optax's and formulas'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradtx

STEPS = np.arange(130)


def values(schedule: Callable[[Any], Any], steps: Any = STEPS) -> np.ndarray:
    """Return the schedule's values at `steps`, all at once."""
    return np.asarray(jax.vmap(schedule)(jnp.asarray(steps)))


def one_by_one(schedule: Callable[[Any], Any], steps: Any) -> np.ndarray:
    """Return the schedule's values at `steps`, each from a call with an `int`."""
    return np.array([schedule(int(t)) for t in steps])


def assert_equals_optax(name: str, *args: Any, **kwargs: Any) -> None:
    """Compare the schedules that one and the same call makes here and in optax."""
    assert_equal(
        getattr(gradtx.schedules, name)(*args, **kwargs),
        getattr(optax.schedules, name)(*args, **kwargs),
    )


def assert_equal(ours: Callable[[Any], Any], theirs: Callable[[Any], Any]) -> None:
    """Compare a schedule with one of optax, which needs lenient promotion."""
    some = STEPS[::9]  # calls are slow
    found = one_by_one(ours, some)
    with jax.enable_x64(True):
        found_64 = values(ours)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = one_by_one(theirs, some)
        with jax.enable_x64(True):
            expected_64 = values(theirs)
    # float32 keeps 6e-8, and both do the same operations in nearly the same order
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=0)
    assert_close_64(found_64, expected_64)


def assert_equals_formula(
    schedule: Callable[[Any], Any], formula: Callable[[int], float]
) -> None:
    """Compare a schedule in 64 bits with Python's floats at each step."""
    with jax.enable_x64(True):
        found = values(schedule)
    assert_close_64(found, np.array([formula(int(t)) for t in STEPS]))


def assert_close_64(found: np.ndarray, expected: np.ndarray) -> None:
    """Compare values in float64, which keeps 1e-16 of the greatest of them."""
    assert found.dtype == np.float64
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-15 * scale)
