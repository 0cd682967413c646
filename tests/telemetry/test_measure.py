"""Every metric equals what NumPy computes in float64, update by update."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import telemetry
from gradtx.telemetry._sample import MOST, strides
from tests.telemetry import _truth
from tests.telemetry._truth import Truth, assert_tells, leaves_of

FEW = {"dec": {"w": (3, 4)}, "enc": {"b": (4,), "w": (2, 3)}}
#: More leaves than are measured one by one; a path that sorts before its place in the
#: tree (10 after 2); one leaf of which only a sample is counted.
MANY = {
    "embed": (70, 61),
    "head": (5,),
    "layers": [{"b": (2,), "w": (2, 3)} for _ in range(11)],
}
LABELS = gradtx.label_paths({"^enc|^layers": "inner"}, default="outer")
MASK = gradtx.path_matches("w$")


def _inner_or_outer(path):
    return "inner" if path.startswith(("enc", "layers")) else "outer"


def _kernel_or_not(path):
    return str(path.endswith("w"))


def draw(shapes, seed, scale=1.0):
    """Return normal numbers of these shapes, of magnitudes over four octaves."""
    rng = np.random.default_rng(seed)
    made = lambda shape: jnp.asarray(
        scale * rng.normal(size=shape) * 2 ** rng.uniform(-2, 2, shape), jnp.float32
    )
    return jax.tree.map(made, shapes, is_leaf=lambda x: isinstance(x, tuple))


class Step(NamedTuple):
    """What went into one update and came out of it."""

    grads: Any
    updates: Any
    params: Any
    state: Any


def run(tx, shapes, changes: Any = None, steps=12, scale=1.0) -> list[Step]:
    """Train by gradients that `changes` may replace, by number of the update."""
    params = draw(shapes, 1000)
    state, made = tx.init(params), []
    update = jax.jit(tx.update)
    for i in range(steps):
        grads = draw(shapes, i, scale * (1 + i % 4))
        grads = (changes or {}).get(i, lambda g: g)(grads)
        updates, state = update(grads, state, params)
        made.append(Step(grads, updates, params, state))
        params = gradtx.apply_updates(params, updates)
    return made


def spoil(value, *path):
    """Return a function that puts a value into one element of a leaf."""

    def change(grads):
        if not path:
            return grads
        key, rest = path[0], path[1:]
        copy = list(grads) if isinstance(grads, list) else dict(grads)
        if rest:
            copy[key] = spoil(value, *rest)(copy[key])
        else:
            copy[key] = copy[key].at[(0,) * copy[key].ndim].set(value)
        return copy

    return change


def _norm(grads):
    return _truth.norm(leaves_of(grads).values())


def _momentum(state):
    return {"trace.trace": state.inner_state.trace.trace}


def _adam(state):
    adam = state.inner_state[-1].scale_by_adam
    path = "adam.scale_by_adam"
    return {f"{path}.mu": adam.mu, f"{path}.nu": adam.nu}


def _guarded(state):
    chain = state.inner_state.inner_state
    return {"inner_state.trace.trace": chain.trace.trace}


ALL = {"per_leaf": True, "histograms": True, "successive": True, "window": 4}
CLIP_ADAM = gradtx.chain(gradtx.clip_by_global_norm(8.0), gradtx.adam(0.01))
MOMENTUM = gradtx.chain(gradtx.trace(0.9), gradtx.scale_by_learning_rate(0.01))
LATER = gradtx.chain(
    gradtx.trace(0.9), gradtx.clip_by_global_norm(8.0), gradtx.scale(-0.1)
)
GUARDED = gradtx.apply_if_finite(LATER, 100)


class Case(NamedTuple):
    """An observed run, and what is known of it beforehand."""

    inner: Any
    shapes: Any
    given: dict[str, Any]  # to observe
    label: Any = None
    moments: Any = None
    rate: float | None = None
    clipped: Any = None  # tells whether an update was clipped, from its `Step`s
    changes: Any = None


def _first_clips(steps):
    return [_norm(s.grads) > 8.0 for s in steps]


def _later_clips(steps):
    """Return whether the momentum of what was not left out was too long."""
    momentum: Any = None
    found = []
    for s in steps:
        g = leaves_of(s.grads)
        good = math.isfinite(_norm(s.grads))
        if good:
            old = momentum or {k: np.zeros_like(x) for k, x in g.items()}
            momentum = {k: x + np.float64(0.9) * old[k] for k, x in g.items()}
        found.append(good and _truth.norm(momentum.values()) > 8.0)
    return found


CASES = {
    "clip first, every update": Case(
        CLIP_ADAM,
        FEW,
        {"every": 1, "groups": LABELS} | ALL,
        _inner_or_outer,
        _adam,
        0.01,
        _first_clips,
    ),
    "clip first, every third": Case(
        CLIP_ADAM,
        FEW,
        {"every": 3, "groups": MASK} | ALL,
        _kernel_or_not,
        _adam,
        0.01,
        _first_clips,
    ),
    "no clip, many leaves, every third": Case(
        MOMENTUM, MANY, {"every": 3, "groups": LABELS} | ALL, _inner_or_outer,
        _momentum, 0.01,
    ),
    "no clip, many leaves, every update": Case(
        MOMENTUM, MANY, {"every": 1, "groups": MASK, "window": 5}, _kernel_or_not,
        _momentum, 0.01,
    ),
    "guarded, clip inside and not first": Case(
        GUARDED,
        FEW,
        {"every": 3, "window": 4, "successive": True},
        None,
        _guarded,
        None,
        _later_clips,
        {4: spoil(np.nan, "enc", "b"), 6: spoil(np.inf, "dec", "w"),
         8: spoil(-np.inf, "enc", "w")},
    ),
}  # fmt: skip


@functools.cache
def ran(name) -> list[Step]:
    """Return the run of a case, made once."""
    case = CASES[name]
    tx = gradtx.observe(case.inner, **case.given)
    return run(tx, case.shapes, case.changes)


@pytest.mark.parametrize("name", CASES)
def test_every_metric_of_every_update_is_what_numpy_computes(name):
    case, steps = CASES[name], ran(name)
    truth = Truth(
        label=case.label, **{k: v for k, v in case.given.items() if k != "groups"}
    )
    clipped = case.clipped(steps) if case.clipped else [None] * len(steps)
    if case.clipped:
        assert {True, False} == set(clipped)
    finite = [_norm(s.grads) for s in steps if math.isfinite(_norm(s.grads))]
    skipped = 0
    for step, cut in zip(steps, clipped, strict=True):
        truth.see(step.grads, step.updates, step.params, case.moments(step.state), cut)
        skipped += not math.isfinite(_norm(step.grads))
        known = {} if case.rate is None else {"learning_rate": case.rate}
        known |= {"skipped_updates": skipped} if case.inner is GUARDED else {}
        found = telemetry.read(step.state)
        assert_tells(found, truth.read() | known, max(finite) ** 2)
        assert list(found) == telemetry.names(
            gradtx.observe(case.inner, **case.given), step.params
        )


def test_nothing_is_told_before_the_first_update():
    case = CASES["clip first, every third"]
    tx = gradtx.observe(case.inner, **case.given)
    params = draw(FEW, 0)
    found = telemetry.read(tx.init(params))
    assert list(found) == telemetry.names(tx, params)
    zero = {"updates", "measured_update", "clipped_updates", "nonfinite_updates"}
    for name, value in found.items():
        if name == "learning_rate":
            assert value == np.float32(0.01)
        elif name == "first_nonfinite":
            assert value == ""
        elif telemetry.METRICS[telemetry.parse(name).metric].kind == "histogram":
            np.testing.assert_array_equal(value.counts, 0)
        elif name in zero:
            assert value == 0, name
        else:
            assert math.isnan(value), name


def test_parameters_that_are_not_given_are_not_measured():
    tx = gradtx.observe(
        gradtx.sgd(0.1), every=1, groups=MASK, per_leaf=True, histograms=True
    )
    params, truth = draw(FEW, 0), Truth(1, _kernel_or_not, True, histograms=True)
    updates, state = tx.update(draw(FEW, 1), tx.init(params))
    truth.see(draw(FEW, 1), updates)
    expected = truth.read() | {"learning_rate": 0.1}
    zeros = [k for k in expected if k.startswith("param_histogram")]
    assert len(zeros) == 3
    assert_tells(telemetry.read(state), expected)
    assert math.isnan(telemetry.read(state)["param_norm"])


@pytest.mark.parametrize(
    "shape",
    [
        (),
        (0,),
        (4096,),
        (4097,),
        (3, 0, 2),
        (70, 61),
        (9, 9, 9, 9),
        (100000,),
        (1, 5000, 7),
    ],
)
def test_samples_are_evenly_spaced_and_few(shape):
    steps = strides(shape)
    x = np.zeros(shape, np.int8)[tuple(slice(None, None, n) for n in steps)]
    assert x.size == _truth.spaced(np.zeros(shape)).size <= MOST
    assert all(n == 1 or math.gcd(n, 210) == 1 for n in steps)
    assert x.size == math.prod(shape) or x.size > MOST / 16


def test_noise_of_known_size_is_found_within_its_standard_error():
    """Gradients G + n, n ~ N(0, Σ), have the variance tr Σ and the scale tr Σ / |G|²."""
    mean = np.linspace(-0.4, 0.6, 40, dtype=np.float32)
    deviation = np.linspace(0.1, 0.5, 40, dtype=np.float32)
    trace, square = np.sum(deviation**2.0), np.sum(mean**2.0)
    pairs = 400  # the first update has no gradient before it; no two pairs share one
    tx = gradtx.observe(
        gradtx.sgd(0.0), every=2, successive=True, window=pairs, moments=False,
        effective=False,
    )  # fmt: skip
    noise = jax.random.normal(jax.random.key(0), (2 * pairs + 1, 40)) * deviation[None]

    def step(state, n):
        return tx.update(n + mean, state, mean)[1], None

    state, _ = jax.jit(lambda n: jax.lax.scan(step, tx.init(mean), n))(noise)
    found = telemetry.read(state)
    # var(|n − n'|²/2) = 2 tr Σ², var((G + n)·(G + n')) = 2 GᵀΣG + tr Σ²
    fourth = np.sum(deviation**4.0)
    error = math.sqrt(2 * fourth / pairs)
    assert abs(found["gradient_variance"] - trace) < 3 * error
    of_square = math.sqrt((2 * np.sum(mean**2 * deviation**2.0) + fourth) / pairs)
    relative = math.hypot(error / trace, of_square / square)
    scale = trace / square
    assert abs(found["gradient_noise_scale"] - scale) < 3 * relative * scale
    assert relative < 0.1  # so a factor of two would be seen


def test_noise_alone_has_no_scale():
    tx = gradtx.observe(gradtx.sgd(0.0), every=1, successive=True)
    state = tx.init(jnp.zeros(2))
    for sign in (1.0, -1.0):
        _, state = tx.update(jnp.array([sign, 0.0]), state, jnp.zeros(2))
    found = telemetry.read(state)
    assert math.isnan(found["gradient_noise_scale"])
    assert found["gradient_variance"] == 2
    assert found["gradient_cosine"] == -1
