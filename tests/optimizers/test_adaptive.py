"""Optimizers that set their own step: 200 steps against NumPy float64 and optax."""

from __future__ import annotations

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
from tests.optimizers import (
    _paths,
    _reference_adaptive as R,
    _reference_wrapping as W,
)
from tests.optimizers._cases import DOUBLE
from tests.optimizers._paths import falling

optax: Any = _optax  # its updates are typed as numbers or trees

LEAVES = ("w", "s")
#: float32 against the truth: as `_cases.SINGLE`, ten times for steps that are quotients
#: of sums over all leaves, whose errors every element shares
SINGLE = 1.5e-5


class Case(NamedTuple):
    """One optimizer in one form, as in `_cases`."""

    id: str
    rule: Callable[..., Any]
    arguments: Mapping[str, Any] = MappingProxyType({})
    rate: Any = falling
    optax: float | None = DOUBLE
    single: float = SINGLE
    make: Callable[[Any], Any] | None = None
    optax_arguments: Mapping[str, Any] | None = None


def _ldog(library):
    return library.scale_by_distance_over_gradients(
        reps_rel=1e-3, param_dtype=None, global_scale=-0.5
    )


#: optax has a root of the count, or a weight of 0 or beta, in float32
HALF = 2**-23
#: float32 where the distance travelled is fed back into the step, which so grows by a
#: power: so do the errors of the first steps
FED_BACK = 1e-4
ADAPT = {"lower_bound": 0.25, "weight_decay": 0.01, "adapt_lower_bound": True}
CORRECTED = {"bias_correction": True}
CASES = [
    Case("cocob", R.cocob, {"alpha": 10.0, "weight_decay": 0.01}, single=FED_BACK),
    Case("dadapt_adamw", R.dadapt_adamw, {"estim_lr0": 1e-3}, optax=None),
    Case(
        "dadapt_adamw corrected",
        R.dadapt_adamw,
        {"estim_lr0": 1e-3, "weight_decay": 0.01, "eps": 1e-6, **CORRECTED},
        optax_arguments={"estim_lr0": 1e-3, "weight_decay": 0.01, "eps": 1e-6},
    ),
    Case(
        "dadapt_adamw bounded",
        R.dadapt_adamw,
        {"estim_lr0": 1e-3, "growth_rate": 1.02},
        optax=None,
    ),
    Case("prodigy", R.prodigy, {"estim_lr0": 1e-3}, optax=None),
    Case(
        "prodigy corrected",
        R.prodigy,
        {"estim_lr0": 1e-3, "weight_decay": 0.01, "beta3": 0.9, **CORRECTED},
        optax_arguments={"estim_lr0": 1e-3, "weight_decay": 0.01, "beta3": 0.9},
    ),
    Case(
        "prodigy safeguarded",
        R.prodigy,
        {"estim_lr0": 1e-3, "safeguard_warmup": True, "estim_lr_coef": 0.5} | CORRECTED,
        single=FED_BACK,
        optax_arguments={
            "estim_lr0": 1e-3,
            "safeguard_warmup": True,
            "estim_lr_coef": 0.5,
        },
    ),
    Case(
        "dog",
        R.dog,
        {"init_step": ("heuristic", 1e-2), "weight_decay": 0.01},
        single=FED_BACK,
    ),
    Case("dog distance", R.dog, {"init_step": ("distance", 0.25)}, single=FED_BACK),
    Case("dog rate", R.dog, {"init_step": ("learning_rate", 0.25), "eps": 0.0}),
    Case("dowg", R.dowg, {"weight_decay": 0.01}, single=FED_BACK),
    Case("dowg distance", R.dowg, {"init_estim_sq_dist": 0.25}, single=FED_BACK),
    Case(
        "scale_by_distance_over_gradients",
        lambda: R.layerwise_dog(1e-3),
        rate=0.5,
        make=_ldog,
        single=FED_BACK,
    ),
    Case("madgrad", R.madgrad, {"weight_decay": 0.01}, optax=HALF),
    Case("madgrad plain", R.madgrad, {"momentum": 0.0}, rate=0.05, optax=HALF),
    Case("momo", R.momo, {"weight_decay": 0.01}, optax=HALF),
    Case("momo adapting", R.momo, ADAPT, optax=HALF),
    Case("momo_adam", R.momo_adam, {"weight_decay": 0.01}, optax=HALF),
    Case("momo_adam adapting", R.momo_adam, ADAPT, optax=HALF),
    Case(
        "mechanize",
        lambda: W.mechanic_sgd(s_init=1e-2),
        make=lambda o: _of(o, "mechanize")(o.sgd(falling), s_init=1e-2),
    ),
    Case(
        "mechanize undecayed",
        lambda: W.mechanic_sgd(0.0, s_init=1e-2, num_betas=3),
        make=lambda o: _of(o, "mechanize")(
            o.sgd(falling), weight_decay=0.0, s_init=1e-2, num_betas=3
        ),
    ),
    Case("schedule_free_sgd", W.schedule_free, {"b1": 0.8}, rate=0.05),
    Case(
        "schedule_free_adamw",
        lambda weight_decay: W.schedule_free(b2=0.999, weight_decay=weight_decay),
        {"weight_decay": 0.01},
        rate=0.05,
    ),
    Case(
        "schedule_free_adamw warmed",
        lambda warmup_steps: W.schedule_free(b2=0.999),
        {"warmup_steps": 20},
        rate=lambda t: 0.05 * np.minimum((t + 1) / 20, 1),
        optax=None,
        make=lambda o: o.schedule_free_adamw(0.05, 20),
    ),
]
every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)


def _of(library, name):
    return getattr(library, name, None) or getattr(contrib, name)


def _make(case, library):
    if case.make is not None:
        return case.make(library)
    arguments = case.arguments
    if library is optax and case.optax_arguments is not None:
        arguments = case.optax_arguments
    return _of(library, case.id.split()[0])(case.rate, **arguments)


def _value(t):
    return 4.0 + 2.0 * np.sin(0.25 * t)


def _walk(tx, apply_updates, dtype):
    start = {k: jnp.asarray(_paths.START[k], dtype) for k in LEAVES}
    noise = {k: jnp.asarray(_paths.NOISE[k], dtype) for k in LEAVES}
    values = jnp.asarray(_value(np.arange(_paths.STEPS)), dtype)

    def step(carry, drawn):
        params, state = carry
        drawn, value = drawn
        grads = _paths.gradients(params, drawn)
        grads = jax.tree.map(lambda g: g.astype(dtype), grads)
        updates, state = tx.update(grads, state, params, value=value)
        params = apply_updates(params, updates)
        return (params, state), params

    carry = (start, tx.init(start))
    taken = jax.jit(lambda: jax.lax.scan(step, carry, (noise, values))[1])()
    return {
        k: np.concatenate([_paths.START[k][None], np.asarray(x)])
        for k, x in taken.items()
    }


def _truth(case):
    rule = case.rule(**case.arguments)
    rate = case.rate if callable(case.rate) else lambda t: case.rate
    params = {k: _paths.START[k] for k in LEAVES}
    path = [params]
    for t in range(1, _paths.STEPS + 1):
        noise = {k: _paths.NOISE[k][t - 1] for k in LEAVES}
        grads = _paths.gradients(params, noise)
        params = rule(params, grads, t, rate(t - 1), _value(t - 1))
        path.append(params)
    return {k: np.stack([at[k] for at in path]) for k in LEAVES}


@every
def test_float64_is_the_reference_and_float32_is_near_it(case):
    truth = _truth(case)
    with jax.enable_x64(True):
        double = _walk(_make(case, gradtx), gradtx.apply_updates, jnp.float64)
    assert _paths.error(double, truth) <= DOUBLE
    single = _walk(_make(case, gradtx), gradtx.apply_updates, jnp.float32)
    assert _paths.error({"s": single["s"]}, {"s": truth["s"]}) <= case.single


@pytest.mark.usefixtures("lenient", "x64")
@pytest.mark.parametrize(
    "case", [c for c in CASES if c.optax is not None], ids=lambda case: case.id
)
def test_float64_is_optax(case):
    ours = _walk(_make(case, gradtx), gradtx.apply_updates, jnp.float64)
    other: Any = _make(case, optax)
    wrapped = optax.GradientTransformationExtraArgs(
        other.init, optax.with_extra_args_support(other).update
    )
    theirs = _walk(wrapped, optax.apply_updates, jnp.float64)
    assert _paths.error(ours, theirs) <= case.optax


def test_a_first_gradient_of_zero_leaves_the_estimate_alone():
    # COMPATIBILITY.md, section 4, 5: optax's update or estimate is NaN from then on
    params = {"w": jnp.ones(2)}
    for tx in (gradtx.prodigy(), gradtx.dadapt_adamw()):
        state = tx.init(params)
        for g in (0.0, 0.0, 1.0):
            updates, state = tx.update({"w": jnp.full(2, g)}, state, params)
            assert jnp.isfinite(updates["w"]).all()
        assert jnp.isfinite(state.estim_lr)


@pytest.mark.parametrize("factory", [gradtx.prodigy, gradtx.dadapt_adamw])
def test_scalars_of_half_precision_parameters_are_float32(factory):
    state = jax.eval_shape(factory().init, jax.ShapeDtypeStruct((2,), jnp.bfloat16))
    assert state.estim_lr.dtype == state.numerator_weighted.dtype == jnp.float32
    assert state.exp_avg_sq.dtype == jnp.float32


def test_the_step_in_use_can_be_read():
    params = {"w": jnp.ones(3)}
    for tx in (
        gradtx.prodigy(0.5),
        gradtx.dadapt_adamw(0.5),
        gradtx.madgrad(0.5),
        gradtx.momo(0.5),
        gradtx.momo_adam(0.5),
        gradtx.dog(0.5),
        gradtx.dowg(0.5),
        gradtx.sophia(0.5),
        gradtx.cocob(0.5),
        gradtx.schedule_free_sgd(0.5),
    ):
        rate = float(gradtx.learning_rate(tx.init(params)))
        estimated = tx.name in ("prodigy", "dadapt_adamw")
        assert rate == pytest.approx(0.5e-6 if estimated else 0.5, rel=1e-6)


@pytest.mark.parametrize("factory", [gradtx.momo, gradtx.momo_adam])
def test_momo_asks_for_the_value(factory):
    tx, params = factory(), {"w": jnp.ones(2)}
    with pytest.raises(gradtx.MissingArgumentError, match="value=value"):
        tx.update(params, tx.init(params), params)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gradtx.dog(init_step=("guess", 1.0)), "scale_by_dog: init_step must"),  # type: ignore[arg-type]
        (lambda: gradtx.dowg(eps=-1.0), "eps must be 0 or more"),
        (lambda: gradtx.prodigy(estim_lr0=0.0), "estim_lr0 must be positive"),
        (lambda: gradtx.dadapt_adamw(betas=(0.9, 1.0)), "b2 must lie in"),
        (lambda: gradtx.madgrad(0.1, momentum=1.0), "momentum must lie in"),
        (lambda: gradtx.momo(beta=1.0), "beta must lie in"),
        (lambda: gradtx.cocob(alpha=0.0), "alpha must be positive"),
        (lambda: gradtx.sophia(0.1, update_interval=0), "update_interval must be"),
        (lambda: gradtx.schedule_free_sgd(warmup_steps=0), "warmup_steps must be"),
        (
            lambda: gradtx.schedule_free_sgd(falling, warmup_steps=2),
            "give a number as learning_rate",
        ),
    ],
)
def test_a_senseless_argument_raises_at_once(make, message):
    with pytest.raises(gradtx.ArgumentError, match=message):
        make()
