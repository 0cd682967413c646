"""Properties of runs: the same numbers wherever and however it runs (P8 to P11)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import bits
from gradtx.testing._elsewhere import continued_elsewhere
from gradtx.testing._property import Unavailable, declare, require
from gradtx.testing._subject import Subject, finite, gap, quiet_donation, same_bits


def _gradients(subject: Subject, steps: int = 3) -> list[Any]:
    return [subject.grads(seed=seed) for seed in range(steps)]


@declare(
    "P8",
    "equal arguments give equal bits, and init and update change nothing they are given",
    "two runs",
    "one state twice",
    "init twice",
)
def deterministic(subject: Subject, cell: str) -> None:
    """Compare bytes."""
    params, grads = subject.params(), _gradients(subject)
    if cell == "two runs":
        runs = [subject.run(subject.params(), grads) for _ in range(2)]
        require(same_bits(*runs), "two runs differ")
    elif cell == "one state twice":
        before = subject.init(params)
        kept = jax.tree.map(np.array, (params, _plain(before), grads))
        made = [subject.step(params, before, grads[0]) for _ in range(2)]
        require(same_bits(*made), "the same state gives two updates")
        now = (params, _plain(before), grads)
        require(same_bits(kept, jax.tree.map(np.array, now)), "an argument has changed")
    else:
        both = [subject.init(params) for _ in range(2)]
        require(same_bits(*both), "two calls of init differ")
        require(same_bits(params, subject.params()), "init changes the parameters")


def _plain(state: Any) -> Any:
    """Return a state with raw data in place of typed keys."""
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, state)


@declare(
    "P9",
    "jit, scan, vmap and 8 devices give the numbers of a plain loop, within its ulps",
    "eager",
    "scan",
    "vmap",
    "8 devices",
)
def ways_to_run(subject: Subject, cell: str) -> None:
    """Three steps one way, and three in a loop of compiled ones."""
    off = {
        "eager": _eager,
        "scan": _scanned,
        "vmap": _vmapped,
        "8 devices": _sharded,
    }[cell](subject)
    bound = subject.traits.ulps
    require(off <= bound, f"{off:.0f} ulps apart, where {bound} are declared")


def _eager(subject: Subject) -> float:
    params, grads = subject.params(), _gradients(subject, 2)
    state, made = subject.init(params), []
    loop = subject.run(params, grads)
    for g in grads:
        params, state, updates = subject.moved(params, state, g)
        made.append(updates)
    return max(gap(loop[0], params), gap(loop[2], made))


def _scanned(subject: Subject) -> float:
    params, grads = subject.params(), _gradients(subject)
    stacked = jax.tree.map(lambda *g: jnp.stack(g), *grads)

    def body(carry: Any, g: Any) -> Any:
        params, state = carry
        params, state, updates = subject.moved(params, state, g)
        return (params, state), updates

    run = jax.jit(lambda carry, stacked: jax.lax.scan(body, carry, stacked))
    (ended, _), made = run((params, subject.init(params)), stacked)
    loop = subject.run(params, grads)
    each = jax.tree.map(lambda *u: jnp.stack(u), *loop[2])
    return max(gap(loop[0], ended), gap(each, made))


def _vmapped(subject: Subject) -> float:
    grads = _gradients(subject, 2)
    scales = (1.0, 0.5, 2.0)
    stack = lambda trees: jax.tree.map(lambda *x: jnp.stack(x), *trees)
    plain = [
        jax.tree.map(lambda x, s=s: x * s, subject.plain(subject.params()))
        for s in scales
    ]
    many = stack([subject.own(p) for p in plain])
    fresh = stack([subject.init(subject.own(p)) for p in plain])

    def both(params: Any, state: Any) -> Any:
        made = []
        for g in grads:
            params, state, updates = subject.moved(params, state, g)
            made.append(updates)
        return params, made

    together = jax.jit(jax.vmap(both))(many, fresh)
    alone = []
    for p in plain:
        ended, _, made = subject.run(subject.own(p), grads)
        alone.append((ended, made))
    return max(gap(stack([a[i] for a in alone]), together[i]) for i in range(2))


def _sharded(subject: Subject) -> float:
    if jax.device_count() < 8:
        raise Unavailable("needs 8 devices: jax.config jax_num_cpu_devices")
    if subject.axis is not None:
        return 0.0  # its axis is mapped: `tests` of collectives have it
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:8]), ("data",))
    rows, everywhere = (
        jax.sharding.NamedSharding(mesh, spec) for spec in (jax.P("data"), jax.P())
    )
    shapes = {"w": (8, 3), "b": (3,)}
    draw = np.random.default_rng(8)
    plain = {k: draw.uniform(0.5, 1.5, s).astype("float32") for k, s in shapes.items()}
    grads = [
        {k: draw.normal(size=s).astype("float32") for k, s in shapes.items()}
        for _ in range(2)
    ]
    place = lambda tree: {
        "w": jax.device_put(tree["w"], rows),
        "b": jax.device_put(tree["b"], everywhere),
    }
    single = lambda tree: jax.tree.map(jnp.asarray, tree)
    alone = subject.run(subject.own(single(plain)), [single(g) for g in grads])
    spread = subject.run(subject.own(place(plain)), [place(g) for g in grads])
    host = lambda tree: jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), tree)
    return max(
        gap(host(alone[0]), host(spread[0])), gap(host(alone[2]), host(spread[2]))
    )


@declare(
    "P10",
    "a state saved and restored in a new process continues bit for bit",
    "float32",
    "bfloat16",
)
def resumes(subject: Subject, cell: str) -> None:
    """Three steps here, the state as bytes, ten steps there and here."""
    grads = [subject.grads(cell, seed) for seed in range(13)]
    params, state, _ = subject.run(subject.params(cell), grads[:3])
    here = subject.run(params, grads[3:], state)[:2]
    there = continued_elsewhere(subject, cell, params, state, grads[3:])
    ours = [np.asarray(x).tobytes() for x in jax.tree.leaves(_plain(here))]
    require(ours == there, "the restored run differs from the uninterrupted one")


@declare(
    "P11",
    "parameters, state and gradients can be donated right after init",
    "buffers",
    "step",
)
def donation(subject: Subject, cell: str) -> None:
    """No two leaves share a buffer, and a donated step takes them all."""
    params, grads = subject.params(), subject.grads()
    state = subject.init(params)
    if cell == "buffers":
        arrays = [x for x in jax.tree.leaves((params, _plain(state), grads)) if x.size]
        owned = [x.unsafe_buffer_pointer() for x in arrays]
        require(len(set(owned)) == len(owned), "two leaves share a buffer")
        return
    expected = subject.step(params, state, grads)
    with quiet_donation():
        # what update does not read, such as a value for later, is donated too
        step = jax.jit(subject.moved, donate_argnums=(0, 1, 2), keep_unused=True)
        made = step(params, state, grads)
    require(finite(made) or not finite(expected), "a donated step is not finite")
    require(gap(expected, made) <= subject.traits.ulps, "a donated step differs")
    floats = [x for x in jax.tree.leaves((params, state)) if bits(x)]
    require(all(x.is_deleted() for x in floats), "a donated buffer is still in use")
