"""Line searches: the conditions that they promise, and what they do when stuck."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

SEARCHES = {
    "backtracking": gradtx.scale_by_backtracking_linesearch(60, store_grad=True),
    "zoom": gradtx.scale_by_zoom_linesearch(30, approx_dec_rtol=None),
}
both = pytest.mark.parametrize("name", sorted(SEARCHES))


def _wavy(p):
    return jnp.sum(jnp.cos(3 * p["w"]) + p["w"] ** 2 + 0.1 * p["w"] ** 4)


def _search(tx, f, params, direction=None, state=None, **extra):
    value, grad = jax.value_and_grad(f, allow_int=True)(params)
    if direction is None:
        direction = jax.tree.map(lambda g: -g, grad)
    state = tx.init(params) if state is None else state
    return tx.update(
        direction, state, params, value=value, grad=grad, value_fn=f, **extra
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("seed", range(20))
@both
def test_the_step_satisfies_the_conditions(name, seed):
    rng = np.random.default_rng(seed)
    params = {"w": jnp.asarray(rng.normal(size=3))}
    scale = 10.0 ** rng.uniform(-3, 3)
    grad = jax.grad(_wavy)(params)
    direction = jax.tree.map(lambda g: -scale * g, grad)
    updates, state = _search(SEARCHES[name], _wavy, params, direction)
    step = float(state.learning_rate)
    np.testing.assert_allclose(updates["w"], step * direction["w"], rtol=1e-12)
    there = gradtx.apply_updates(params, updates)
    slope = float(jnp.vdot(grad["w"], direction["w"]))
    # Nocedal & Wright 2006, equations 3.7
    assert _wavy(there) <= _wavy(params) + 1e-4 * step * slope
    if name == "zoom":
        after = float(jnp.vdot(jax.grad(_wavy)(there)["w"], direction["w"]))
        assert abs(after) <= 0.9 * abs(slope)
    value, grad = jax.value_and_grad(_wavy)(there)
    np.testing.assert_allclose(state.value, value, rtol=1e-12)
    np.testing.assert_allclose(state.grad["w"], grad["w"], rtol=1e-9)
    assert float(state.info.decrease_error) == 0.0


@both
def test_an_objective_that_is_infinite_further_on_is_not_left(name):
    f = lambda p: jnp.sum(-jnp.log(1 - p["w"]) - 2 * p["w"])  # finite below 1
    params = {"w": jnp.array([0.0])}
    updates, state = _search(SEARCHES[name], f, params, {"w": jnp.array([8.0])})
    there = gradtx.apply_updates(params, updates)
    assert 0 < there["w"][0] < 1
    assert jnp.isfinite(state.value)


@both
def test_an_objective_that_is_nowhere_finite_keeps_the_parameters(name):
    f = lambda p: jnp.where(p["w"][0] == 0, 1.0, jnp.nan) + 0 * jnp.sum(p["w"])
    params = {"w": jnp.array([0.0])}
    grad = {"w": jnp.array([1.0])}
    tx = SEARCHES[name]
    direction = {"w": jnp.array([-1.0])}
    updates, state = tx.update(
        direction, tx.init(params), params, value=1.0, grad=grad, value_fn=f
    )
    assert updates["w"].tolist() == [0.0]
    assert float(state.value) == 1.0
    assert state.grad["w"].tolist() == [1.0]
    # and the next search does not start from 0
    updates, state = _search(tx, _wavy, {"w": jnp.array([1.0])}, state=state)
    if name == "zoom":
        assert float(state.learning_rate) > 0


@both
def test_zero_gradients_move_nothing(name):
    params = {"w": jnp.zeros(2)}
    updates, state = _search(SEARCHES[name], lambda p: jnp.sum(p["w"] ** 2), params)
    assert updates["w"].tolist() == [0.0, 0.0]
    assert float(state.value) == 0.0


@both
def test_other_arguments_are_ignored_and_named_ones_passed(name):
    f = lambda p, target: jnp.sum((p["w"] - target) ** 2)
    params, tx = {"w": jnp.array([0.0])}, SEARCHES[name]
    updates, _ = tx.update(
        {"w": jnp.array([2.0])},
        tx.init(params),
        params,
        value=1.0,
        grad={"w": jnp.array([-2.0])},
        value_fn=f,
        target=1.0,
        key=None,
    )
    assert 0 < updates["w"][0] < 2


@both
def test_integer_and_missing_leaves_stay(name):
    f = lambda p: jnp.sum((p["w"] * p["n"].astype(float)) ** 2)
    params = {"w": jnp.array([3.0]), "n": jnp.array([2]), "none": None}
    zero = np.zeros(1, jax.dtypes.float0)
    direction = {"w": jnp.array([-1.0]), "n": zero, "none": None}
    updates, state = _search(SEARCHES[name], f, params, direction)
    assert updates["n"] is zero
    assert state.grad["n"].dtype == jnp.int32
    evaluate = gradtx.value_and_grad_from_state(f)
    there = gradtx.apply_updates(params, updates)
    value, grad = evaluate(there, state=state)
    np.testing.assert_allclose(value, f(there), rtol=1e-6)
    assert grad["n"].dtype == jax.dtypes.float0


@pytest.mark.usefixtures("x64")
@both
def test_complex_parameters_descend(name):
    f = lambda p: jnp.sum(jnp.abs(p["z"] - (1 + 2j)) ** 2)
    params = {"z": jnp.array([3.0 - 1.0j])}
    _, grad = jax.value_and_grad(f)(params)
    direction = {"z": -0.5 * jnp.conj(grad["z"])}
    updates, _ = _search(SEARCHES[name], f, params, direction)
    there = gradtx.apply_updates(params, updates)
    np.testing.assert_allclose(there["z"], [1 + 2j], rtol=1e-12)


@both
def test_it_runs_in_vmap_and_scan(name):
    tx = SEARCHES[name]

    def run(start):
        def step(carry, _):
            params, state = carry
            updates, state = _search(tx, _wavy, params, state=state)
            return (gradtx.apply_updates(params, updates), state), _wavy(params)

        params = {"w": start}
        return jax.lax.scan(step, (params, tx.init(params)), length=20)[1]

    values = jax.jit(jax.vmap(run))(jnp.array([[1.5], [-0.3], [0.9]]))
    assert (jnp.diff(values, axis=1) <= 1e-6).all()
    alone = jax.jit(run)(jnp.array([1.5]))
    np.testing.assert_allclose(values[0], alone, rtol=1e-4)  # of a chaotic search


@pytest.mark.parametrize("missing", ["value", "grad", "value_fn"])
@both
def test_what_is_missing_is_named(name, missing):
    tx, params = SEARCHES[name], {"w": jnp.ones(1)}
    known = {"value": 1.0, "grad": params, "value_fn": _wavy}
    del known[missing]
    with pytest.raises(gradtx.MissingArgumentError, match=f"{missing}="):
        tx.update(params, tx.init(params), params, **known)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gradtx.scale_by_zoom_linesearch(0), "max_linesearch_steps must be"),
        (
            lambda: gradtx.scale_by_zoom_linesearch(5, initial_guess_strategy="two"),  # type: ignore[arg-type]
            "initial_guess_strategy must be",
        ),
        (
            lambda: gradtx.scale_by_backtracking_linesearch(5, decrease_factor=1.0),
            "decrease_factor must lie in",
        ),
    ],
)
def test_senseless_arguments_raise_at_once(make, message):
    with pytest.raises(gradtx.ArgumentError, match=message):
        make()


def test_an_objective_that_is_no_scalar_is_refused():
    tx, params = SEARCHES["zoom"], {"w": jnp.ones(2)}
    with pytest.raises(gradtx.ShapeError, match="value_fn must return a scalar"):
        tx.update(
            params,
            tx.init(params),
            params,
            value=1.0,
            grad=params,
            value_fn=lambda p: p["w"],
        )


def test_value_and_gradient_are_reused_only_where_finite():
    calls = []

    def f(p):
        jax.debug.callback(lambda: calls.append(1))
        return jnp.sum(p["w"] ** 2)

    tx, params = SEARCHES["backtracking"], {"w": jnp.array([1.0])}
    evaluate = jax.jit(gradtx.value_and_grad_from_state(f))
    value, grad = evaluate(params, state=tx.init(params))
    jax.effects_barrier()
    assert (float(value), grad["w"].tolist(), len(calls)) == (1.0, [2.0], 1)
    known = tx.init(params)._replace(value=jnp.array(5.0))
    value, _ = evaluate(params, state=known)
    jax.effects_barrier()
    assert (float(value), len(calls)) == (5.0, 1)
    with pytest.raises(ValueError, match="no value"):
        evaluate(params, state=gradtx.sgd(0.1).init(params))
    with pytest.raises(KeyError):
        evaluate(params, state=(known, known))


@pytest.mark.parametrize("verbose", [False, True])
def test_failures_are_told_if_asked(verbose, capfd):
    params = {"w": jnp.array([1.0])}
    up = {"w": jnp.array([1.0])}
    for tx, text in (
        (gradtx.scale_by_zoom_linesearch(5, verbose=verbose), "does not descend"),
        (
            gradtx.scale_by_backtracking_linesearch(5, verbose=verbose),
            "no step decreases",
        ),
    ):
        _search(tx, lambda p: jnp.sum(p["w"] ** 2), params, up)
        jax.effects_barrier()
        assert (text in capfd.readouterr().out) is verbose
