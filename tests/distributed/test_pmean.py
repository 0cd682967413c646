"""Average gradients over devices: the replicas train as one device would."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec as P

import gradtx
from tests.distributed import _replicas

UNEVEN = (3, 8, 0, 1, 5, 8, 2, 7)

OPTIMIZERS = {
    "adamw": gradtx.adamw(0.02, weight_decay=0.1),
    "clip, momentum": gradtx.chain(
        gradtx.clip_by_global_norm(0.5), gradtx.sgd(0.05, momentum=0.9)
    ),
}


@functools.cache
def on_one_device(name, count):
    return _replicas.on_one_device(OPTIMIZERS[name], _replicas.batch(count))


@pytest.mark.parametrize("mode", _replicas.MODES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_eight_devices_train_as_one_on_all_examples(name, mode):
    tx = gradtx.chain(gradtx.pmean_gradients("data"), OPTIMIZERS[name])
    batch = _replicas.batch()
    trained = _replicas.on_all_devices(mode, tx, batch)
    alone = on_one_device(name, tuple(batch.count))
    assert _replicas.worst(trained, alone) <= _replicas.ATOL


@pytest.mark.parametrize("mode", [m for m in _replicas.MODES if m != "shard_map"])
def test_weighting_makes_the_mean_over_all_examples(mode):
    # the third device has no example, so that its mean gradient is NaN
    batch = _replicas.batch(UNEVEN)
    name = "clip, momentum"
    tx = gradtx.chain(gradtx.pmean_gradients("data", weighted=True), OPTIMIZERS[name])
    trained = _replicas.on_all_devices(mode, tx, batch)
    assert _replicas.worst(trained, on_one_device(name, UNEVEN)) <= _replicas.ATOL


@pytest.mark.parametrize("mode", [m for m in _replicas.MODES if m != "shard_map"])
def test_no_example_anywhere_moves_nothing(mode):
    tx = gradtx.chain(gradtx.pmean_gradients("data", weighted=True), gradtx.sgd(1.0))
    batch = _replicas.batch()._replace(count=np.zeros(_replicas.DEVICES, np.int32))
    trained = _replicas.on_all_devices(mode, tx, batch, steps=1)
    assert _replicas.worst(trained, jax.device_get(_replicas.params())) == 0


def test_several_axes_are_averaged_over_together():
    batch = jax.tree.map(
        lambda x: x.reshape(2, 4, *x.shape[1:]), _replicas.batch(UNEVEN)
    )
    tx = gradtx.chain(
        gradtx.pmean_gradients(("pod", "chip"), weighted=True), gradtx.sgd(0.1)
    )
    step = lambda batch: _replicas.step(
        tx, _replicas.params(), tx.init(_replicas.params()), batch
    )[0]
    mapped = jax.vmap(jax.vmap(step, axis_name="chip"), axis_name="pod")
    alone = _replicas.on_one_device(gradtx.sgd(0.1), _replicas.batch(UNEVEN), steps=1)
    first = jax.tree.map(lambda x: x[0, 0], jax.jit(mapped)(batch))
    assert _replicas.worst(first, alone) <= _replicas.ATOL


def test_one_axis_is_averaged_while_the_compiler_shards_another():
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model"))
    tx = gradtx.chain(gradtx.pmean_gradients("data"), gradtx.adam(0.1))
    whole = _replicas.batch()
    batch = jax.tree.map(lambda x: x.reshape(4, -1, *x.shape[2:]), whole)
    batch = batch._replace(count=np.full(4, 16, np.int32))
    params = _replicas.params()
    shardings = {
        "b": P("model"),
        "scale": P(),
        "w1": P(None, "model"),
        "w2": P("model"),
    }
    params = {"b": params["b"][:6], "w1": params["w1"][:, :6], "w2": params["w2"][:6]}
    params |= {"scale": _replicas.params()["scale"]}

    def step(now, state, batch):
        batch = jax.tree.map(lambda x: x[0], batch)
        return _replicas.step(tx, now, state, batch)

    mapped = jax.jit(
        jax.shard_map(
            step,
            mesh=mesh,
            in_specs=(P(), P(), P("data")),
            out_specs=(P(), P()),
            axis_names={"data"},
        )
    )
    placed = {
        k: jax.device_put(v, jax.NamedSharding(mesh, shardings[k]))
        for k, v in params.items()
    }
    trained, _ = mapped(placed, tx.init(placed), batch)
    adam = gradtx.adam(0.1)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), whole)._replace(
        count=np.int32(64)
    )
    alone, _ = jax.jit(lambda p, s: _replicas.step(adam, p, s, flat))(
        params, adam.init(params)
    )
    assert _replicas.worst(jax.device_get(trained), alone) <= _replicas.ATOL


def test_a_low_precision_gradient_is_averaged_in_32_bits():
    # 256 + 7: in bfloat16 each 1 would be lost beside 256
    g = jnp.array([256.0] + [1.0] * 7, jnp.bfloat16)
    tx = gradtx.pmean_gradients("data")
    mean = jax.vmap(lambda g: tx.update(g, tx.init(g))[0], axis_name="data")(g)
    assert mean.dtype == jnp.bfloat16
    assert mean[0] == jnp.asarray(263 / 8, jnp.bfloat16)


@pytest.mark.usefixtures("x64")
def test_64_bits_are_weighted_in_64_bits():
    tx = gradtx.pmean_gradients("data", weighted=True)
    update = lambda g, n: tx.update(g, tx.init(g), example_count=n)[0]
    g, n = jnp.array([1.0, 4.0]), jnp.array([2, 1])
    mean = jax.vmap(update, axis_name="data")(g, n)
    assert jnp.allclose(mean, 2.0, rtol=1e-15, atol=0)


def run(tx, **extra):
    return tx.update({"w": jnp.ones(2)}, tx.init({"w": jnp.ones(2)}), **extra)


LINKS = {
    "pmean_gradients": lambda axis: gradtx.pmean_gradients(axis),
    "clip_by_global_norm": lambda axis: gradtx.clip_by_global_norm(1.0, axis_name=axis),
    "clip_by_block_rms": lambda axis: gradtx.clip_by_block_rms(1.0, axis_name=axis),
}


@pytest.mark.parametrize("name", LINKS)
def test_an_axis_that_is_not_mapped_is_named_with_the_remedy(name):
    link = LINKS[name]("data")
    within = gradtx.accumulate(gradtx.chain(link, gradtx.scale(-1.0)), every=2)
    mesh = jax.make_mesh((8,), ("batch",))
    two = jnp.arange(2)
    calls = [
        lambda: run(link),
        jax.jit(lambda: run(link)),
        jax.jit(lambda: run(within)),
        lambda: jax.vmap(lambda _: run(link), axis_name="batch")(two),
        lambda: jax.pmap(lambda _: run(link), axis_name="batch")(two),
        jax.shard_map(lambda: run(link), mesh=mesh, in_specs=(), out_specs=P()),
    ]
    for call in calls:
        with pytest.raises(gradtx.AxisNameError) as caught:
            call()
        message = str(caught.value)
        assert message.startswith(f"{name}: axis 'data' is not mapped here")
        assert "jax.shard_map" in message
        assert "axis_name='data'" in message


def test_a_missing_count_is_asked_for():
    tx = gradtx.chain(gradtx.pmean_gradients("data", weighted=True), gradtx.sgd(1.0))
    with pytest.raises(gradtx.MissingArgumentError, match="example_count=n"):
        jax.vmap(lambda _: run(tx), axis_name="data")(jnp.arange(2))


def test_a_gradient_that_has_been_summed_cannot_be_weighted_any_more():
    tx = gradtx.pmean_gradients("data", weighted=True)
    batch = _replicas.batch(UNEVEN)
    with pytest.raises(gradtx.ArgumentError, match=r"already been summed.*pcast"):
        _replicas.on_all_devices("shard_map", tx, batch, steps=1)


@pytest.mark.parametrize("axis", [None, (), 3, ("data", 1)])
def test_an_axis_must_have_a_name(axis):
    with pytest.raises(gradtx.ArgumentError, match="name of a mapped axis"):
        gradtx.pmean_gradients(axis)


def test_a_count_may_be_a_number():
    tx = gradtx.pmean_gradients("data", weighted=True)
    update = lambda g: tx.update(g, tx.init(g), example_count=4)[0]
    g = jnp.array([1.0, 3.0])
    assert jax.vmap(update, axis_name="data")(g).tolist() == [2.0, 2.0]
    mapped = jax.shard_map(
        update, mesh=_replicas.mesh(), in_specs=P("data"), out_specs=P()
    )
    assert jax.jit(mapped)(jnp.arange(8.0)).tolist() == [3.5]
