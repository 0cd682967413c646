"""A guard around a small optimizer, in plain Python, and the faults to try it with."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from gradtx import Count, Key, PerParam

SHAPES = {"b": (2,), "w": (3,)}
SIZE = 5
F32 = np.float32


class InnerState(NamedTuple):
    count: Count
    key: Key
    mu: PerParam
    nu: PerParam


def inner() -> gradtx.GradientTransformation:
    """Return an optimizer whose arithmetic is exact, so that bits can be told.

    All factors are powers of two. A finite gradient may make `nu` overflow, and
    `poison=` is added to the updates.
    """

    def init(params):
        zeros = lambda: jax.tree.map(jnp.zeros_like, params)
        key = jnp.full((), 7, jnp.uint32)
        return InnerState(jnp.zeros((), jnp.int32), key, zeros(), zeros())

    def update(updates, state, params=None, *, poison=0.0, **extra):
        mu = jax.tree.map(lambda m, g: 0.5 * m + g, state.mu, updates)
        nu = jax.tree.map(lambda n, g: 0.5 * n + g * g, state.nu, updates)
        made = jax.tree.map(lambda m: -0.25 * m + poison, mu)
        key = state.key * jnp.uint32(1664525) + jnp.uint32(1013904223)
        return made, InnerState(state.count + 1, key, mu, nu)

    return gradtx.GradientTransformation(init, update)


class Model:
    """What `guarded` around `inner` does, step by step."""

    def __init__(self, policy: dict[str, Any]):
        self.policy = policy
        self.params = np.ones(SIZE, F32)
        self.inner = (0, 7, np.zeros(SIZE, F32), np.zeros(SIZE, F32))
        self.batches = self.consecutive = self.recovery = self.back_offs = 0
        self.kinds = [0, 0, 0, 0]
        self.factor, self.window, self.entries = 1.0, np.zeros(policy["window"], F32), 0
        self.snapshot, self.age = (self.params, self.inner), 0
        self.roll_backs = self.attempts = 0
        self.rolled_back = self.exhausted = self.tie = False

    @np.errstate(over="ignore", invalid="ignore")
    def step(self, grad: np.ndarray, value: float, poison: float) -> None:
        count, key, mu, nu = self.inner
        mu, nu = F32(0.5) * mu + grad, F32(0.5) * nu + grad * grad
        made, key = F32(-0.25) * mu + F32(poison), (key * 1664525 + 1013904223) % 2**32
        watched = value
        if self.policy["watch"] == "norm":
            watched = float(F32(np.sqrt(np.sum(grad.astype(float) ** 2))))
        reasons = [
            not np.isfinite(grad).all(),
            not np.isfinite(value),
            not all(np.isfinite(x).all() for x in (made, mu, nu)),
            self.is_spike(watched),
        ]
        bad = any(reasons)
        self.batches += 1
        self.rolled_back = False
        if bad:
            self.kinds[reasons.index(True)] += 1
            self.consecutive, self.recovery = self.consecutive + 1, 0
            lowered = max(
                self.factor * self.policy["back_off"], self.policy["smallest"]
            )
            self.back_offs += lowered < self.factor
            self.factor = lowered
            after = self.policy["roll_back_after"]
            if after and self.consecutive % after == 0:
                self.params, self.inner = self.snapshot
                self.rolled_back, self.age = True, 0
                self.roll_backs, self.attempts = self.roll_backs + 1, self.attempts + 1
        else:
            if (
                self.policy["roll_back_after"]
                and self.age >= self.policy["snapshot_every"]
            ):
                self.snapshot, self.age, self.attempts = (self.params, self.inner), 0, 0
            self.age, self.consecutive = self.age + 1, 0
            self.params = self.params + F32(self.factor) * made
            self.inner = (count + 1, key, mu, nu)
            self.window = self.window.copy()
            self.window[self.entries % len(self.window)] = watched
            self.entries, self.recovery = self.entries + 1, self.recovery + 1
            if self.recovery >= self.policy["recover_after"] and self.factor < 1:
                self.factor = min(1.0, self.factor / self.policy["back_off"])
                self.recovery = 0
        limit, each = self.policy["raise_after"], self.policy["roll_back_after"]
        self.exhausted = self.consecutive >= limit
        self.exhausted |= bool(each) and self.attempts * each >= limit

    def is_spike(self, value: float) -> bool:
        seen = self.window[: self.entries].astype(float)
        if self.entries < self.policy["warm_up"] or not seen.any():
            return False
        mean, spread = seen.mean(), max(seen.std(), 1e-6 * abs(seen.mean()))
        limit = mean + self.policy["sigmas"] * spread
        # so near, rounding decides, and the model cannot know
        self.tie |= abs(value - limit) < 1e-6 * abs(limit)
        return value > limit

    def seen(self) -> dict[str, Any]:
        """Return all there is to compare, by the names of `flat`."""
        told = {
            "batches": self.batches,
            "skipped": sum(self.kinds),
            "kinds": self.kinds,
            "consecutive": self.consecutive,
            "recovery": self.recovery,
            "factor": self.factor,
            "back_offs": self.back_offs,
            "entries": self.entries,
            "window": self.window,
            "roll_backs": self.roll_backs,
            "rolled_back": self.rolled_back,
            "exhausted": self.exhausted,
            "params": self.params,
        }
        told |= {f"inner {i}": x for i, x in enumerate(self.inner)}
        if self.policy["roll_back_after"]:
            params, state = self.snapshot
            told |= {"age": self.age, "attempts": self.attempts, "saved": params}
            told |= {f"saved {i}": x for i, x in enumerate(state)}
        return told


def flat(params: Any, state: Any) -> dict[str, Any]:
    """Return all there is to compare of parameters and a guard's state."""
    join = lambda tree: jnp.concatenate(jax.tree.leaves(tree))
    parts = lambda s: [s.count, s.key, join(s.mu), join(s.nu)]
    kinds = [state.bad_gradients, state.bad_losses, state.bad_updates, state.spikes]
    names = ["batches", "skipped", "consecutive", "recovery", "factor", "back_offs"]
    names += ["entries", "window", "roll_backs", "rolled_back", "exhausted"]
    told = {name: getattr(state, name) for name in names}
    told |= {"kinds": jnp.stack(kinds), "params": join(params)}
    told |= {f"inner {i}": x for i, x in enumerate(parts(state.inner_state))}
    if state.snapshot != ():
        told |= {"age": state.snapshot_age, "attempts": state.attempts}
        told |= {"saved": join(state.snapshot.params)}
        saved = parts(state.snapshot.inner_state)
        told |= {f"saved {i}": x for i, x in enumerate(saved)}
    return told


def tree(vector: Any) -> dict[str, Any]:
    """Return the tree of the parameters that a vector holds."""
    return {"b": vector[:2], "w": vector[2:]}


def faults(seed: int, sequences: int, steps: int) -> tuple[Any, Any, Any]:
    """Return gradients, losses and poisons with faults, alone and in runs."""
    draw = np.random.default_rng(seed)
    shape = (sequences, steps)
    grads = draw.integers(-6, 7, (*shape, SIZE)).astype(F32)
    values = draw.integers(8, 16, shape).astype(F32)
    poisons = np.zeros(shape, F32)
    stormy = np.zeros(shape, bool)  # weather in which most steps are bad
    for t in range(1, steps):
        turn = draw.random(sequences) < 0.15
        stormy[:, t] = stormy[:, t - 1] ^ turn
    bad = draw.random(shape) < np.where(stormy, 0.8, 0.08)
    kind = np.where(bad, draw.integers(1, 6, shape), 0)
    where = draw.integers(0, SIZE, shape)
    what = draw.choice(np.array([np.nan, np.inf, -np.inf], F32), shape)
    rows, columns = np.nonzero(kind == 1)
    grads[rows, columns, where[rows, columns]] = what[rows, columns]
    rows, columns = np.nonzero(kind == 2)
    grads[rows, columns, where[rows, columns]] = 2.0**100
    grads[kind == 3] *= 1024
    values[kind == 3] *= 1024
    values[kind == 4] = what[kind == 4]
    poisons[kind == 5] = what[kind == 5]
    return grads, values, poisons
