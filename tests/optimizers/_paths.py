"""Walk 200 steps of one problem with gradtx, optax or a NumPy reference.

A path is `{leaf: (STEPS + 1, *shape)}`, start included. The leaf `w` fits noisy least
squares, so that errors feed back into its gradients; `s` and the complex `z` get
gradients drawn beforehand, the same for everyone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
import numpy as np

from tests.optimizers import _reference

#: "double" is float64; "single" float32 with 32-bit scalars; "matched" float32 leaves
#: with 64-bit scalars, where optax's `1 − b**t` is as exact as gradtx's is anywhere.
Mode: TypeAlias = Literal["double", "single", "matched"]
Path: TypeAlias = dict[str, np.ndarray]

STEPS = 200
LEAVES: dict[Mode, tuple[str, ...]] = {
    "double": ("w", "s", "z"),
    "single": ("s", "z"),
    "matched": ("s",),
}


def _drawn() -> tuple[Path, Path, np.ndarray, np.ndarray]:
    """Draw start, noise or gradients by step, and the normal equations."""
    rng = np.random.default_rng(2026)
    inputs = np.concatenate([rng.normal(size=(16, 4)), np.ones((16, 1))], axis=1)
    targets = inputs @ rng.normal(size=(5, 3))
    t = np.arange(STEPS)
    columns = rng.normal(size=(STEPS, 8))
    columns[:, 1] += 0.5
    columns[:, 2] *= 4 * 2 ** (-t / 50)  # the largest squares come first
    columns[:, 3] *= 2 ** (t / 50) / 4  # and last
    columns[:20, 4] = 0
    columns[t % 10 != 3, 5] = 0
    columns[:, 6] = (-1.0) ** t * (1 + 0.1 * columns[:, 6])
    columns[:, 7] *= 1e-3  # of the size of an eps
    noise = {
        "w": 0.3 * rng.normal(size=(STEPS, 5, 3)),
        "s": columns,
        "z": (rng.normal(size=(STEPS, 2, 2)) + 0.3) @ np.array([1, 1j]),
    }
    start = {
        "w": 0.5 * rng.normal(size=(5, 3)),
        "s": np.array([0.25, -0.25, 0.125, 0.0, 0.125, 0.25, 0.0, 0.0]),
        "z": np.array([0.25 + 0.125j, -0.25j]),
    }
    # numbers that float32 holds, so that all precisions see the same gradients
    noise, start = (
        {k: single(x).astype(x.dtype) for k, x in tree.items()}
        for tree in (noise, start)
    )
    return start, noise, inputs.T @ inputs / 16, inputs.T @ targets / 16


def falling(t: Any) -> Any:
    """Return a learning rate that differs at every step; each is exact in float32."""
    return 0.125 * (1 - t / 256)


def steep(t: Any) -> Any:
    """Return eight times `falling`, for rules whose steps are short.

    The way travelled must be as long as the parameters are large: the rounding of a
    float32 parameter would hide the rule's own otherwise.
    """
    return 8 * falling(t)


def single(x: np.ndarray) -> np.ndarray:
    """Return `x` in 32 bits for each real number."""
    return x.astype(np.complex64 if np.iscomplexobj(x) else np.float32)


def gradients(params: dict[str, Any], noise: dict[str, Any]) -> dict[str, Any]:
    """Return the gradients at `params`, NumPy's or JAX's, given one step's noise."""
    found = dict(noise)
    if "w" in params:
        found["w"] = HESSIAN @ params["w"] - TARGET + noise["w"]
    return found


def walk_jax(
    txs: dict[str, Any], apply_updates: Callable[..., Any], mode: Mode
) -> dict[str, Path]:
    """Take `STEPS` steps with transformations of gradtx or optax, each on its own.

    They share one scan: one program compiles four times faster than one for each.
    """
    with jax.enable_x64(mode != "single"):
        stored = (lambda x: x) if mode == "double" else single
        start = {k: jax.numpy.asarray(stored(START[k])) for k in LEAVES[mode]}
        noise = {k: stored(NOISE[k]) for k in LEAVES[mode]}

        def step(carry, drawn):
            for name, (params, state) in carry.items():
                grads = gradients(params, drawn)
                updates, state = txs[name].update(grads, state, params)
                carry = carry | {name: (apply_updates(params, updates), state)}
            return carry, {name: params for name, (params, _) in carry.items()}

        def walk(start, noise):
            carry = {name: (start, tx.init(start)) for name, tx in txs.items()}
            return jax.lax.scan(step, carry, noise)[1]

        taken = jax.jit(walk)(start, noise)
    paths = {}
    for name, leaves in taken.items():
        for leaf, x in leaves.items():
            assert x.dtype == start[leaf].dtype, f"{name}: {leaf} changed its dtype"
        paths[name] = {
            leaf: np.concatenate([START[leaf][None], np.asarray(x)])
            for leaf, x in leaves.items()
        }
    return paths


def walk_numpy(steps: dict[str, _reference.Step], rate: Callable[[int], float]) -> Path:
    """Take `STEPS` steps in float64 with a rule of `_reference` for every leaf."""
    params, path = START, [START]
    for t in range(1, STEPS + 1):
        grads = gradients(params, {k: x[t - 1] for k, x in NOISE.items()})
        params = {
            k: step(params[k], grads[k], t, rate(t - 1)) for k, step in steps.items()
        }
        path.append(params)
    return {k: np.stack([params[k] for params in path]) for k in START}


def error(ours: Path, theirs: Path) -> float:
    """Return the largest difference over the largest distance travelled.

    Both are taken over a whole leaf and the worst leaf counts. Leaves that one of the
    two paths lacks are left out.
    """
    return _error(ours, theirs, axis=None)


def strict_error(ours: Path, theirs: Path) -> float:
    """Return what `error` does, element by element: the worst element counts.

    One that moves little is not excused by its neighbour that moves far.
    """
    return _error(ours, theirs, axis=0)


def _error(ours: Path, theirs: Path, axis: int | None) -> float:
    worst = []
    for name in ours.keys() & theirs.keys():
        assert ours[name].shape == theirs[name].shape
        distance = abs(theirs[name] - theirs[name][0]).max(axis=axis)
        assert np.all(distance > 0), f"{name} stood still"
        worst.append(np.max(abs(ours[name] - theirs[name]).max(axis=axis) / distance))
    assert worst, "the paths share no leaf"
    return float(np.max(worst))  # NaN if any is


START, NOISE, HESSIAN, TARGET = _drawn()
