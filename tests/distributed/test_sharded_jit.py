"""Train arrays that are sharded over a mesh, under plain `jit`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P

import gradtx
from tests.hosts import _models

STATES = _models.every_kind_of_state()

SPECS = {
    "hidden": {"bias": P("model"), "kernel": P(None, "model")},
    "out": {"bias": P(), "kernel": P("model")},
}

AUTO = Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "model"))
EXPLICIT = jax.make_mesh((2, 4), ("data", "model"))
MESHES = {"auto": AUTO, "explicit": EXPLICIT}


def placed(mesh: Mesh) -> Any:
    return jax.tree.map(
        lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec)),
        _models.params(),
        SPECS,
    )


def training_step(tx, mesh):
    x, y = (jax.device_put(v, NamedSharding(mesh, P("data"))) for v in _models.batch())
    explicit = AxisType.Explicit in mesh.axis_types
    everywhere = NamedSharding(mesh, P())

    def loss(params):
        if explicit:  # where a contracted axis lies must be said
            params = jax.reshard(params, everywhere)
        return ((_models.predict(params, x) - y) ** 2).mean()

    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return gradtx.apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(0, 1))


def saved_and_restored(state: Any) -> Any:
    """Return the arrays as a checkpoint does that keeps values and shardings."""

    def leaf(x):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.device_put(x, x.sharding)
        return jax.device_put(np.asarray(x), x.sharding)

    return jax.tree.map(leaf, state)


def assert_beside(state: Any, params: Any) -> None:
    """Check that moments lie where parameters of their shape do, scalars everywhere."""
    where = {x.shape: x.sharding for x in jax.tree.leaves(params)}
    for path, x in jax.tree_util.tree_leaves_with_path(state):
        assert x.sharding.device_set == set(jax.devices()), path
        if x.shape in where:
            assert x.sharding.is_equivalent_to(where[x.shape], x.ndim), path
        else:
            assert x.sharding.is_fully_replicated, path


@pytest.mark.parametrize("kind", MESHES)
@pytest.mark.parametrize("name", STATES)
def test_a_restored_state_trains_sharded_parameters_as_one_device(name, kind):
    tx, mesh = STATES[name], MESHES[kind]
    params = placed(mesh)
    state = tx.init(params)
    assert_beside(state, params)
    state = saved_and_restored(state)
    step = training_step(tx, mesh)
    for _ in range(_models.STEPS):
        params, state = step(params, state)
    if kind == "explicit":  # elsewhere the compiler may move them
        assert_beside(params, placed(mesh))
        assert_beside(state, params)
    _models.assert_close(jax.device_get(params), _models.plain_loop(tx))


@pytest.mark.parametrize("kind", MESHES)
def test_a_state_made_under_jit_fits_as_well(kind):
    tx, mesh = STATES["chain"], MESHES[kind]
    params = placed(mesh)
    with jax.set_mesh(mesh):
        state = jax.jit(tx.init)(params)
        params, state = training_step(tx, mesh)(params, state)
    _models.assert_close(jax.device_get(params), _models.plain_loop(tx, 1))
