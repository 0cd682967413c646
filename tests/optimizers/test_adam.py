"""Adam, AdamW, NAdam and NAdamW."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.optimizers import _cases, _paths

CASES = _cases.cases("adam", "adamw", "nadam", "nadamw")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_float64_path_is_that_of_the_paper(case):
    truth = _cases.reference_path(case)
    assert _paths.strict_error(_cases.ours(case, "double"), truth) <= _cases.DOUBLE


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_float32_path_is_near_the_truth(case):
    truth = _cases.reference_path(case)
    assert _paths.error(_cases.ours(case, "single"), truth) <= _cases.SINGLE


@pytest.mark.parametrize("nesterov", [False, True])
def test_steps_do_not_depend_on_the_scale_of_the_gradient(nesterov):
    # a power of two scales every intermediate number without rounding
    tx = gradtx.scale_by_adam(eps=0.0, nesterov=nesterov)
    grads = jnp.array([[1.0, -0.3], [0.7, 2.0], [-0.2, 0.1]])
    plain, scaled = tx.init({"w": grads[0]}), tx.init({"w": grads[0]})
    for g in grads:
        one, plain = tx.update({"w": g}, plain)
        other, scaled = tx.update({"w": 1024 * g}, scaled)
        assert one["w"].tolist() == other["w"].tolist()


def test_nesterov_of_adam_and_of_nadam_is_one():
    grads = {"w": jnp.array([0.3, -2.0])}
    for one, other in (
        (gradtx.adam(0.1, nesterov=True), gradtx.nadam(0.1)),
        (gradtx.adam(0.1), gradtx.nadam(0.1, nesterov=False)),
        (gradtx.adamw(0.1, nesterov=True), gradtx.nadamw(0.1)),
        (gradtx.adamw(0.1), gradtx.nadamw(0.1, nesterov=False)),
    ):
        ours, _ = one.update(grads, one.init(grads), grads)
        theirs, _ = other.update(grads, other.init(grads), grads)
        assert ours["w"].tolist() == theirs["w"].tolist()


def test_decay_alone_shrinks_parameters_by_the_learning_rate_times_it():
    params = {"kernel": jnp.array([[2.0]]), "bias": jnp.array([2.0])}
    tx = gradtx.adamw(0.5, weight_decay=0.25, mask=gradtx.ndim_at_least(2))
    updates, _ = tx.update(gradtx.tree.zeros_like(params), tx.init(params), params)
    assert updates["kernel"].tolist() == [[-0.25]]
    assert updates["bias"].tolist() == [0.0]


def test_second_moment_of_bfloat16_parameters_does_not_stand_still():
    # in bfloat16 the mean stops at 0.5, where 0.001·(1 − mean) is half a rounding
    tx = gradtx.scale_by_adam()
    grads = {"w": jnp.ones(1, jnp.bfloat16)}

    def steps(state):
        return jax.lax.fori_loop(0, 3000, lambda _, s: tx.update(grads, s)[1], state)

    state = jax.jit(steps)(tx.init(grads))
    # 3000 roundings of 2^-24, all of one sign, are 2e-4
    np.testing.assert_allclose(state.nu["w"], 1 - 0.999**3000, rtol=2e-4)
    assert int(state.count) == 3000


def test_moments_have_the_dtypes_asked_for():
    params = {"h": jnp.ones(2, jnp.bfloat16), "f": jnp.ones(2, jnp.float32)}
    own = gradtx.scale_by_adam().init(params)
    assert (own.mu["h"].dtype, own.mu["f"].dtype) == (jnp.bfloat16, jnp.float32)
    assert own.nu["h"].dtype == own.nu["f"].dtype == jnp.float32
    for factory in (
        gradtx.scale_by_adam,
        gradtx.scale_by_amsgrad,
        gradtx.scale_by_lion,
    ):
        tx = factory(mu_dtype=jnp.float16)
        updates, state = params, tx.init(params)
        for _ in range(2):
            assert state.mu["h"].dtype == state.mu["f"].dtype == jnp.float16
            updates, state = tx.update(params, state)
        assert updates["f"].dtype == jnp.float32


@pytest.mark.parametrize(
    "make", [gradtx.adam, gradtx.adamw, gradtx.nadam, gradtx.nadamw, gradtx.amsgrad]
)
def test_optimizers_hand_mu_dtype_on(make):
    state = make(0.1, mu_dtype="bfloat16").init({"w": jnp.ones(2)})
    assert state[0].mu["w"].dtype == jnp.bfloat16


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("make", [gradtx.scale_by_adam, gradtx.scale_by_radam])
def test_traced_hyperparameters_give_what_plain_numbers_do(make):
    grads = {"w": jnp.array([0.5, -2.0])}

    @jax.jit
    def traced(b1, b2, eps, state):
        return make(b1, b2, eps).update(grads, state)

    plain = make(0.75, 0.9375, 1e-3)
    state = plain.init(grads)
    for _ in range(8):
        ours, _ = traced(0.75, 0.9375, 1e-3, state)
        updates, state = plain.update(grads, state)
        np.testing.assert_allclose(ours["w"], updates["w"], rtol=1e-14)


def test_derivatives_through_a_zero_gradient_are_finite():
    def step(g, eps_root):
        tx = gradtx.scale_by_adam(eps_root=eps_root)
        return tx.update({"w": g}, tx.init({"w": g}))[0]["w"]

    assert jnp.isfinite(jax.grad(step)(0.0, 0.0))
    assert jnp.isfinite(jax.grad(step)(0.0, 1e-8))
