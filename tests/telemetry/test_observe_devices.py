"""What is measured on 8 devices is what is measured on one."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding

import gradtx
from gradtx import telemetry
from tests.telemetry import _truth
from tests.telemetry._truth import leaves_of

P = jax.P
DEVICES, STEPS = 8, 4
#: Leaves that 8 devices can share, or have whole.
PARAMS = {
    "a": {"w": jnp.asarray(np.random.default_rng(0).normal(size=(16, 3)), jnp.float32)},
    "b": jnp.asarray(np.random.default_rng(1).normal(size=8), jnp.float32),
}
TX = gradtx.observe(
    gradtx.chain(gradtx.clip_by_global_norm(5.0), gradtx.sgd(0.1, momentum=0.9)),
    every=2,
    per_leaf=True,
    window=3,
)
#: What takes time to compile is left out where it is not what is tested.
SHORT: Any = {"moments": False, "effective": False, "per_leaf": True}
# sums in another order, of at most 56 elements; an update fused in another way
RTOL = 4e-6


def grads_at(i):
    return jax.tree.map(lambda p: jnp.cos(p * 7 + i) * (i + 1), PARAMS)


def mesh(kind=AxisType.Auto) -> Any:
    return jax.make_mesh((DEVICES,), ("data",), axis_types=(kind,))


def train(tx, params=PARAMS, update: Any = None):
    """Return what is read after each of a few updates."""
    update, state, made = update or jax.jit(tx.update), tx.init(params), []
    for i in range(STEPS):
        _, state = update(grads_at(i), state, params)
        made.append(telemetry.read(state))
    return made


@functools.cache
def alone(sharded=False):
    """Return what one device reads."""
    return train(SHARDED_ALONE if sharded else TX)


def assert_equal(found, expected, index=(), rtol=RTOL):
    assert list(found) == list(expected)
    for name, value in expected.items():
        got = found[name]
        if isinstance(value, telemetry.Histogram):
            np.testing.assert_allclose(got.counts[index], value.counts, err_msg=name)
        elif isinstance(value, str):
            assert (got if index == () else got[index]) == value
        else:
            got = np.asarray(got)[index]
            # cosines and variances cancel: shares of the squares of norms
            size = 56 * STEPS**2 if name == "gradient_variance" else 1
            close = {"rtol": rtol, "atol": 1e-6 * size, "err_msg": name}
            np.testing.assert_allclose(got, value, **close)


def test_pmap_measures_on_every_device_what_one_measures():
    update = jax.pmap(lambda g, s, p: TX.update(g, s, p), axis_name="data")
    spread = lambda tree: jax.tree.map(lambda x: jnp.stack([x] * DEVICES), tree)
    state, params = spread(TX.init(PARAMS)), spread(PARAMS)
    for i in range(STEPS):
        _, state = update(spread(grads_at(i)), state, params)
        found = telemetry.read(state)
        assert list(found) == telemetry.names(TX, PARAMS)
        for device in range(DEVICES):
            assert_equal(found, alone()[i], (device,))
            for name, value in found.items():  # all equal, bit by bit
                if not isinstance(value, telemetry.Histogram):
                    np.testing.assert_array_equal(value[device], value[0], name)


@pytest.mark.parametrize("check_vma", [True, False])
def test_shard_map_with_whole_leaves_measures_what_one_measures(check_vma):
    step = jax.jit(
        jax.shard_map(
            lambda g, s, p: TX.update(g, s, p)[1],
            mesh=mesh(),
            in_specs=P(),
            out_specs=P(),
            check_vma=check_vma,
        )
    )
    found = train(TX, update=lambda g, s, p: (None, step(g, s, p)))
    for got, expected in zip(found, alone(), strict=True):
        assert_equal(got, expected)


#: Leaves sharded over an axis that every sum knows.
SHARDED, SHARDED_ALONE = (
    gradtx.observe(
        gradtx.chain(
            gradtx.clip_by_global_norm(5.0, axis_name=axis),
            gradtx.sgd(0.1, momentum=0.9),
        ),
        successive=True,
        histograms=True,
        per_leaf=True,
        every=2,
        axis_name=axis,
    )
    for axis in ("data", None)
)


@pytest.mark.parametrize("check_vma", [True, False])
def test_shards_of_leaves_are_measured_together(check_vma):
    def run(params):
        def step(state, i):
            g = jax.tree.map(lambda p: jnp.cos(p * 7 + i) * (i + 1), params)
            _, state = SHARDED.update(g, state, params)
            return state, state._replace(inner_state=rates(state), previous=())

        numbers = jnp.arange(STEPS, dtype=jnp.float32)
        return lax.scan(step, SHARDED.init(params), numbers)[1]

    def rates(state):  # without what differs between devices
        return jax.tree.map(lambda x: () if x.ndim else x, state.inner_state)

    # only where types tell, a leaf that each device has whole counts once
    specs = {"a": P("data"), "b": P() if check_vma else P("data")}
    mapped = jax.shard_map(
        run, mesh=mesh(), in_specs=(specs,), out_specs=P(), check_vma=check_vma
    )
    found = telemetry.read(jax.jit(mapped)(PARAMS))
    for i, expected in enumerate(alone(sharded=True)):
        assert_equal(found, expected, (i,))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_jit_of_sharded_parameters_measures_what_one_measures(kind):
    devices = mesh(kind)
    place = NamedSharding(devices, P("data"))
    put = lambda tree: jax.device_put(tree, place)
    with jax.set_mesh(devices):
        params = put(PARAMS)
        update = jax.jit(TX.update)
        state, made = jax.jit(TX.init)(params), []
        for i in range(STEPS):
            _, state = update(put(grads_at(i)), state, params)
            made.append(telemetry.read(state))
        assert telemetry.names(TX, params) == list(made[0])
    for got, expected in zip(made, alone(), strict=True):
        assert_equal(got, expected)


# A NaN on one device


BAD = 5


@pytest.mark.parametrize("check_vma", [True, False])
def test_all_devices_measure_when_one_sees_a_nan(check_vma):
    tx = gradtx.observe(gradtx.sgd(0.1), every=3, axis_name="data", **SHORT)

    def run(params, extra):
        def step(state, i):
            g = jax.tree.map(jnp.cos, params)
            bad = (i == 1) & (extra[0] > 0)
            g["b"] = jnp.where(bad, jnp.nan, g["b"])
            _, state = tx.update(g, state, params)
            return state, state._replace(inner_state=())

        return lax.scan(step, tx.init(params), jnp.arange(2))[1]

    mapped = jax.shard_map(
        run, mesh=mesh(), in_specs=P("data"), out_specs=P(), check_vma=check_vma
    )
    extra = jnp.zeros(DEVICES).at[BAD].set(1)
    states = jax.jit(mapped)(PARAMS, extra)
    found = telemetry.read(states)
    assert found["measured_update"].tolist() == [1, 2]
    assert found["gradient_nonfinite"].tolist() == [0, 1]
    assert found["gradient_nonfinite/leaf/b"].tolist() == [0, 1]
    assert found["first_nonfinite"].tolist() == ["", "b"]
    assert found["nonfinite_updates"].tolist() == [0, 1]
    norm = np.linalg.norm(np.cos(PARAMS["a"]["w"]))
    np.testing.assert_allclose(found["gradient_norm/leaf/a/w"], norm, rtol=RTOL)


def test_devices_that_differ_take_the_same_branch():
    """Without an axis name, each tells of its own gradients, when one has a NaN."""
    tx = gradtx.observe(gradtx.scale(0.5), every=100, **SHORT)

    def run(g):
        def step(state, i):
            h = jnp.where((i == 1) & (g > 50), jnp.nan, g)
            return tx.update(h, state, g)[1], None

        state = lax.scan(step, tx.init(g), jnp.arange(3))[0]
        return jax.tree.map(lambda x: x[None], (state.latest, state.measured))

    mapped = jax.shard_map(run, mesh=mesh(), in_specs=P("data"), out_specs=P("data"))
    g = jnp.arange(1.0, 9.0).at[BAD].set(100.0)
    latest, measured = jax.jit(mapped)(g)
    only = np.arange(DEVICES) == BAD
    np.testing.assert_array_equal(latest["nonfinite_updates"], only)
    np.testing.assert_array_equal(latest["gradient_norm"], g)
    np.testing.assert_array_equal(measured["measured_update"], 2)
    np.testing.assert_array_equal(measured["gradient_nonfinite"][:, 0], only)
    np.testing.assert_array_equal(measured["param_norm"][:, 0], g)


def test_a_nan_on_one_device_stops_no_pmap_that_sums_in_its_branch():
    """Gradients are not averaged, as they should be, and drift is measured."""
    tx = gradtx.observe(gradtx.sgd(0.1), every=3, replicas="data", **SHORT)

    def run(g, bad):
        _, state = tx.update(g, tx.init(g), g)
        return tx.update(jnp.where(bad, jnp.nan, g), state, g)[1]

    only = np.arange(DEVICES) == BAD
    states = jax.pmap(run, axis_name="data")(jnp.ones((DEVICES, 3)), only)
    found = telemetry.read(states)
    np.testing.assert_array_equal(found["measured_update"], 2)
    np.testing.assert_array_equal(found["nonfinite_updates"], only)
    np.testing.assert_array_equal(found["gradient_nonfinite"], 3 * only)


# Devices with gradients of their own


def _own_grads():
    rng = np.random.default_rng(3)
    draw = lambda p: jnp.asarray(
        rng.normal(size=(STEPS, DEVICES, *p.shape)), jnp.float32
    )
    return jax.tree.map(draw, PARAMS)


OWN = _own_grads()
REPLICAS = gradtx.observe(
    gradtx.chain(gradtx.pmean_gradients("data"), gradtx.sgd(0.5)),
    replicas="data",
    every=2,
    window=1,
    **SHORT,
)


def _check_replicas(states, step, drift):
    """Compare with the formulas of McCandlish et al. 2018, appendix A.1."""
    found = telemetry.read(states)
    last = step if step % 2 else max(step - 1, 0)  # the first is measured, then evens
    at = lambda i: [
        leaves_of(jax.tree.map(lambda g, d=d: g[i, d], OWN)) for d in range(DEVICES)
    ]
    small = np.mean([_truth.norm(g.values()) ** 2 for g in at(last)])
    mean = {k: np.mean([g[k].astype(float) for g in at(last)], 0) for k in at(0)[0]}
    big = _truth.norm(mean.values()) ** 2
    # batches of one device, and of all
    square = (DEVICES * big - small) / (DEVICES - 1)
    noise = (small - big) / (1 - 1 / DEVICES)
    variance = noise / DEVICES
    now = {k: np.mean([g[k].astype(float) for g in at(step)], 0) for k in mean}
    norms = _truth.norm(now.values())
    np.testing.assert_allclose(found["gradient_norm"], norms, rtol=RTOL)
    atol = float(8 * 2.0**-24 * small)
    np.testing.assert_allclose(found["gradient_variance"], variance, atol=atol)
    scale = variance / square if square > 0 else np.nan
    np.testing.assert_allclose(found["gradient_noise_scale"], scale, rtol=1e-4)
    assert "gradient_cosine" not in found
    for name, value in drift.items():
        np.testing.assert_allclose(found[f"replica_drift{name}"], value, rtol=1e-6)


@pytest.mark.parametrize("check_vma", ["pmap", True, False])
def test_noise_and_drift_of_replicas(check_vma):
    shift = np.zeros(DEVICES, np.float32)
    shift[BAD] = 0.25

    def own(params, shift):
        moved = dict(params, b=params["b"].at[2].add(shift))
        return moved

    def run(params, shift, grads):
        def step(state, g):
            # the second update finds the replicas equal, the fourth does not
            there = jnp.where(state.count > 1, shift, 0.0)
            _, state = REPLICAS.update(g, state, own(params, there))
            return state, state

        return lax.scan(step, REPLICAS.init(params), grads)[1]

    grads = jax.tree.map(lambda g: jnp.moveaxis(g, 1, 0), OWN)
    if check_vma == "pmap":
        mapped = jax.pmap(run, axis_name="data", in_axes=(None, 0, 0))
        states = jax.tree.map(lambda x: x[BAD], mapped(PARAMS, shift, grads))
    else:

        def one(params, shift, grads):
            squeeze = lambda tree: jax.tree.map(lambda x: x[0], tree)
            if check_vma:
                cast = lambda p: lax.pcast(p, "data", to="varying")
                params = jax.tree.map(cast, params)
            out = run(params, squeeze(shift), squeeze(grads))
            return jax.tree.map(lambda x: x[None], out)

        mapped = jax.jit(
            jax.shard_map(
                one,
                mesh=mesh(),
                in_specs=(P(), P("data"), P("data")),
                out_specs=P("data"),
                check_vma=bool(check_vma),
            )
        )
        out = mapped(PARAMS, jnp.asarray(shift), grads)
        for x in jax.tree.leaves(out.measured):  # equal on all, but what they differ in
            assert x.shape[0] == DEVICES
        states = jax.tree.map(lambda x: x[BAD], out)
    drift = [0.0, 0.0, 0.0, 0.25]
    for i in range(STEPS):
        state = jax.tree.map(lambda x, i=i: x[i], states)
        whole = {"": drift[i], "/leaf/b": drift[i], "/leaf/a/w": 0.0}
        _check_replicas(state, i, whole)
    assert list(telemetry.read(states)) == telemetry.names(REPLICAS, PARAMS)


def test_replicas_that_are_not_mapped_are_an_error():
    with pytest.raises(gradtx.AxisNameError):
        REPLICAS.update(grads_at(0), REPLICAS.init(PARAMS), PARAMS)
