"""One value of every public factory, for the tests that go over all of them.

A factory that is missing here fails `test_catalogue.py`. Required arguments get plain
values; everything else keeps its default, which the golden files then hold.
"""

from __future__ import annotations

import gradtx

TRANSFORMATIONS = {
    "accumulate": gradtx.accumulate(gradtx.adam(1e-3), every=2),
    "adagrad": gradtx.adagrad(1e-3),
    "adam": gradtx.adam(1e-3),
    "adamax": gradtx.adamax(1e-3),
    "adamaxw": gradtx.adamaxw(1e-3),
    "adamw": gradtx.adamw(1e-3),
    "adaptive_grad_clip": gradtx.adaptive_grad_clip(0.1),
    "add_decayed_weights": gradtx.add_decayed_weights(),
    "add_noise": gradtx.add_noise(0.1, 0.55, key=0),
    "amsgrad": gradtx.amsgrad(1e-3),
    "apply_if_finite": gradtx.apply_if_finite(gradtx.adam(1e-3), 3),
    "centralize": gradtx.centralize(),
    "chain": gradtx.chain(gradtx.clip(1.0), gradtx.sgd(0.1, momentum=0.9)),
    "clip": gradtx.clip(1.0),
    "clip_by_block_rms": gradtx.clip_by_block_rms(1.0),
    "clip_by_global_norm": gradtx.clip_by_global_norm(1.0),
    "conditionally_mask": gradtx.conditionally_mask(
        gradtx.adam(1e-3), gradtx.piecewise_constant_schedule(1.0, {1: 0.0})
    ),
    "conditionally_transform": gradtx.conditionally_transform(
        gradtx.adam(1e-3), gradtx.piecewise_constant_schedule(1.0, {1: 0.0})
    ),
    "ema": gradtx.ema(0.9),
    "flatten": gradtx.flatten(gradtx.adam(1e-3)),
    "freeze": gradtx.freeze(gradtx.path_matches("bias")),
    "identity": gradtx.identity(),
    "lion": gradtx.lion(1e-3),
    "masked": gradtx.masked(gradtx.adam(1e-3), gradtx.ndim_at_least(2)),
    "monitor": gradtx.monitor({"momentum": gradtx.trace(0.9)}),
    "nadam": gradtx.nadam(1e-3),
    "nadamw": gradtx.nadamw(1e-3),
    "named_chain": gradtx.named_chain(("first", gradtx.scale_by_rms())),
    "partition": gradtx.partition(
        {True: gradtx.adam(1e-3), False: gradtx.sgd(0.1)}, gradtx.ndim_at_least(2)
    ),
    "pmean_gradients": gradtx.pmean_gradients("data"),
    "radam": gradtx.radam(1e-3),
    "rmsprop": gradtx.rmsprop(1e-3),
    "scale": gradtx.scale(0.5),
    "scale_by_adam": gradtx.scale_by_adam(),
    "scale_by_adamax": gradtx.scale_by_adamax(),
    "scale_by_amsgrad": gradtx.scale_by_amsgrad(),
    "scale_by_learning_rate": gradtx.scale_by_learning_rate(1e-3),
    "scale_by_lion": gradtx.scale_by_lion(),
    "scale_by_radam": gradtx.scale_by_radam(),
    "scale_by_rms": gradtx.scale_by_rms(),
    "scale_by_rss": gradtx.scale_by_rss(),
    "scale_by_schedule": gradtx.scale_by_schedule(gradtx.constant_schedule(0.1)),
    "scale_by_sign": gradtx.scale_by_sign(),
    "scale_by_stddev": gradtx.scale_by_stddev(),
    "selective_transform": gradtx.selective_transform(
        gradtx.adam(1e-3), freeze_mask=gradtx.path_matches("bias")
    ),
    "set_to_zero": gradtx.set_to_zero(),
    "sgd": gradtx.sgd(1e-3),
    "trace": gradtx.trace(0.9),
    "zero_nans": gradtx.zero_nans(),
}

#: Factories of functions: what they make cannot be written down.
OPAQUE = {"measure_with_ema", "snapshot", "stateless", "stateless_with_tree_map"}
