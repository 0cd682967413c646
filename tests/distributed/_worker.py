"""Train with the devices of several processes: `python _worker.py port rank out.npz`.

The parameters that each device of this process holds in the end go to the file.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

import gradtx

PROCESSES, DEVICES_EACH, STEPS = 2, 2, 10
WAYS = ("shard_map", "jit")


def train(way: str, devices: Any) -> Any:
    """Return parameters trained by 10 steps on 32 examples, split over `devices`."""
    mesh = Mesh(np.array(devices), ("data",))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 4)).astype(np.float32)
    y = np.sin(x[:, :2]) * x[:, 2:]

    def put(value, *axes):
        where = NamedSharding(mesh, P(*axes))
        return jax.make_array_from_callback(
            value.shape, where, lambda index: value[index]
        )

    kernel = rng.normal(size=(4, 2)).astype(np.float32)
    params = {"b": put(np.zeros(2, np.float32)), "w": put(kernel)}
    descend = gradtx.chain(
        gradtx.clip_by_global_norm(0.5), gradtx.adamw(0.05, weight_decay=0.1)
    )
    tx = gradtx.chain(gradtx.pmean_gradients("data"), descend)
    tx = tx if way == "shard_map" else descend
    state = tx.init(params)

    def loss(params, x, y):
        return jnp.mean((x @ params["w"] + params["b"][None] - y) ** 2)

    def step(params, state, x, y):
        updates, state = tx.update(jax.grad(loss)(params, x, y), state, params)
        return gradtx.apply_updates(params, updates), state

    if way == "shard_map":
        step = jax.shard_map(
            step,
            mesh=mesh,
            in_specs=(P(), P(), P("data"), P("data")),
            out_specs=(P(), P()),
        )
    everywhere = NamedSharding(mesh, P())
    step = jax.jit(step, donate_argnums=(0, 1), out_shardings=everywhere)
    x, y = put(x, "data"), put(y, "data")
    for _ in range(STEPS):
        params, state = step(params, state, x, y)
    return params


def main(port: str, rank: str, out: str) -> None:
    """Join the other process, train in each way, and write what the devices hold."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", DEVICES_EACH)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.distributed.initialize(
        f"127.0.0.1:{port}", num_processes=PROCESSES, process_id=int(rank)
    )
    assert jax.device_count() == PROCESSES * DEVICES_EACH
    held = {
        f"{way}/{name}/{shard.device.id}": np.asarray(shard.data)
        for way in WAYS
        for name, x in train(way, jax.devices()).items()
        for shard in x.addressable_shards
    }
    np.savez(out, **held)  # type: ignore[arg-type]
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
