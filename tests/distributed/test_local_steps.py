"""Let each device train a model of its own for several steps, and average then."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from tests.distributed import _replicas
from tests.hosts import _models

STATES = _models.every_kind_of_state()


@pytest.mark.parametrize("carried", [False, True], ids=["made inside", "carried in"])
@pytest.mark.parametrize("name", ["accumulate", "freeze", "partition"])
def test_devices_that_train_for_themselves_train_as_each_alone(name, carried):
    tx = STATES[name]

    def train(factor):
        start = jax.tree.map(lambda x: x * factor[0], _models.params())
        state = tx.init(start)
        if carried:  # a state of all devices, split by in_specs, varies throughout
            state = jax.tree.map(_varying, state)
        step = lambda carry, _: (_models.step(tx, *carry), None)
        (end, _), _ = lax.scan(step, (start, state), None, length=_models.STEPS)
        return jax.tree.map(lambda x: x[None], end), lax.pmean(end, "data")

    mapped = jax.shard_map(
        train,
        mesh=_replicas.mesh(),
        in_specs=P("data"),
        out_specs=(P("data"), P()),
    )
    factors = jnp.array([1.0] + [0.5] * (_replicas.DEVICES - 1))
    each, mean = jax.jit(mapped)(factors)
    first = jax.tree.map(lambda x: x[0], each)
    _models.assert_close(first, _models.plain_loop(tx))
    _models.assert_close(mean, jax.tree.map(lambda x: jnp.mean(x, axis=0), each))


def _varying(x):
    missing = {"data"} - jax.typeof(x).manual_axis_type.varying
    return lax.pcast(x, tuple(missing), to="varying") if missing else x
