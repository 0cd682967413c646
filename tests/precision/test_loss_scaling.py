"""What is applied, what is left out, who is told, and what stands around and inside."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import precision, telemetry

PARAMS = {"w": jnp.array([1.0, -2.0]), "b": jnp.ones(3)}


def _grads(value=1.0):
    return {"w": jnp.array([value, 1.0]), "b": jnp.ones(3)}


def _same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


DRAW = np.random.default_rng(0)
X, Y = (DRAW.normal(size=(64, n)).astype("float32") for n in (8, 4))
FIRST = {
    "in": DRAW.normal(size=(8, 16)).astype("float32") / 3,
    "out": DRAW.normal(size=(16, 4)).astype("float32") / 4,
}
OPTIMIZER = gradtx.chain(gradtx.clip_by_global_norm(0.5), gradtx.adamw(0.01))


def _loss(params):
    return jnp.mean((jnp.tanh(X @ params["in"]) @ params["out"] - Y) ** 2)


def _training(tx, differentiate):
    def step(carry, _=None):
        params, state = carry
        value, grads = differentiate(state, params)
        updates, state = tx.update(grads, state, params)
        return (gradtx.apply_updates(params, updates), state), value

    return step, (jax.tree.map(jnp.asarray, FIRST), tx.init(FIRST))


def test_training_is_that_without_a_scale_bit_for_bit():
    inner = gradtx.chain(gradtx.clip_by_global_norm(0.5), gradtx.sgd(0.1, 0.9))
    plain, now = _training(inner, lambda _, p: jax.value_and_grad(_loss)(p))
    tx = gradtx.dynamic_loss_scaling(inner, interval=1)
    scaled, then = _training(tx, precision.value_and_grad(_loss))
    # one operation at a time: two compiled programs may round otherwise
    with jax.disable_jit():
        for _ in range(2):
            now, value = plain(now)
            then, other = scaled(then)
            _same_bits((now, value), ((then[0], then[1].inner_state), other))
    assert then[1].scale == 2.0**18


def test_the_size_of_the_scale_changes_no_bit():
    tx = gradtx.dynamic_loss_scaling(OPTIMIZER, interval=10)
    step, (params, state) = _training(tx, precision.value_and_grad(_loss))
    run = jax.jit(lambda carry: jax.lax.scan(step, carry, length=40))
    runs = [
        run((params, state._replace(scale=jnp.float32(scale))))
        for scale in (2.0**16, 1.0, 2.0**-30)
    ]
    for (params, state), values in runs:
        _same_bits(params, runs[0][0][0])
        _same_bits(state.inner_state, runs[0][0][1].inner_state)
        _same_bits(values, runs[0][1])
    assert [float(run[0][1].scale) for run in runs] == [2.0**20, 2.0**4, 2.0**-26]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_inner_sees_what_the_gradients_dtype_cannot_hold(dtype):
    # 1.5·2^-24 is no float16
    tx = gradtx.static_loss_scaling(gradtx.scale(2.0**24), 2.0**24)
    grads = jnp.array([1.5, -3.0, 0.0], dtype)
    updates, _ = tx.update(grads, tx.init(grads), grads)
    assert updates.dtype == dtype
    np.testing.assert_array_equal(updates, grads)


def test_moments_of_float16_parameters_start_from_unscaled_float32_gradients():
    seen = []

    def update(updates, state, params=None):
        seen.extend((g.dtype, float(g[0])) for g in jax.tree.leaves(updates))
        return updates, state

    inner = gradtx.GradientTransformation(gradtx.init_empty_state, update)
    tx = gradtx.static_loss_scaling(inner, 2.0**20)
    grads = jnp.array([3.0], jnp.float16)
    with jax.disable_jit():
        tx.update(grads, tx.init(grads), grads)
    assert seen == [(jnp.float32, 3 * 2.0**-20)]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_a_bad_element_is_found_wherever_it_is(dtype):
    tx = gradtx.dynamic_loss_scaling(gradtx.identity())
    every = [np.nan, np.inf, -np.inf, *([1j * np.nan] if "complex" in dtype else [])]
    where = np.arange(131)

    @jax.jit
    def seen(grads):
        updates, state = tx.update(grads, tx.init(grads))
        return updates, (state.total_skips, state.underflows)

    for bad in every:
        spoiled = {
            "many": jnp.zeros((132, 131), dtype).at[where, where].set(bad),
            "one": jnp.zeros(132, dtype).at[131].set(bad),
        }
        updates, (skipped, vanished) = jax.vmap(seen)(spoiled)
        assert skipped.tolist() == [1] * 132
        assert not vanished.any()
        assert not any(x.any() for x in jax.tree.leaves(updates))
    zeros = {"many": jnp.zeros(131, dtype), "one": jnp.zeros((), dtype)}
    assert seen(zeros)[1] == (0, 1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_large_leaves_of_large_numbers_are_finite_and_a_nan_among_them_is_not(dtype):
    tx = gradtx.dynamic_loss_scaling(gradtx.identity())
    # XLA's maximum loses a NaN in a float32 array of this size on a CPU
    grads = jnp.full(100_003, jnp.finfo(dtype).max, dtype)
    seen = jax.jit(lambda g: tx.update(g, tx.init(g))[1])
    assert seen(grads).good_steps == 1
    for place in (0, 50_000, 100_002):
        assert seen(grads.at[place].set(jnp.nan)).total_skips == 1


def test_odd_leaves_pass():
    tx = gradtx.dynamic_loss_scaling(gradtx.sgd(1.0))
    params = {"w": jnp.ones(2), "n": jnp.arange(2), "e": jnp.ones((0, 2)), "x": None}
    grads = {
        "w": jnp.full(2, 2.0**16),
        "n": np.zeros(2, jax.dtypes.float0),
        "e": jnp.ones((0, 2)),
        "x": None,
    }
    updates, state = tx.update(grads, tx.init(params), params)
    assert updates["w"].tolist() == [-1.0, -1.0]
    assert updates["n"].dtype == jax.dtypes.float0
    assert state.good_steps == 1
    assert state.underflows == 0
    _, state = tx.update({}, tx.init({}), {})
    assert state.good_steps == 1


def test_a_bad_gradient_leaves_every_bit_inside_as_it_was():
    inner = gradtx.chain(gradtx.add_noise(0.1, 0.55, key=0), gradtx.scale_by_adam())
    tx = gradtx.dynamic_loss_scaling(inner)
    _, state = tx.update(_grads(), tx.init(PARAMS), PARAMS)
    for bad in (np.nan, np.inf):
        updates, after = tx.update(_grads(bad), state, PARAMS)
        _same_bits(state.inner_state, after.inner_state)
        assert not any(u.any() for u in jax.tree.leaves(updates))
        assert after.scale == 2.0**15


GUARD = gradtx.apply_if_finite(gradtx.sgd(1.0, 0.9), 1000)
CLIP = gradtx.clip_by_global_norm(1.0)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the order of parts, which some get wrong
    WHOLE = {
        "guarded": gradtx.guarded(gradtx.sgd(1.0, 0.9)),
        "guard": GUARD,
        "clipped": gradtx.chain(CLIP, GUARD),
        "observed": gradtx.observe(GUARD, moments=False, effective=False),
        "accumulated": gradtx.accumulate(GUARD, every=1),
    }
    PART = {
        "none": gradtx.sgd(1.0, 0.9),
        "masked": gradtx.masked(GUARD, gradtx.path_matches("w")),
        "after": gradtx.chain(gradtx.trace(0.9), GUARD),
    }


def _falls(inner):
    """Return a state that has seen as many bad gradients as the scale can fall, and more."""
    tx = gradtx.dynamic_loss_scaling(inner, initial=4)
    _, good = tx.update(_grads(), tx.init(PARAMS), PARAMS)
    state, updates = good, None
    for _ in range(5):
        updates, state = tx.update(_grads(jnp.nan), state, PARAMS)
    assert not any(u.any() for u in jax.tree.leaves(updates))
    assert (state.scale, state.at_min) == (1, 3)
    return tx, good, state


@pytest.mark.parametrize("name", WHOLE)
def test_a_guard_is_told_where_no_scale_helps(name):
    tx, good, state = _falls(WHOLE[name])
    told = {f.reading: f.value for f in gradtx.core.fields(state)}
    # not of the two gradients that a smaller scale might have mended
    assert told["skipped_updates"] == 3
    inside = [
        [f.value for f in gradtx.core.fields(s) if f.name == "trace"]
        for s in (good, state)
    ]
    _same_bits(*inside)
    updates, state = tx.update(_grads(), state, PARAMS)
    assert updates["w"][1] < 0
    assert state.at_min == 0


@pytest.mark.parametrize("name", PART)
def test_a_guard_of_a_part_gets_nothing_bad(name):
    _, good, state = _falls(PART[name])
    _same_bits(good.inner_state, state.inner_state)
    with pytest.raises(gradtx.DivergedError):
        precision.check(state)


def test_a_static_scale_cannot_fall_and_tells_at_once():
    tx = gradtx.static_loss_scaling(GUARD, 8)
    state = tx.init(PARAMS)
    for bad in (jnp.nan, jnp.inf):
        _, state = tx.update(_grads(bad), state, PARAMS)
    assert (state.scale, state.at_min, state.total_skips) == (8, 2, 2)
    assert state.inner_state.total_notfinite == 2
    _, state = tx.update(_grads(), state, PARAMS)
    assert (state.at_min, state.consecutive_skips, state.good_steps) == (0, 0, 1)


def test_inside_accumulate_the_scale_changes_between_windows_only():
    inner = gradtx.apply_if_finite(gradtx.chain(CLIP, gradtx.adam(0.1)), 3)
    tx = gradtx.accumulate(gradtx.dynamic_loss_scaling(inner, interval=1), every=4)
    values = np.array([1, 1, 1, 1, np.inf, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, np.nan])

    def step(state, value):
        updates, state = tx.update(_grads(value), state, PARAMS)
        inside = state.inner_opt_state
        moved = sum(jnp.sum(u != 0) for u in jax.tree.leaves(updates))
        return state, (jnp.log2(inside.scale), inside.total_skips, moved)

    run = jax.jit(lambda values: jax.lax.scan(step, tx.init(PARAMS), values))
    _, (scales, skips, moved) = run(jnp.asarray(values, jnp.float32))
    assert scales.tolist() == [16] * 3 + [17] * 4 + [16] * 4 + [17] * 4 + [16]
    assert skips.tolist() == [0] * 7 + [1] * 8 + [2]
    assert moved.tolist() == [0, 0, 0, 5] + [0] * 7 + [5] + [0] * 4


def test_around_accumulate_a_bad_gradient_is_no_part_of_the_window():
    tx = gradtx.dynamic_loss_scaling(gradtx.accumulate(gradtx.sgd(1.0), 2), initial=4)
    state, made = tx.init(PARAMS), []
    for value in (2.0, jnp.inf, 6.0):
        scale = precision.loss_scale(state)
        scaled = {name: g * scale for name, g in _grads(value).items()}
        updates, state = tx.update(scaled, state, PARAMS)
        made.append(updates["w"].tolist())
    assert made == [[0, 0], [0, 0], [-4, -1]]
    assert state.scale == 2


def test_extra_arguments_and_odd_forms_reach_inner():
    tx = gradtx.dynamic_loss_scaling(gradtx.polyak_sgd(), initial=2)
    assert tx.traits.needs == {"value"}
    grads = jax.tree.map(lambda g: 2 * g, _grads())
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS, value=5.0)
    np.testing.assert_allclose(updates["w"], -1.0)
    pairs = gradtx.LookaheadParams.init_synced(PARAMS)
    tx = gradtx.dynamic_loss_scaling(gradtx.lookahead(gradtx.sgd(1.0), 1, 0.5))
    updates, _ = jax.eval_shape(tx.update, grads, tx.init(pairs), pairs)
    assert jax.tree.structure(updates) == jax.tree.structure(pairs)
    private = gradtx.differentially_private_aggregate(9.0, 0.0, key=0)
    tx = gradtx.static_loss_scaling(private, 2)
    rows = jax.tree.map(lambda g: jnp.stack([g, 3 * g]), grads)
    updates, _ = tx.update(rows, tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["w"], 2.0)


def test_telemetry_reads_the_scale_and_what_it_left_out():
    tx = gradtx.dynamic_loss_scaling(WHOLE["observed"], initial=2)
    _, state = tx.update(_grads(jnp.inf), tx.init(PARAMS), PARAMS)
    _, state = tx.update(_grads(jnp.inf), state, PARAMS)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    _, state = tx.update(zeros, state, PARAMS)
    found = telemetry.read(state)
    told = {k: v for k, v in found.items() if k.startswith("loss_scale")}
    assert told == {
        "loss_scale": 1,
        "loss_scale_overflows": 2,
        "loss_scale_underflows": 1,
        "loss_scale_at_minimum": 0,
    }
    assert found["skipped_updates"] == 1
    assert set(told) <= set(telemetry.METRICS)
