"""Save or restore with the devices of two processes: `python _worker.py port rank run what`.

`what` is `save`, `restore` or `die`; `save` leaves what each device held in
`held-RANK.npz` beside the run.
"""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

import gradtx
from gradtx import checkpoint
from gradtx.checkpoint import _save
from gradtx.checkpoint._digest import is_same
from gradtx.checkpoint._manifest import read_manifest

PROCESSES, DEVICES_EACH = 2, 2
TX = gradtx.adamw(1e-2)
SPECS = {"b": P(), "w": P("data", None)}


def params(devices: Any, value: float = 0.0) -> Any:
    """Return parameters spread over devices: `w` in rows, `b` on all of them."""
    mesh = Mesh(np.array(devices), ("data",))
    numbers = {
        "b": np.arange(3, dtype=np.float32) + value,
        "w": np.arange(24, dtype=np.float32).reshape(8, 3) + value,
    }
    return {
        name: jax.make_array_from_callback(
            x.shape, NamedSharding(mesh, SPECS[name]), lambda index, x=x: x[index]
        )
        for name, x in numbers.items()
    }


@jax.jit
def step(params: Any, state: Any) -> Any:
    """Return parameters and state after one update."""
    grads = jax.tree.map(lambda p: p - 1, params)
    updates, state = TX.update(grads, state, params)
    return gradtx.apply_updates(params, updates), state


def held(tree: Any) -> dict[str, np.ndarray]:
    """Return what the devices of this process hold, by path and place."""
    found = {}
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        for shard in x.addressable_shards:
            place = [(s.start or 0) for s in shard.index]
            found[f"{jax.tree_util.keystr(path)}@{place}"] = np.asarray(shard.data)
    return found


def main(port: str, rank: str, run: str, what: str) -> None:
    """Join the other process, and do what is asked for."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", DEVICES_EACH)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.distributed.initialize(
        f"127.0.0.1:{port}", num_processes=PROCESSES, process_id=int(rank)
    )
    now = params(jax.devices())
    state = jax.jit(TX.init)(now)
    for _ in range(2):
        now, state = step(now, state)
    file = Path(run).with_name(f"held-{rank}.npz")
    if what == "die":
        if rank == "1":
            _save.barrier = lambda label: os._exit(9)
        checkpoint.save(run, 3, tx=TX, params=now, opt_state=state)
        return
    if what == "save":
        numbers: Any = held((now, state))
        np.savez(file, **numbers)
        with checkpoint.Manager(run, tx=TX) as manager:
            manager.save(2, params=now, opt_state=state, epoch=jnp.asarray(2))
    check(run, now, state, dict(np.load(file)))
    jax.distributed.shutdown()


def check(run: str, now: Any, state: Any, wanted: dict[str, np.ndarray]) -> None:
    """Restore what these processes held, bit for bit, and go on."""
    zeros = jax.tree.map(lambda x: x * 0, (now, state))
    back = checkpoint.restore(run, tx=TX, params=zeros[0], opt_state=zeros[1])
    got = held((back["params"], back["opt_state"]))
    assert got.keys() == wanted.keys()
    assert all(got[name].tobytes() == x.tobytes() for name, x in wanted.items())
    manifest = read_manifest(Path(run) / "step_00000002")
    (leaf,) = (leaf for leaf in manifest.trees["params"] if leaf.path == "['w']")
    wrong = tuple((index, "0" * 64) for index, _ in leaf.pieces)
    assert is_same(leaf, back["params"]["w"])
    assert not is_same(dataclasses.replace(leaf, pieces=wrong), back["params"]["w"])
    wanted = held(step(now, state))
    got = held(step(back["params"], back["opt_state"]))
    assert all(got[name].tobytes() == x.tobytes() for name, x in wanted.items())


if __name__ == "__main__":
    main(*sys.argv[1:])
