"""One device's overflow is every device's, however the devices are addressed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

COUNT = 8
INNER = gradtx.chain(gradtx.pmean_gradients("data"), gradtx.adam(1e-2))
TX = gradtx.dynamic_loss_scaling(INNER, axis_name="data", interval=2)
MESH = jax.sharding.Mesh(np.array(jax.devices()[:COUNT]), ("data",))


def _shares():
    """Return gradients `(steps, devices, 3)`: one device has an Inf, another zeros."""
    g = np.random.default_rng(0).normal(size=(4, COUNT, 3)).astype("float32") * 2**16
    g[1, 5, 2] = np.inf
    g[2, 3] = 0
    return jnp.asarray(g)


def _trained(shares):
    """Make a step for each gradient `(steps, 3)` of this device, from parameters of 1."""
    params = jnp.ones(3)

    def step(carry, g):
        params, state = carry
        updates, state = TX.update(g, state, params)
        params = gradtx.apply_updates(params, updates)
        return (params, state), (params, state.scale, state.underflows)

    return jax.lax.scan(step, (params, TX.init(params)), shares)


def _in_shard_map(check_vma):
    def run(shares):
        # the device's own axis comes second
        made = _trained(shares[:, 0])
        return jax.tree.map(lambda x: x[None], made)

    mapped = jax.shard_map(
        run,
        mesh=MESH,
        in_specs=jax.P(None, "data"),
        out_specs=jax.P("data"),
        check_vma=check_vma,
    )
    return jax.jit(mapped)


WAYS = {
    "shard_map": _in_shard_map(True),
    "shard_map unchecked": _in_shard_map(False),
    "pmap": jax.pmap(_trained, axis_name="data", in_axes=1),
    "vmap": jax.jit(jax.vmap(_trained, axis_name="data", in_axes=1)),
}


@pytest.mark.parametrize("way", WAYS)
def test_an_overflow_on_one_device_leaves_the_step_out_on_all(way):
    (params, state), (path, scales, underflows) = WAYS[way](_shares())
    for x in jax.tree.leaves((params, state, path)):
        for other in np.asarray(x)[1:]:
            assert other.tobytes() == np.asarray(x)[0].tobytes()
    assert state.total_skips.tolist() == [1] * COUNT
    assert state.inner_state.adam.scale_by_adam.count.tolist() == [3] * COUNT
    np.testing.assert_array_equal(path[:, 1], path[:, 0])
    assert (path[:, 2] != path[:, 1]).all()
    assert scales[0].tolist() == [2.0**16, 2.0**15, 2.0**15, 2.0**16]
    # a leaf that is zero on one device of eight has not underflowed
    assert not underflows.any()


def test_sharded_arrays_need_no_axis_name():
    tx = gradtx.dynamic_loss_scaling(gradtx.sgd(1.0))
    rows = jax.sharding.NamedSharding(MESH, jax.P("data"))
    params = jax.device_put(jnp.ones((8, 2)), rows)
    grads = jax.device_put(jnp.ones((8, 2)).at[6, 1].set(jnp.inf), rows)
    updates, state = jax.jit(tx.update)(grads, tx.init(params), params)
    assert updates.sharding == rows
    assert not updates.any()
    assert state.scale == 2.0**15


def test_an_axis_that_is_not_mapped_is_told():
    with pytest.raises(gradtx.AxisNameError, match="axis 'data' is not mapped here"):
        TX.update(jnp.ones(3), TX.init(jnp.ones(3)), jnp.ones(3))
