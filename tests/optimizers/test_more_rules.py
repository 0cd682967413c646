"""200 steps against NumPy float64 and, where it means the same, optax; others, torch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax as _optax
import pytest
from optax import contrib

import gradtx
from tests.optimizers import _paths, _reference_more as R
from tests.optimizers._cases import DOUBLE, rising
from tests.optimizers._paths import falling, steep

optax: Any = _optax  # its updates are typed as numbers or trees

#: the real leaves of `_paths`
LEAVES = ("w", "s")
#: float32 against the truth: as `_cases.SINGLE`, three times for rules that divide
#: differences of near numbers (beliefs, Yogi's sums)
SINGLE = 5e-6


class Case(NamedTuple):
    """One optimizer in one form, as in `_cases`."""

    id: str
    rule: Callable[..., Any]
    arguments: Mapping[str, Any] = MappingProxyType({})
    rate: Any = falling
    optax: bool = True
    single: float = SINGLE


CASES = [
    Case("adabelief", R.adabelief, {"eps": 1e-8, "eps_root": 1e-8}),
    Case(
        "adabelief nesterov",
        R.adabelief,
        {"b1": 0.75, "eps_root": 1e-6, "nesterov": True},
    ),
    Case("acprop", R.acprop, {"eps_root": 1e-6, "weight_decay": 0.01}),
    Case("yogi", R.yogi),
    Case("adadelta", R.adadelta, {"weight_decay": 0.01}, steep),
    Case("adan", R.adan, {"weight_decay": rising}, optax=False),
    Case("novograd", R.novograd, {"weight_decay": 0.01}),
    Case("novograd scheduled", R.novograd, {"weight_decay": rising}, optax=False),
    Case("sm3", R.sm3, rate=0.1),
    Case("sm3 scheduled", R.sm3, {"momentum": 0.5}, optax=False),
    Case("sign_sgd", lambda: R.signum(0.0)),
    Case("signum", R.signum, {"beta": 0.75}),
    Case("adopt", R.adopt),
    Case("adopt plain", R.adopt, {"nesterov": True, "use_clipping": False, "b2": 0.9}),
    Case("ademamix", R.ademamix, {"weight_decay": 0.01}),
    Case("ademamix scheduled", R.ademamix, {"alpha": rising, "b3": 0.99}),
    Case("simplified_ademamix", R.simplified_ademamix, {"alpha": 2.0}),
    Case("optimistic_gradient_descent", R.optimistic, {"alpha": 0.5, "beta": 0.25}),
    Case(
        "optimistic_gradient_descent scheduled",
        R.optimistic,
        {"alpha": rising, "beta": 0.25},
        optax=False,
    ),
    Case("lars", R.lars, {"weight_decay": 0.01, "trust_coefficient": 0.1}),
    Case("lars nesterov", R.lars, {"nesterov": True, "eps": 1e-3}, steep),
    Case("lamb", R.lamb, {"weight_decay": 0.01}),
    Case("fromage", R.fromage, optax=False),  # which takes the root in float32
    Case("fromage constant", R.fromage, rate=0.05),
    Case("adafactor", R.adafactor),
    Case("adafactor factored", R.adafactor, {"min_dim_size_to_factor": 2}),
    Case(
        "adafactor full",
        R.adafactor,
        {
            "min_dim_size_to_factor": 2,
            "momentum": 0.75,
            "weight_decay_rate": 0.01,
            "multiply_by_parameter_scale": False,
            "dtype_momentum": None,
        },
    ),
    Case("adafactor offset", R.adafactor, {"decay_offset": 20}, optax=False),
]
every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)


def _make(case, library):
    name = case.id.split()[0]
    factory = getattr(library, name, None) or getattr(contrib, name)
    return factory(case.rate, **case.arguments)


def _walk(tx, apply_updates, dtype):
    start = {k: jnp.asarray(_paths.START[k], dtype) for k in LEAVES}
    noise = {k: jnp.asarray(_paths.NOISE[k], dtype) for k in LEAVES}

    def step(carry, drawn):
        params, state = carry
        grads = _paths.gradients(params, drawn)
        grads = jax.tree.map(lambda g: g.astype(dtype), grads)
        updates, state = tx.update(grads, state, params)
        params = apply_updates(params, updates)
        return (params, state), params

    taken = jax.jit(lambda: jax.lax.scan(step, (start, tx.init(start)), noise)[1])()
    return {
        k: np.concatenate([_paths.START[k][None], np.asarray(x)])
        for k, x in taken.items()
    }


def _truth(rule, rate):
    steps = {k: rule() for k in LEAVES}
    rate = rate if callable(rate) else lambda t, rate=rate: rate
    params = {k: _paths.START[k] for k in LEAVES}
    path = [params]
    for t in range(1, _paths.STEPS + 1):
        noise = {k: _paths.NOISE[k][t - 1] for k in LEAVES}
        grads = _paths.gradients(params, noise)
        params = {k: steps[k](params[k], grads[k], t, rate(t - 1)) for k in LEAVES}
        path.append(params)
    return {k: np.stack([at[k] for at in path]) for k in LEAVES}


def _expected(case):
    arguments = {k: v for k, v in case.arguments.items() if k != "dtype_momentum"}
    return _truth(lambda: case.rule(**arguments), case.rate)


@every
def test_float64_is_the_reference_and_float32_is_near_it(case):
    truth = _expected(case)
    with jax.enable_x64(True):
        double = _walk(_make(case, gradtx), gradtx.apply_updates, jnp.float64)
    assert _paths.strict_error(double, truth) <= DOUBLE
    single = _walk(_make(case, gradtx), gradtx.apply_updates, jnp.float32)
    # only leaves whose gradients do not feed rounding back; signs may turn on it
    if case.id.split()[0] not in ("sign_sgd", "signum"):
        gap = _paths.error({"s": single["s"]}, {"s": truth["s"]})
        assert gap <= case.single


@pytest.mark.usefixtures("lenient", "x64")
@pytest.mark.parametrize(
    "case", [c for c in CASES if c.optax], ids=lambda case: case.id
)
def test_float64_is_optax(case):
    ours = _walk(_make(case, gradtx), gradtx.apply_updates, jnp.float64)
    theirs = _walk(_make(case, optax), optax.apply_updates, jnp.float64)
    # optax's Adafactor has its decay in float32, off by up to 6e-8 of what remains
    bound = 1e-6 if case.id.startswith("adafactor") else DOUBLE
    assert _paths.strict_error(ours, theirs) <= bound


@pytest.mark.usefixtures("x64")
def test_rprop_is_the_reference():
    ours = _walk(gradtx.rprop(0.01), gradtx.apply_updates, jnp.float64)
    truth = _truth(lambda: R.rprop(0.01), 0.0)
    assert _paths.strict_error(ours, truth) <= DOUBLE


@pytest.mark.usefixtures("lenient", "x64")
def test_rprop_steps_at_once_where_optax_waits():
    # COMPATIBILITY.md, section 1.2: optax's first update is 0
    one = {"w": jnp.ones(1)}
    ours, theirs = gradtx.rprop(0.1), optax.rprop(0.1)
    first, _ = ours.update(one, ours.init(one))
    late, state = theirs.update(one, theirs.init(one))
    assert (float(first["w"][0]), float(late["w"][0])) == (-0.1, 0.0)
    late, _ = theirs.update(one, state)
    assert float(late["w"][0]) == -0.1


@pytest.mark.usefixtures("lenient", "x64")
def test_adan_looks_ahead_by_the_papers_coefficient():
    # ALGORITHMS.md, section 1, defect 1: optax takes 1 - b2 in its place
    ours = gradtx.scale_by_adan(b2=0.5)
    theirs = optax.scale_by_adan(b2=0.5)
    state, other = ours.init({"w": jnp.ones(2)}), theirs.init({"w": jnp.ones(2)})
    for g in (1.0, -2.0, 0.5):
        u, state = ours.update({"w": jnp.full(2, g)}, state)
        v, other = theirs.update({"w": jnp.full(2, g)}, other)
    np.testing.assert_allclose(u["w"], v["w"], rtol=1e-14)  # 1 - 0.5 is 0.5


@pytest.mark.usefixtures("lenient")
@pytest.mark.shipped  # the same bits as optax
def test_adadelta_without_a_rate_descends():
    one = {"w": jnp.ones(1)}
    updates = [
        tx.update(one, tx.init(one), one)[0]["w"][0]
        for tx in (gradtx.adadelta(), optax.adadelta())
    ]
    assert updates[0] == -updates[1] < 0


@pytest.mark.usefixtures("lenient", "x64")
@pytest.mark.parametrize("variant", ["sps", "sps+"])
def test_polyak_is_optax(variant):
    arguments = {"max_learning_rate": 0.7, "f_min": 0.25, "variant": variant}
    ours, theirs = gradtx.polyak_sgd(**arguments), optax.polyak_sgd(**arguments)
    p = q = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
    state, other = ours.init(p), theirs.init(q)

    def loss(params):
        return jnp.sum(params["w"] ** 2) + (params["b"] - 1) ** 4

    for _ in range(30):
        u, state = ours.update(jax.grad(loss)(p), state, p, value=loss(p))
        v, other = theirs.update(jax.grad(loss)(q), other, q, value=loss(q))
        p, q = gradtx.apply_updates(p, u), optax.apply_updates(q, v)
        np.testing.assert_allclose(p["w"], q["w"], rtol=1e-12)
    with pytest.raises(gradtx.MissingArgumentError, match="value=value"):
        ours.update(p, state, p)
    with pytest.raises(gradtx.ArgumentError, match="variant must be"):
        gradtx.polyak_sgd(variant="sps-")  # type: ignore[arg-type]


@pytest.mark.usefixtures("lenient", "x64")
@pytest.mark.parametrize("nesterov", [True, False])
def test_optimistic_adams_are_optax(nesterov):
    p = {"w": jnp.array([1.0, -2.0])}
    pairs = [
        (lambda o: o.optimistic_adam_v2(falling, alpha=0.5, nesterov=nesterov)),
        (lambda o: o.optimistic_adam(0.1, 0.2, nesterov=nesterov)),
    ]
    for make in pairs:
        ours = make(gradtx)
        old = make is pairs[1]
        with (
            pytest.warns(DeprecationWarning, match="optimistic_adam_v2")
            if old
            else contextlib.nullcontext()
        ):
            theirs = make(optax)
        a = b = p
        state, other = ours.init(a), theirs.init(b)
        for t in range(40):
            g = {"w": jnp.sin(jnp.array([1.0, 3.0]) * t) + 0.2}
            u, state = ours.update(g, state, a)
            v, other = theirs.update(g, other, b)
            a, b = gradtx.apply_updates(a, u), optax.apply_updates(b, v)
        np.testing.assert_allclose(a["w"], b["w"], rtol=1e-12)
    with pytest.raises(gradtx.ArgumentError, match="optimistic_adam_v2"):
        gradtx.optimistic_adam(falling)  # type: ignore[arg-type]
