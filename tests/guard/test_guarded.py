"""Bad steps are left out whole; the rest is as without a guard."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
import gradtx.testing
from gradtx import Measured, PerParam, Role, Scalar
from gradtx.core import dtype_of

PARAMS = {
    "w": jnp.array([[1.0, -2.0], [0.5, 3.0]]),
    "b": jnp.ones(2, jnp.bfloat16),
    "z": jnp.full(2, 1 + 1j, jnp.complex64),
}
GRADS = jax.tree.map(lambda p: p * jnp.asarray(0.5, p.dtype), PARAMS)


def _bytes(tree):
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


def _still(updates):
    return all(
        (np.asarray(u).astype(complex) == 0).all() for u in jax.tree.leaves(updates)
    )


@pytest.fixture(scope="module")
def adam():
    """Return a guarded optimizer that draws noise, its compiled step and a state."""
    tx = gradtx.guarded(
        gradtx.chain(
            gradtx.add_noise(0.1, 0.5, key=0),
            gradtx.trace(0.9),
            gradtx.scale_by_learning_rate(gradtx.linear_schedule(1.0, 0.0, 9)),
        ),
        sigmas=6.0,
        warm_up=2,
    )
    step = jax.jit(tx.update)
    state = tx.init(PARAMS)
    for _ in range(3):
        _, state = step(GRADS, state, PARAMS)
    return tx, step, state


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_number_anywhere_moves_nothing_and_changes_no_bit(adam, bad):
    _, step, state = adam
    for name, g in GRADS.items():
        for place in np.ndindex(g.shape):
            hurt = np.array(g)
            hurt[place] = bad
            grads = GRADS | {name: jnp.asarray(hurt)}
            updates, after = step(grads, state, PARAMS)
            assert _still(updates)
            assert _bytes(after.inner_state) == _bytes(state.inner_state)
            assert _bytes(after.window) == _bytes(state.window)
            assert (int(after.bad_gradients), int(after.skipped)) == (1, 1)


def test_an_imaginary_part_counts(adam):
    _, step, state = adam
    grads = GRADS | {"z": GRADS["z"].at[0].set(complex(1.0, np.nan))}
    updates, after = step(grads, state, PARAMS)
    assert _still(updates)
    assert int(after.bad_gradients) == 1


def test_good_updates_are_those_of_inner():
    inner = gradtx.adamw(0.1)
    several = [
        inner,
        gradtx.guarded(inner, sigmas=9.0, recompute=False),
        gradtx.guarded(inner),
        gradtx.guarded(inner, back_off=0.5),
    ]
    params = {"w": jnp.linspace(-1, 1, 12).reshape(3, 4)}

    def run(tx):
        def step(state, g):
            grads = jax.tree.map(lambda p: p * g, params)
            updates, state = tx.update(grads, state, params)
            return state, updates

        gs = jnp.array([1.0, 0.3, -0.7, 2.0])
        state, made = jax.lax.scan(step, tx.init(params), gs)
        return getattr(state, "inner_state", state), made

    bare, once, twice, factor = jax.jit(lambda: [run(tx) for tx in several])()
    # a factor of 1 changes no bit; in a branch the compiler joins other operations
    assert _bytes(twice) == _bytes(factor)
    for made in (once, twice):
        for a, b in zip(*map(jax.tree.leaves, (bare, made)), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-6)


def test_a_thousand_bad_steps_move_nothing_and_the_next_good_one_does():
    tx = gradtx.guarded(gradtx.adam(0.1), back_off=0.5, smallest=0.25)
    g = jnp.where(jnp.arange(1002) % 1001 == 0, 1.0, jnp.nan)

    def step(carry, g):
        p, state = carry
        updates, state = tx.update(jnp.full(2, g), state, p)
        p = gradtx.apply_updates(p, updates)
        return (p, state), p

    first = (jnp.ones(2), tx.init(jnp.ones(2)))
    (_, state), seen = jax.jit(lambda c: jax.lax.scan(step, c, g))(first)
    seen = np.asarray(seen)
    assert (seen[:1001] == seen[0]).all()
    np.testing.assert_allclose(seen[1001], seen[0] - 0.25 * 0.1, rtol=1e-6)
    assert (int(state.skipped), int(state.consecutive)) == (1000, 0)
    assert (float(state.factor), int(state.back_offs)) == (0.25, 2)


class _Squares(NamedTuple):
    nu: PerParam
    best: Scalar


def _overflowing(where):
    """Return a raw pair whose state or update overflows at a gradient of 1e20."""

    def init(params):
        return _Squares(jax.tree.map(jnp.zeros_like, params), jnp.array(jnp.inf))

    def update(updates, state, params=None):
        squares = jax.tree.map(lambda g: g * g, updates)
        best = jnp.minimum(state.best, 3.0)
        if where == "state":
            return updates, _Squares(squares, best)
        return squares, _Squares(updates, best)

    return init, update


@pytest.mark.parametrize("where", ["state", "update"])
def test_what_overflows_of_a_finite_gradient_is_left_out(where):
    tx = gradtx.guarded(_overflowing(where))
    state = tx.init(jnp.ones(2))
    updates, state = tx.update(jnp.array([1e20, 1.0]), state)
    assert _still(updates)
    assert int(state.bad_updates) == 1
    # what was infinite from the start is no harm, and may become finite
    assert np.isinf(state.inner_state.best)
    updates, state = tx.update(jnp.array([2.0, 1.0]), state)
    assert (int(state.skipped), float(state.inner_state.best)) == (1, 3.0)
    assert float(updates[0]) == (2.0 if where == "state" else 4.0)


class _Told(NamedTuple):
    trace: PerParam
    ratio: Measured


def test_what_is_measured_may_be_anything():
    def update(updates, state, params=None):
        return updates, _Told(updates, jnp.sum(updates) / 0)

    tx = gradtx.guarded((lambda p: _Told(p, jnp.zeros(())), update))
    updates, state = tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
    assert int(state.skipped) == 0
    assert not _still(updates)
    assert np.isinf(state.inner_state.ratio)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_leaves_the_step_out(value):
    tx = gradtx.guarded(gradtx.sgd(1.0))
    updates, state = tx.update(jnp.ones(2), tx.init(jnp.ones(2)), value=value)
    assert _still(updates)
    assert int(state.bad_losses) == 1


@pytest.mark.parametrize("watch", ["norm", "loss"])
def test_spikes_are_told_once_the_window_has_enough(watch):
    tx = gradtx.guarded(gradtx.sgd(1.0), sigmas=4.0, window=8, watch=watch)

    def step(state, x):
        scale = x if watch == "norm" else 1.0
        _, state = tx.update(jnp.full(4, scale), state, value=x)
        return state, state.spikes

    # 1e30 as the second number is too early to be told: the window needs two
    seen = jnp.array([1.0, 1.1, 0.9, 1.0, 50.0, 1.05, 1e30, 1.0])
    state, spikes = jax.jit(lambda s: jax.lax.scan(step, s, seen))(
        tx.init(jnp.zeros(4))
    )
    assert spikes.tolist() == [0, 0, 0, 0, 1, 1, 2, 2]
    kept = np.sort(np.asarray(state.window))[-6:] / (2 if watch == "norm" else 1)
    np.testing.assert_allclose(kept, [0.9, 1, 1, 1, 1.05, 1.1], rtol=1e-6)


def test_norms_beyond_all_range_are_compared_too():
    tx = gradtx.guarded(gradtx.scale_by_sign(), sigmas=3.0, window=4)
    state = tx.init(jnp.zeros(4))
    for size in (1e30, 1.1e30, 0.9e30, 3e38):
        updates, state = tx.update(jnp.full(4, size), state)
    assert int(state.spikes) == 1
    assert _still(updates)


def test_zeros_tell_nothing_of_what_is_usual():
    tx = gradtx.guarded(gradtx.sgd(1.0), sigmas=3.0, window=4)
    state = tx.init(jnp.zeros(2))
    for size in (0.0, 0.0, 0.0, 1.0):
        updates, state = tx.update(jnp.full(2, size), state)
    assert int(state.spikes) == 0
    assert not _still(updates)


def test_the_factor_falls_to_the_smallest_and_rises_to_one():
    tx = gradtx.guarded(gradtx.sgd(1.0), back_off=0.7, smallest=0.5, recover_after=2)

    def step(state, g):
        updates, state = tx.update(jnp.full(1, g), state)
        return state, (state.factor, updates[0])

    good, bad = 1.0, np.nan
    g = jnp.array([good, bad, bad, good, good, good, good, good, good])
    _, (factors, updates) = jax.lax.scan(step, tx.init(jnp.zeros(1)), g)
    expected = [1, 0.7, 0.5, 0.5, 0.5 / 0.7, 0.5 / 0.7, 1, 1, 1]
    np.testing.assert_allclose(factors, expected, rtol=1e-6)
    moved = [-1, 0, 0, -0.5, -0.5, -0.5 / 0.7, -0.5 / 0.7, -1, -1]
    np.testing.assert_allclose(updates, moved, rtol=1e-6)
    assert factors[-1] == 1
    assert updates[-1] == -1


def test_leaves_that_do_not_move_pass():
    params = {
        "w": jnp.ones(2),
        "n": jnp.arange(3),
        "none": None,
        "e": jnp.zeros((0, 2)),
    }
    none = np.zeros(3, jax.dtypes.float0)
    tx = gradtx.guarded(gradtx.trace(0.9), roll_back_after=1, back_off=0.5)

    def run():
        state, made = tx.init(params), []
        for value in (1.0, np.nan):
            grads = params | {"w": jnp.full(2, value), "n": none}
            updates, state = tx.update(grads, state, params)
            assert dtype_of(updates["n"]) == jax.dtypes.float0
            assert updates["none"] is None
            made.append(updates["w"])
        return made, state

    (good, bad), state = jax.jit(run)()
    assert not _still(good)
    assert _still(bad)
    assert int(state.roll_backs) == 1


def test_types_that_drift_in_foreign_links_stay(lenient):
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    tx = gradtx.guarded(optax.adam(0.1), roll_back_after=2)

    def step(state, g):
        updates, state = tx.update({"w": jnp.full(3, g)}, state, params)
        return state, updates

    state = tx.init(params)
    after, _ = jax.lax.scan(step, state, jnp.array([1.0, jnp.nan, 1.0]))
    assert jax.tree.map(dtype_of, after) == jax.tree.map(dtype_of, state)
    assert int(after.skipped) == 1


def test_extra_arguments_reach_a_line_search():
    objective = lambda p: jnp.sum(p**2)
    tx = gradtx.guarded(gradtx.lbfgs())
    params = jnp.array([1.0, -2.0])

    @jax.jit
    def step(params, state, hurt):
        value, grads = jax.value_and_grad(objective)(params)
        updates, state = tx.update(
            grads + hurt, state, params, value=value, grad=grads, value_fn=objective
        )
        return gradtx.apply_updates(params, updates), state

    state = tx.init(params)
    moved, state = step(params, state, 0.0)
    assert objective(moved) < objective(params)
    still, state = step(moved, state, jnp.nan)
    assert _bytes(still) == _bytes(moved)


def test_a_bad_micro_batch_is_left_out_of_an_accumulation():
    tx = gradtx.guarded(gradtx.accumulate(gradtx.sgd(1.0), 2))

    def step(state, g):
        updates, state = tx.update(jnp.full(1, g), state)
        return state, updates[0]

    g = jnp.array([1.0, jnp.nan, 1.0, 3.0, 1.0, 1.0])
    _, made = jax.lax.scan(step, tx.init(jnp.zeros(1)), g)
    assert made.tolist() == [0, 0, -1, 0, -2, 0]


@pytest.mark.filterwarnings("ignore::gradtx.OrderWarning")
def test_inside_an_accumulation_the_whole_window_is_left_out():
    tx = gradtx.accumulate(gradtx.guarded(gradtx.sgd(1.0)), 2)

    def step(state, g):
        updates, state = tx.update(jnp.full(1, g), state)
        return state, updates[0]

    g = jnp.array([1.0, jnp.nan, 1.0, 3.0, 1.0, 1.0])
    _, made = jax.lax.scan(step, tx.init(jnp.zeros(1)), g)
    assert made.tolist() == [0, 0, 0, -2, 0, -1]


def test_telemetry_inside_and_outside():
    plain = {"every": 1, "effective": False}
    inner = gradtx.trace(0.9)
    outside = gradtx.observe(gradtx.guarded(inner, roll_back_after=2), **plain)
    inside = gradtx.guarded(gradtx.observe(inner, **plain), roll_back_after=2)
    params, found = jnp.ones(2), {}
    for name, tx in {"outside": outside, "inside": inside}.items():

        @jax.jit
        def run(tx=tx):
            step = lambda s, g: (tx.update(jnp.full(2, g), s, params)[1], None)
            return jax.lax.scan(step, tx.init(params), jnp.array([1.0, jnp.nan]))[0]

        found[name] = gradtx.telemetry.read(run())
        assert found[name]["skipped_updates"] == found[name]["bad_gradients"] == 1
        assert found[name]["consecutive_skips"] == 1
        assert not found[name]["exhausted"]
        # of the snapshot nothing is told
        assert sum(key.startswith("moment_norm/") for key in found[name]) == 1
    assert (found["outside"]["updates"], found["inside"]["updates"]) == (2, 1)


def test_packed_parameters_are_guarded_like_a_tree():
    tx = gradtx.guarded(
        gradtx.chain(gradtx.trace(0.9), gradtx.normalize(), gradtx.scale(-0.1)),
        sigmas=9.0,
        roll_back_after=2,
    )
    params = {"a": jnp.ones((2, 2)), "b": jnp.full(3, 2.0)}

    def run(params):
        def step(carry, g):
            params, state = carry
            grads = jax.tree.map(lambda p: p * g, params)
            updates, state = tx.update(grads, state, params)
            params = gradtx.apply_updates(params, updates)
            return (gradtx.guard.restored(params, state), state), state.factor

        g = jnp.array([1.0, 0.5, jnp.nan, jnp.nan, 1.0])
        return jax.lax.scan(step, (params, tx.init(params)), g)[0]

    both = jax.jit(lambda: (run(params), run(gradtx.pack(params))))
    plain, (packed, state) = both()
    for a, b in zip(*map(jax.tree.leaves, (plain[0], gradtx.unpack(packed)))):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert int(state.roll_backs) == int(plain[1].roll_backs) == 1


def test_roles_and_traits():
    tx = gradtx.guarded(gradtx.adamw(0.1))
    assert (tx.traits.stage, tx.traits.reach) == ("guard", "tree")
    assert tx.traits.needs == {"params"}  # of adamw
    assert gradtx.guarded(gradtx.sgd(1.0)).traits.needs == set()
    assert gradtx.guarded(gradtx.sgd(1.0), roll_back_after=2).traits.needs == {"params"}
    loss = gradtx.guarded(gradtx.sgd(1.0), sigmas=6.0, watch="loss")
    assert loss.traits.needs == {"value"}
    assert gradtx.apply_if_finite(gradtx.sgd(1.0), 1).traits.stage == "guard"
    assert gradtx.roles(gradtx.GuardedState)["snapshot"] is Role.SAVED
    tx = gradtx.guarded(gradtx.sgd(1.0), roll_back_after=2)
    state = tx.init(jnp.ones(1))
    with pytest.raises(
        gradtx.MissingArgumentError, match="guarded: update needs the cu"
    ):
        tx.update(jnp.ones(1), state)


@pytest.mark.parametrize("watch", ["norm", "loss"])
def test_types_stay_with_every_policy_and_dtype(watch):
    tx = gradtx.guarded(
        gradtx.trace(0.9), sigmas=6.0, watch=watch, back_off=0.5, roll_back_after=2
    )
    gradtx.testing.check_transformation(tx, properties=["P1", "P2"])


def test_every_argument_is_data():
    tx = gradtx.guarded(
        gradtx.adam(gradtx.linear_schedule(1.0, 0.0, 5)),
        sigmas=5.0,
        watch="loss",
        window=16,
        warm_up=4,
        back_off=0.5,
        smallest=0.1,
        recover_after=7,
        roll_back_after=3,
        snapshot_every=11,
        raise_after=9,
        recompute=False,
        axis_name=("data", "model"),
    )
    assert gradtx.build(gradtx.describe(tx)) == tx
    assert eval(repr(tx), dict(vars(gradtx))) == tx


ADAM = gradtx.adam(0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigmas": 0.0}, "sigmas must be positive, got 0.0. By default"),
        ({"watch": "gradient"}, "watch must be 'norm' or 'loss', got 'gradient'"),
        ({"window": 1}, "window must be an integer of at least 2, got 1"),
        ({"warm_up": 200}, "warm_up must be at most window, got 200 and 128"),
        ({"back_off": 1.5}, r"back_off must lie in \(0, 1\], got 1.5"),
        ({"smallest": 0.0}, r"smallest must lie in \(0, 1\], got 0.0"),
        ({"recover_after": 0}, "recover_after must be an integer of at least 1"),
        ({"roll_back_after": 0}, "roll_back_after must be an integer of at least 1"),
        ({"snapshot_every": 2.5}, "snapshot_every must be an integer of at least 1"),
        (
            {"raise_after": 3, "roll_back_after": 3},
            "raise_after must be more than roll",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(gradtx.ArgumentError, match=f"guarded: {message}"):
        gradtx.guarded(ADAM, **arguments)


def test_wrappers_that_cannot_be_guarded_so_are_told():
    ahead = gradtx.lookahead(ADAM, 2, 0.5)
    with pytest.raises(
        gradtx.ArgumentError, match="back_off must be 1 around lookahead"
    ):
        gradtx.guarded(ahead, back_off=0.5)
    mean = gradtx.accumulate(gradtx.chain(gradtx.pmean_gradients("data"), ADAM), 2)
    with pytest.raises(
        gradtx.ArgumentError, match=r"decide together.*axis_name='data'"
    ):
        gradtx.guarded(mean)
    tx = gradtx.guarded(ADAM, sigmas=3.0, watch="loss")
    state = tx.init(jnp.ones(2))
    with pytest.raises(
        gradtx.ArgumentError, match=r"value must be a scalar .* got shape"
    ):
        tx.update(jnp.ones(2), state, value=jnp.ones(2))
