"""Properties of numbers: finite in, finite out (P4, P5, P6, P7, P14)."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import scalar_dtype
from gradtx.testing._property import declare, require
from gradtx.testing._subject import Subject, finite, numbers, same_bits


def _still(updates: Any) -> bool:
    return all((x == 0).all() for x in numbers(updates))


def _filled(subject: Subject, dtype: str, value: float) -> Any:
    """Return gradients of one magnitude and of both signs."""
    signs = jax.tree.map(jnp.sign, subject.grads("float32"))
    return jax.tree.map(lambda s: (s * value).astype(dtype), signs)


def _check_finite(before: Any, after: Any, what: str) -> None:
    """Raise where a leaf that was finite is not any more."""
    leaves = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    require(all(finite(new) for old, new in leaves if finite(old)), what)


@declare(
    "P4",
    "a zero gradient gives finite numbers, and leaves parameters at zero where they are",
    "float16",
    "bfloat16",
    "float32",
    "complex64",
)
def zero_gradients(subject: Subject, cell: str) -> None:
    """Parameters are zero in one run, so that weight decay moves none of them."""
    if cell == "complex64" and not subject.traits.complex:
        return
    zeros = jax.tree.map(jnp.zeros_like, subject.grads(cell))
    for fill in (1.0, 0.0):
        params = subject.params(cell, fill)
        fresh = subject.init(params)
        _, state, made = subject.run(params, [zeros] * 3, fresh)
        _check_finite(fresh, state, "the state is not finite any more")
        require(finite(made), "an update is not finite")
    still = all(map(_still, made)) or subject.traits.stochastic
    require(still, "parameters at zero have moved")


EXTREMES = {
    "float32 1e20": ("float32", 1e20),
    "float32 max/2": ("float32", float(jnp.finfo("float32").max) / 2),
    "float32 1e-30": ("float32", 1e-30),
    "float32 denormal": ("float32", 1e-40),
    "float16 300": ("float16", 300.0),
    "float16 max/2": ("float16", 32752.0),
    "float16 1e-4": ("float16", 1e-4),
    "float16 denormal": ("float16", 1e-7),
    "bfloat16 1e20": ("bfloat16", 1e20),
    "bfloat16 max/2": ("bfloat16", float(jnp.finfo("bfloat16").max) / 2),
}


@declare(
    "P5",
    "a finite gradient keeps everything finite, and the next ones move parameters",
    *EXTREMES,
)
def extreme_gradients(subject: Subject, cell: str) -> None:
    """One gradient in which every element is extreme, then six normal ones."""
    dtype, value = EXTREMES[cell]
    params = subject.params(dtype)
    normal = [subject.grads(dtype, seed) for seed in range(1, 7)]
    fresh = subject.init(params)
    extreme = [_filled(subject, dtype, value)]
    _, state, made = subject.run(params, extreme, fresh)
    require(finite(made), "the update is not finite")
    _check_finite(fresh, state, "the state is not finite any more")
    _, state, made = subject.run(params, normal, state)
    require(finite(made), "a later update is not finite")
    if all(map(_still, made)):
        clean = _right_to_stand(subject, dtype, value, normal)
        require(clean, "all later updates are zero")


def _right_to_stand(
    subject: Subject, dtype: str, value: float, normal: list[Any]
) -> bool:
    """Say whether zeros are right: without an extreme gradient, or for want of range.

    What was extreme for a narrow dtype is not for float32, whose updates show whether
    the true ones can be told from zero.
    """
    first = subject.grads(dtype, 0)
    params = subject.params(dtype)
    if all(map(_still, subject.run(params, [first, *normal])[2][1:])):
        return True
    if dtype == "float32":
        return False
    wide = lambda tree: jax.tree.map(lambda x: x.astype("float32"), tree)
    extreme = wide(_filled(subject, dtype, value))
    run = subject.run(subject.params(), [extreme, *map(wide, normal)])[2][1:]
    smallest = float(jnp.finfo(dtype).smallest_subnormal) / 2
    return all((np.abs(x) <= smallest).all() for x in numbers(run))


BAD = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}


@declare(
    "P6",
    "one element that is not finite reaches no farther than declared, "
    "and a guard keeps it out",
    *BAD,
    "guarded nan",
    "guarded inf",
)
def not_finite(subject: Subject, cell: str) -> None:
    """Inject one bad element into each leaf in turn."""
    if cell.startswith("guarded"):
        _check_guarded(subject, BAD[cell.removeprefix("guarded ")])
        return
    reach = subject.traits.reach
    params = subject.params()
    for name in ("w", "b"):
        grads = subject.grads()
        grads[name] = _hurt(grads[name], BAD[cell])
        _, _, made = subject.run(params, [grads, subject.grads()])
        for updates in map(subject.plain, made):
            for other, u in updates.items():
                if other != name and reach != "tree":
                    require(finite(u), f"a {cell} in {name} reaches {other}")
            if reach == "element":
                rest = np.ravel(updates[name])[1:]
                require(
                    bool(np.isfinite(rest).all()), f"a {cell} reaches all of {name}"
                )


def _hurt(x: jax.Array, value: float) -> jax.Array:
    return x.at[(0,) * x.ndim].set(value)


def _check_guarded(subject: Subject, value: float) -> None:
    guarded = subject.kept(
        "guarded", lambda: subject.with_tx(subject.library.guard(subject.tx))
    )
    params = subject.params()
    good, bad = subject.grads(), subject.grads(seed=1)
    bad["w"] = _hurt(bad["w"], value)
    params, state, _ = guarded.run(params, [good])
    after, next_state, (updates,) = guarded.run(params, [bad], state)
    require(_still(updates), "the guard lets an update through")
    require(same_bits(params, after), "a left-out step moves parameters")
    same = same_bits(state.inner_state, next_state.inner_state)
    require(same, "a left-out step changes the state inside")


@declare("P7", "counters at 2^31-1 stay there, and updates stay finite", "top", "next")
def counters(subject: Subject, cell: str) -> None:
    """Set every integer scalar of the state to its largest number, or one below it."""
    top = int(jnp.iinfo(jnp.int32).max)
    start = top if cell == "top" else top - 1
    params = subject.params()
    fresh = subject.init(params)
    late = jax.tree.map(lambda x: jnp.full_like(x, start) if _counts(x) else x, fresh)
    _, state, made = subject.run(params, [subject.grads()] * 3, late)
    require(finite(made), "an update is not finite")
    _check_finite(fresh, state, "the state is not finite any more")
    counts = [x for x in jax.tree.leaves(state) if _counts(x)]
    require(all(int(x) >= 0 for x in counts), "a counter has wrapped around")


def _counts(x: Any) -> bool:
    return x.dtype == jnp.int32 and x.shape == ()


STEPS = 2000


@declare(
    "P14",
    "over 2,000 steps, the median update stays within 5 % of that in the next precision",
    "bfloat16",
    "float16",
    "x64 float32",
)
def long_runs(subject: Subject, cell: str) -> None:
    """The same gradients at the same parameters: what differs is the state."""
    above = "float64" if cell == "float32" else "float32"
    wide, narrow = (_median_update(subject, dtype) for dtype in (above, cell))
    least = float(jnp.finfo(cell).smallest_subnormal)
    wide = min(wide, float(jnp.finfo(cell).max))  # larger updates end there
    if wide < 20 * least:
        return  # the dtype has no number within 5 % of it
    close = abs(narrow - wide) <= 0.05 * wide
    require(close, f"the median update is {narrow:.3g}, in {above} {wide:.3g}")


def _median_update(subject: Subject, dtype: str) -> float:
    """Return the median, over elements, of the mean size of the last 200 updates."""
    key = f"median {dtype} {scalar_dtype()}"
    return subject.kept(key, lambda: _measured(subject, dtype))


def _measured(subject: Subject, dtype: str) -> float:
    def body(state: Any, grads: Any) -> Any:
        _, state, updates = subject.moved(params, state, grads)
        return state, jax.tree.map(jnp.abs, updates)

    def run(params: Any, state: Any, grads: Any) -> Any:
        return jax.lax.scan(body, state, grads)[1]

    params = subject.params(dtype)
    sizes = jax.jit(run)(
        params, subject.init(params), _noise(dtype, str(scalar_dtype()))
    )
    means = [np.mean(x[-200:], axis=0).ravel() for x in numbers(sizes)]
    return float(np.median(np.concatenate(means)))


@functools.cache
def _noise(dtype: str, widest: str) -> Any:
    del widest  # arrays made in one mode do not serve in the other
    draw = np.random.default_rng(14)
    shapes = {"w": (STEPS, 4, 3), "b": (STEPS, 3)}
    # the bits of bfloat16, which float16 and float32 hold exactly
    return {
        k: jnp.asarray(draw.normal(size=s)).astype("bfloat16").astype(dtype)
        for k, s in shapes.items()
    }
