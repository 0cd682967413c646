"""One value of every public factory, for the tests that go over all of them.

A factory that is missing here fails `test_catalogue.py`. Required arguments get plain
values; everything else keeps its default, which the golden files then hold.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

import gradtx

TRANSFORMATIONS = {
    "accumulate": gradtx.accumulate(gradtx.adam(1e-3), every=2),
    "acprop": gradtx.acprop(1e-3),
    "adabelief": gradtx.adabelief(1e-3),
    "adadelta": gradtx.adadelta(),
    "adafactor": gradtx.adafactor(1e-3),
    "adagrad": gradtx.adagrad(1e-3),
    "adam": gradtx.adam(1e-3),
    "adamax": gradtx.adamax(1e-3),
    "adamaxw": gradtx.adamaxw(1e-3),
    "adamw": gradtx.adamw(1e-3),
    "adan": gradtx.adan(1e-3),
    "adaptive_grad_clip": gradtx.adaptive_grad_clip(0.1),
    "add_decayed_weights": gradtx.add_decayed_weights(),
    "add_noise": gradtx.add_noise(0.1, 0.55, key=0),
    "ademamix": gradtx.ademamix(1e-3),
    "adopt": gradtx.adopt(1e-3),
    "amsgrad": gradtx.amsgrad(1e-3),
    "apply_every": gradtx.apply_every(),
    "apply_if_finite": gradtx.apply_if_finite(gradtx.adam(1e-3), 3),
    "centralize": gradtx.centralize(),
    "chain": gradtx.chain(gradtx.clip(1.0), gradtx.sgd(0.1, momentum=0.9)),
    "clip": gradtx.clip(1.0),
    "clip_by_block_rms": gradtx.clip_by_block_rms(1.0),
    "clip_by_global_norm": gradtx.clip_by_global_norm(1.0),
    "cocob": gradtx.cocob(),
    "conditionally_mask": gradtx.conditionally_mask(
        gradtx.adam(1e-3), gradtx.piecewise_constant_schedule(1.0, {1: 0.0})
    ),
    "conditionally_transform": gradtx.conditionally_transform(
        gradtx.adam(1e-3), gradtx.piecewise_constant_schedule(1.0, {1: 0.0})
    ),
    "dadapt_adamw": gradtx.dadapt_adamw(),
    "dog": gradtx.dog(),
    "dowg": gradtx.dowg(),
    "differentially_private_aggregate": gradtx.differentially_private_aggregate(
        1.0, 1.0, key=0
    ),
    "dpsgd": gradtx.dpsgd(1e-3, 1.0, 1.0, seed=0),
    "ema": gradtx.ema(0.9),
    "flatten": gradtx.flatten(gradtx.adam(1e-3)),
    "freeze": gradtx.freeze(gradtx.path_matches("bias")),
    "fromage": gradtx.fromage(1e-3),
    "hutchinson_estimator_diag_hessian": gradtx.hutchinson_estimator_diag_hessian(),
    "galore": gradtx.galore(1e-3),
    "identity": gradtx.identity(),
    "keep_params_nonnegative": gradtx.keep_params_nonnegative(),
    "lamb": gradtx.lamb(1e-3),
    "lars": gradtx.lars(1e-3),
    "lbfgs": gradtx.lbfgs(),
    "lion": gradtx.lion(1e-3),
    "lookahead": gradtx.lookahead(gradtx.sgd(0.1, momentum=0.9), 5, 0.5),
    "madgrad": gradtx.madgrad(1e-2),
    "masked": gradtx.masked(gradtx.adam(1e-3), gradtx.ndim_at_least(2)),
    "mechanize": gradtx.mechanize(gradtx.adam(1.0)),
    "momo": gradtx.momo(),
    "momo_adam": gradtx.momo_adam(),
    "monitor": gradtx.monitor({"momentum": gradtx.trace(0.9)}),
    "muon": gradtx.muon(1e-3),
    "nadam": gradtx.nadam(1e-3),
    "nadamw": gradtx.nadamw(1e-3),
    "named_chain": gradtx.named_chain(("first", gradtx.scale_by_rms())),
    "noisy_sgd": gradtx.noisy_sgd(1e-3, key=0),
    "normalize": gradtx.normalize(),
    "normalize_by_update_norm": gradtx.normalize_by_update_norm(),
    "novograd": gradtx.novograd(1e-3),
    "optimistic_adam": gradtx.optimistic_adam(1e-3),
    "optimistic_adam_v2": gradtx.optimistic_adam_v2(1e-3),
    "optimistic_gradient_descent": gradtx.optimistic_gradient_descent(1e-3),
    "partition": gradtx.partition(
        {True: gradtx.adam(1e-3), False: gradtx.sgd(0.1)}, gradtx.ndim_at_least(2)
    ),
    "pmean_gradients": gradtx.pmean_gradients("data"),
    "polyak_sgd": gradtx.polyak_sgd(),
    "prodigy": gradtx.prodigy(),
    "radam": gradtx.radam(1e-3),
    "reduce_on_plateau": gradtx.reduce_on_plateau(),
    "rmsprop": gradtx.rmsprop(1e-3),
    "rprop": gradtx.rprop(1e-3),
    "sam": gradtx.sam(
        gradtx.sgd(0.1), gradtx.chain(gradtx.normalize(), gradtx.sgd(0.05))
    ),
    "scale": gradtx.scale(0.5),
    "scale_by_acprop": gradtx.scale_by_acprop(),
    "scale_by_adadelta": gradtx.scale_by_adadelta(),
    "scale_by_adam": gradtx.scale_by_adam(),
    "scale_by_adamax": gradtx.scale_by_adamax(),
    "scale_by_adan": gradtx.scale_by_adan(),
    "scale_by_ademamix": gradtx.scale_by_ademamix(),
    "scale_by_adopt": gradtx.scale_by_adopt(),
    "scale_by_amsgrad": gradtx.scale_by_amsgrad(),
    "scale_by_belief": gradtx.scale_by_belief(),
    "scale_by_cocob": gradtx.scale_by_cocob(),
    "scale_by_distance_over_gradients": gradtx.scale_by_distance_over_gradients(),
    "scale_by_dog": gradtx.scale_by_dog(),
    "scale_by_dowg": gradtx.scale_by_dowg(),
    "scale_by_factored_rms": gradtx.scale_by_factored_rms(),
    "scale_by_galore": gradtx.scale_by_galore(),
    "scale_by_backtracking_linesearch": gradtx.scale_by_backtracking_linesearch(
        5, store_grad=True
    ),
    "scale_by_lbfgs": gradtx.scale_by_lbfgs(),
    "scale_by_learning_rate": gradtx.scale_by_learning_rate(1e-3),
    "scale_by_lion": gradtx.scale_by_lion(),
    "scale_by_madgrad": gradtx.scale_by_madgrad(1e-2),
    "scale_by_muon": gradtx.scale_by_muon(),
    "scale_by_novograd": gradtx.scale_by_novograd(),
    "scale_by_optimistic_gradient": gradtx.scale_by_optimistic_gradient(),
    "scale_by_param_block_norm": gradtx.scale_by_param_block_norm(),
    "scale_by_param_block_rms": gradtx.scale_by_param_block_rms(),
    "scale_by_polyak": gradtx.scale_by_polyak(),
    "scale_by_radam": gradtx.scale_by_radam(),
    "scale_by_rms": gradtx.scale_by_rms(),
    "scale_by_rprop": gradtx.scale_by_rprop(1e-3),
    "scale_by_rss": gradtx.scale_by_rss(),
    "scale_by_schedule": gradtx.scale_by_schedule(gradtx.constant_schedule(0.1)),
    "scale_by_shape": gradtx.scale_by_shape(),
    "scale_by_sign": gradtx.scale_by_sign(),
    "scale_by_simplified_ademamix": gradtx.scale_by_simplified_ademamix(),
    "scale_by_sm3": gradtx.scale_by_sm3(),
    "scale_by_sophia": gradtx.scale_by_sophia(),
    "scale_by_stddev": gradtx.scale_by_stddev(),
    "scale_by_trust_ratio": gradtx.scale_by_trust_ratio(),
    "scale_by_yogi": gradtx.scale_by_yogi(),
    "scale_by_zoom_linesearch": gradtx.scale_by_zoom_linesearch(5),
    "schedule_free": gradtx.schedule_free(gradtx.sgd(0.1), 0.1),
    "schedule_free_adamw": gradtx.schedule_free_adamw(warmup_steps=5),
    "schedule_free_sgd": gradtx.schedule_free_sgd(),
    "selective_transform": gradtx.selective_transform(
        gradtx.adam(1e-3), freeze_mask=gradtx.path_matches("bias")
    ),
    "set_to_zero": gradtx.set_to_zero(),
    "sgd": gradtx.sgd(1e-3),
    "sign_sgd": gradtx.sign_sgd(1e-3),
    "signum": gradtx.signum(1e-3),
    "simplified_ademamix": gradtx.simplified_ademamix(1e-3),
    "sm3": gradtx.sm3(1e-3),
    "sophia": gradtx.sophia(1e-3),
    "split_real_and_imaginary": gradtx.split_real_and_imaginary(gradtx.adam(1e-3)),
    "trace": gradtx.trace(0.9),
    "yogi": gradtx.yogi(1e-3),
    "zero_nans": gradtx.zero_nans(),
}


def objective(params):
    """Return the sum of the squares of all floating leaves."""
    floats = [x for x in jax.tree.leaves(params) if jnp.issubdtype(x, jnp.inexact)]
    return sum((jnp.sum(jnp.square(x)).astype(float) for x in floats), jnp.zeros(()))


_VALUE = {"value": 1.0}
_OBJECTIVE = {"obj_fn": objective}
#: What the `update` of some needs besides updates, state and parameters.
EXTRA: dict[str, dict[str, Any]] = {
    "hutchinson_estimator_diag_hessian": _OBJECTIVE,
    "momo": _VALUE,
    "momo_adam": _VALUE,
    "polyak_sgd": _VALUE,
    "reduce_on_plateau": _VALUE,
    "scale_by_polyak": _VALUE,
    "scale_by_sophia": _OBJECTIVE,
    "sophia": _OBJECTIVE,
}

#: Those that search along a line, and want to know all of the objective. What their
#: states say of a search that has not been, or has found nothing, is infinite.
SEARCHES = {
    "lbfgs",
    "scale_by_backtracking_linesearch",
    "scale_by_zoom_linesearch",
}


def with_extra(name, update):
    """Return an `update` function with the arguments that it needs beyond three."""
    if name not in SEARCHES:
        return functools.partial(update, **EXTRA.get(name, {}))

    def searching(updates, state, params, **extra):
        known = {"value": 1.0, "grad": updates, "value_fn": objective}
        return update(updates, state, params, **known, **extra)

    return searching


#: Those that want something else than plain updates of plain parameters around them: a
#: mapped axis, a pair of parameters, a gradient per example. They have these tests of
#: their own.
APART = {
    "differentially_private_aggregate",
    "dpsgd",
    "lookahead",
    "pmean_gradients",
}

#: Factories of functions: what they make cannot be written down.
OPAQUE = {"measure_with_ema", "snapshot", "stateless", "stateless_with_tree_map"}
