"""Train parameters of which each device holds a part: norms are of the whole tree."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

import gradtx
from tests.distributed import _replicas

SPECS = {"b": P(), "rows": P("shard"), "columns": P(None, "shard")}


def grads() -> Any:
    rng = np.random.default_rng(3)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    return {"b": draw(5), "rows": draw(8, 3), "columns": draw(2, 16)}


def mapped(f, specs, **options):
    """Run `f` on 8 shards; the result has the specs of the argument."""
    mesh = Mesh(np.array(jax.devices()), ("shard",))
    return jax.jit(
        jax.shard_map(f, mesh=mesh, in_specs=(specs,), out_specs=specs, **options)
    )


LINKS = {
    "clip_by_global_norm": gradtx.clip_by_global_norm,
    "clip_by_block_rms": gradtx.clip_by_block_rms,
}


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("name", LINKS)
def test_sharded_gradients_are_clipped_as_whole_ones(name, check_vma):
    given, specs = grads(), dict(SPECS)
    if not check_vma:
        # nothing tells here that a leaf is replicated, and it would count 8 times
        del given["b"], specs["b"]
    clip = LINKS[name]
    whole, _ = clip(0.5).update(given, gradtx.EmptyState())
    link = clip(0.5, axis_name="shard")
    shard = lambda g: link.update(g, gradtx.EmptyState())[0]
    clipped = mapped(shard, specs, check_vma=check_vma)(given)
    # some 60 squares added in another order: units in the last place of numbers below 2
    assert _replicas.worst(jax.device_get(clipped), jax.device_get(whole)) <= 5e-7
    # each device for itself gets something else
    alone = mapped(
        lambda g: clip(0.5).update(g, gradtx.EmptyState())[0], specs, check_vma=False
    )(given)
    assert _replicas.worst(jax.device_get(alone), jax.device_get(whole)) > 0.01


def test_sharded_gradients_under_pmap_are_clipped_as_whole_ones():
    rows = grads()["rows"]
    link = gradtx.clip_by_global_norm(0.5, axis_name="shard")
    clipped = jax.pmap(
        lambda g: link.update(g, gradtx.EmptyState())[0], axis_name="shard"
    )(rows)
    whole, _ = gradtx.clip_by_global_norm(0.5).update(rows, gradtx.EmptyState())
    assert _replicas.worst(jax.device_get(clipped), jax.device_get(whole)) <= 5e-7


@pytest.mark.parametrize("power", [1e-30, 1.0, 1e30])
def test_the_norm_over_shards_neither_overflows_nor_vanishes(power):
    given = jax.tree.map(lambda x: x * power, grads())
    mesh = Mesh(np.array(jax.devices()), ("shard",))
    norm = jax.shard_map(
        lambda g: gradtx.global_norm(g, axis_name="shard"),
        mesh=mesh,
        in_specs=(SPECS,),
        out_specs=P(),
    )
    squares = sum(np.sum(np.float64(x) ** 2) for x in jax.tree.leaves(given))
    assert jnp.allclose(jax.jit(norm)(given), np.sqrt(squares), rtol=1e-6)


def test_fully_sharded_training_equals_one_device():
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "shard"))
    specs = {"b": P(), "scale": P(), "w1": P(None, "shard"), "w2": P("shard")}
    params = _replicas.params()
    params |= {"b": params["b"][:4], "w1": params["w1"][:, :4], "w2": params["w2"][:4]}
    whole = _replicas.batch()
    decay = gradtx.adamw(0.02, weight_decay=0.1)
    tx = gradtx.chain(
        gradtx.pmean_gradients("data"),
        gradtx.clip_by_global_norm(0.5, axis_name="shard"),
        decay,
    )
    placed = {
        # copied, since the first device would share its part, which is donated
        k: jax.device_put(jnp.copy(x), NamedSharding(mesh, specs[k]))
        for k, x in params.items()
    }
    state = tx.init(placed)
    # moments lie where their parameters do, and counts on every device
    state_specs = jax.tree.map(lambda x: x.sharding.spec, state)

    def loss(params, batch):
        gathered = params | {
            "w1": lax.all_gather(params["w1"], "shard", axis=1, tiled=True),
            "w2": lax.all_gather(params["w2"], "shard", axis=0, tiled=True),
        }
        # with the batch split over both axes, the mean over one is for the loss
        return lax.pmean(_replicas.loss(gathered, batch), "shard")

    def step(now, state, batch):
        grads = jax.grad(loss)(now, jax.tree.map(lambda x: x[0], batch))
        updates, state = tx.update(grads, state, now)
        return gradtx.apply_updates(now, updates), state

    sharded = jax.jit(
        jax.shard_map(
            step,
            mesh=mesh,
            in_specs=(specs, state_specs, P(("data", "shard"))),
            out_specs=(specs, state_specs),
        ),
        donate_argnums=(0, 1),
    )
    flat = _replicas.Batch(
        *(x.reshape(-1, *x.shape[2:]) for x in whole[:2]), count=np.int32(64)
    )
    alone = gradtx.chain(gradtx.clip_by_global_norm(0.5), decay)
    one = jax.jit(lambda p, s: _replicas.step(alone, p, s, flat))
    one_state = alone.init(params)
    for _ in range(_replicas.STEPS):
        placed, state = sharded(placed, state, whole)
        params, one_state = one(params, one_state)
    got, wanted = jax.device_get((placed, params))
    assert _replicas.worst(got, wanted) <= _replicas.ATOL
