"""Train one small model on 8 devices in each way that JAX offers, or on one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

import gradtx

DEVICES = 8
STEPS = 20

#: The ways to map a step over devices. With `check_vma` JAX sums gradients of
#: replicated parameters itself, unless they are first cast to vary ("cast").
MODES = ("pmap", "shard_map", "shard_map cast", "shard_map unchecked")

#: `STEPS` steps of at most 0.05, whose directions are sums of 64 terms in another
#: order, off by 1e-6 of themselves: 1e-6 in all. Measured: 1.8e-7.
ATOL = 1e-6


class Batch(NamedTuple):
    """Examples of all devices: `x` (device, example, 5), `y` (…, 3), `count` (device,).

    A device has `count` examples; its other rows hold nothing.
    """

    x: Any
    y: Any
    count: Any


def params() -> Any:
    """Return two kernels, a bias, and a scale that no example moves."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape) / 2, jnp.float32)
    return {"b": draw(7), "scale": draw(2), "w1": draw(5, 7), "w2": draw(7, 3)}


def batch(count: Any = (8,) * DEVICES) -> Batch:
    """Return as many examples for each device as `count` says."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(DEVICES, max(count), 5)).astype(np.float32)
    y = np.sin(x[..., :3]) * x[..., 2:]
    return Batch(x, y, np.array(count, np.int32))


def loss(params: Any, batch: Any) -> jax.Array:
    """Return the mean error over the first `count` rows, NaN if there are none."""
    x, y, count = batch
    h = jnp.tanh(x @ params["w1"] + params["b"][None])
    errors = jnp.sum((h @ params["w2"] - y) ** 2, axis=1)
    there = jnp.arange(x.shape[0]) < count
    mean = jnp.sum(jnp.where(there, errors, 0)) / count.astype(jnp.float32)
    return mean + 0.1 * jnp.sum(params["scale"] ** 2)


def step(tx: Any, params: Any, state: Any, batch: Any, *, cast: bool = False) -> Any:
    """Update once by the gradients of the examples that this device holds."""
    varying = jax.tree.map(_cast, params) if cast else params
    grads = jax.grad(loss)(varying, batch)
    updates, state = tx.update(grads, state, params, example_count=batch.count)
    return gradtx.apply_updates(params, updates), state


def _cast(x: jax.Array) -> jax.Array:
    return lax.pcast(x, "data", to="varying")


def on_one_device(tx: Any, batch: Batch, steps: int = STEPS) -> Any:
    """Return the parameters that all examples together lead to."""
    rows = np.arange(batch.x.shape[1]) < batch.count[:, None]
    whole = Batch(batch.x[rows], batch.y[rows], batch.count.sum())
    update = jax.jit(lambda p, s: step(tx, p, s, whole))
    now, state = params(), tx.init(params())
    for _ in range(steps):
        now, state = update(now, state)
    return jax.device_get(now)


def on_all_devices(
    mode: str,
    tx: Any,
    batch: Batch,
    steps: int = STEPS,
    own: Callable[[Any], Any] | None = None,
) -> Any:
    """Return the parameters, after checking the bits of all replicas at every step.

    Args:
      mode: one of `MODES`.
      tx: an optimizer that averages over the axis "data".
      batch: the examples.
      steps: how many updates to make.
      own: from a state to a tree of bools, `True` for what each device has of its
        own. By default nothing.
    """
    state = tx.init(params())
    owned = jax.tree.map(lambda _: False, state) if own is None else own(state)
    if mode == "pmap":
        update = jax.pmap(lambda *given: step(tx, *given), axis_name="data")
        now, state = stacked(params()), stacked(state)
    else:
        update = _shard_mapped(mode, tx, owned)
        now, state = jax.device_put((params(), state), spread())
        state = jax.tree.map(lambda o, x: stacked(x) if o else x, owned, state)
    for _ in range(steps):
        now, state = update(now, state, batch)
        assert_replicas_equal(now)
        assert_replicas_equal(jax.tree.map(lambda o, x: None if o else x, owned, state))
    first = jax.tree.map(lambda x: np.asarray(x.addressable_shards[0].data), now)
    return jax.tree.map(lambda x: x[0], first) if mode == "pmap" else first


def _shard_mapped(mode: str, tx: Any, owned: Any) -> Callable[..., Any]:
    # what devices have of their own lies along a leading axis
    specs = jax.tree.map(lambda o: P("data") if o else P(), owned)

    def mapped(now, state, batch):
        state = jax.tree.map(lambda o, x: x[0] if o else x, owned, state)
        batch = jax.tree.map(lambda x: x[0], batch)
        now, state = step(tx, now, state, batch, cast=mode.endswith("cast"))
        return now, jax.tree.map(lambda o, x: x[None] if o else x, owned, state)

    return jax.jit(
        jax.shard_map(
            mapped,
            mesh=mesh(),
            in_specs=(P(), specs, P("data")),
            out_specs=(P(), specs),
            check_vma=not mode.endswith("unchecked"),
        )
    )


def mesh() -> Mesh:
    """Return the mesh of all devices; the compiler places what nobody maps."""
    return Mesh(np.array(jax.devices()), ("data",))


def spread(*axes: str) -> NamedSharding:
    """Return where arrays lie that are split over `axes`: by default, copies."""
    return NamedSharding(mesh(), P(*axes))


def stacked(tree: Any) -> Any:
    """Return a tree with a leading axis that counts the devices, one entry on each."""
    copies = lambda x: np.broadcast_to(np.asarray(x), (DEVICES, *x.shape))
    return jax.device_put(jax.tree.map(copies, tree), spread("data"))


def assert_replicas_equal(tree: Any) -> None:
    """Compare the bytes that the devices hold of each array."""
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        assert len(x.addressable_shards) == DEVICES
        held = {np.asarray(s.data).tobytes() for s in x.addressable_shards}
        assert len(held) == 1, f"devices differ at {jax.tree_util.keystr(path)}"


def worst(got: Any, wanted: Any) -> float:
    """Return the largest difference between numbers of two trees; NaN if any is."""
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True)
    return float(np.max([np.max(np.abs(a - b)) for a, b in pairs]))
