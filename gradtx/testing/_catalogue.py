"""One value of every public factory, for what goes over all transformations."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from gradtx.core import GradientTransformation


@functools.cache
def catalogue() -> Mapping[str, GradientTransformation]:
    """Return one transformation of every public factory, by the factory's name.

    Required arguments have plain values; everything else keeps its default.

    Example:
      >>> import gradtx
      >>> gradtx.testing.catalogue()["lion"]
      lion(0.001)
    """
    import gradtx as g

    return {
        "accumulate": g.accumulate(g.adam(1e-3), every=2),
        "acprop": g.acprop(1e-3),
        "adabelief": g.adabelief(1e-3),
        "adadelta": g.adadelta(),
        "adafactor": g.adafactor(1e-3),
        "adagrad": g.adagrad(1e-3),
        "adam": g.adam(1e-3),
        "adamax": g.adamax(1e-3),
        "adamaxw": g.adamaxw(1e-3),
        "adamw": g.adamw(1e-3),
        "adan": g.adan(1e-3),
        "adaptive_grad_clip": g.adaptive_grad_clip(0.1),
        "add_decayed_weights": g.add_decayed_weights(),
        "add_noise": g.add_noise(0.1, 0.55, key=0),
        "ademamix": g.ademamix(1e-3),
        "adopt": g.adopt(1e-3),
        "amsgrad": g.amsgrad(1e-3),
        "apply_every": g.apply_every(),
        "apply_if_finite": g.apply_if_finite(g.adam(1e-3), 3),
        "centralize": g.centralize(),
        "chain": g.chain(g.clip(1.0), g.sgd(0.1, momentum=0.9)),
        "clip": g.clip(1.0),
        "clip_by_block_rms": g.clip_by_block_rms(1.0),
        "clip_by_global_norm": g.clip_by_global_norm(1.0),
        "cocob": g.cocob(),
        "compiled": g.compiled(g.sgd(0.1, momentum=0.9)),
        "conditionally_mask": g.conditionally_mask(
            g.adam(1e-3), g.piecewise_constant_schedule(1.0, {1: 0.0})
        ),
        "conditionally_transform": g.conditionally_transform(
            g.adam(1e-3), g.piecewise_constant_schedule(1.0, {1: 0.0})
        ),
        "dadapt_adamw": g.dadapt_adamw(),
        "dog": g.dog(),
        "dowg": g.dowg(),
        "differentially_private_aggregate": g.differentially_private_aggregate(
            1.0, 1.0, key=0
        ),
        "dpsgd": g.dpsgd(1e-3, 1.0, 1.0, seed=0),
        "dynamic_loss_scaling": g.dynamic_loss_scaling(g.adam(1e-3)),
        "ema": g.ema(0.9),
        "flatten": g.flatten(g.adam(1e-3)),
        "freeze": g.freeze(g.path_matches("bias")),
        "fromage": g.fromage(1e-3),
        "guarded": g.guarded(g.adam(1e-3)),
        "hutchinson_estimator_diag_hessian": g.hutchinson_estimator_diag_hessian(),
        "galore": g.galore(1e-3),
        "identity": g.identity(),
        "inject_hyperparams": g.inject_hyperparams(g.adamw)(1e-3),
        "keep_params_nonnegative": g.keep_params_nonnegative(),
        "lamb": g.lamb(1e-3),
        "lars": g.lars(1e-3),
        "lbfgs": g.lbfgs(),
        "lion": g.lion(1e-3),
        "lookahead": g.lookahead(g.sgd(0.1, momentum=0.9), 5, 0.5),
        "madgrad": g.madgrad(1e-2),
        "masked": g.masked(g.adam(1e-3), g.ndim_at_least(2)),
        "mechanize": g.mechanize(g.adam(1.0)),
        "momo": g.momo(),
        "momo_adam": g.momo_adam(),
        "monitor": g.monitor({"momentum": g.trace(0.9)}),
        "muon": g.muon(1e-3),
        "nadam": g.nadam(1e-3),
        "nadamw": g.nadamw(1e-3),
        "named_chain": g.named_chain(("first", g.scale_by_rms())),
        "noisy_sgd": g.noisy_sgd(1e-3, key=0),
        "normalize": g.normalize(),
        "normalize_by_update_norm": g.normalize_by_update_norm(),
        "novograd": g.novograd(1e-3),
        "observe": g.observe(g.adam(1e-3), every=2),
        "optimistic_adam": g.optimistic_adam(1e-3),
        "optimistic_adam_v2": g.optimistic_adam_v2(1e-3),
        "optimistic_gradient_descent": g.optimistic_gradient_descent(1e-3),
        "partition": g.partition(
            {True: g.adam(1e-3), False: g.sgd(0.1)}, g.ndim_at_least(2)
        ),
        "pmean_gradients": g.pmean_gradients("data"),
        "polyak_sgd": g.polyak_sgd(),
        "prodigy": g.prodigy(),
        "radam": g.radam(1e-3),
        "reduce_on_plateau": g.reduce_on_plateau(),
        "rmsprop": g.rmsprop(1e-3),
        "rprop": g.rprop(1e-3),
        "sam": g.sam(g.sgd(0.1), g.chain(g.normalize(), g.sgd(0.05))),
        "scale": g.scale(0.5),
        "scale_by_acprop": g.scale_by_acprop(),
        "scale_by_adadelta": g.scale_by_adadelta(),
        "scale_by_adam": g.scale_by_adam(),
        "scale_by_adamax": g.scale_by_adamax(),
        "scale_by_adan": g.scale_by_adan(),
        "scale_by_ademamix": g.scale_by_ademamix(),
        "scale_by_adopt": g.scale_by_adopt(),
        "scale_by_amsgrad": g.scale_by_amsgrad(),
        "scale_by_belief": g.scale_by_belief(),
        "scale_by_cocob": g.scale_by_cocob(),
        "scale_by_distance_over_gradients": g.scale_by_distance_over_gradients(),
        "scale_by_dog": g.scale_by_dog(),
        "scale_by_dowg": g.scale_by_dowg(),
        "scale_by_factored_rms": g.scale_by_factored_rms(),
        "scale_by_galore": g.scale_by_galore(),
        "scale_by_backtracking_linesearch": g.scale_by_backtracking_linesearch(
            5, store_grad=True
        ),
        "scale_by_lbfgs": g.scale_by_lbfgs(),
        "scale_by_learning_rate": g.scale_by_learning_rate(1e-3),
        "scale_by_lion": g.scale_by_lion(),
        "scale_by_madgrad": g.scale_by_madgrad(1e-2),
        "scale_by_muon": g.scale_by_muon(),
        "scale_by_novograd": g.scale_by_novograd(),
        "scale_by_optimistic_gradient": g.scale_by_optimistic_gradient(),
        "scale_by_param_block_norm": g.scale_by_param_block_norm(),
        "scale_by_param_block_rms": g.scale_by_param_block_rms(),
        "scale_by_polyak": g.scale_by_polyak(),
        "scale_by_radam": g.scale_by_radam(),
        "scale_by_rms": g.scale_by_rms(),
        "scale_by_rprop": g.scale_by_rprop(1e-3),
        "scale_by_rss": g.scale_by_rss(),
        "scale_by_schedule": g.scale_by_schedule(g.constant_schedule(0.1)),
        "scale_by_shape": g.scale_by_shape(),
        "scale_by_sign": g.scale_by_sign(),
        "scale_by_simplified_ademamix": g.scale_by_simplified_ademamix(),
        "scale_by_sm3": g.scale_by_sm3(),
        "scale_by_sophia": g.scale_by_sophia(),
        "scale_by_stddev": g.scale_by_stddev(),
        "scale_by_trust_ratio": g.scale_by_trust_ratio(),
        "scale_by_yogi": g.scale_by_yogi(),
        "scale_by_zoom_linesearch": g.scale_by_zoom_linesearch(5),
        "schedule_free": g.schedule_free(g.sgd(0.1), 0.1),
        "schedule_free_adamw": g.schedule_free_adamw(warmup_steps=5),
        "schedule_free_sgd": g.schedule_free_sgd(),
        "selective_transform": g.selective_transform(
            g.adam(1e-3), freeze_mask=g.path_matches("bias")
        ),
        "set_to_zero": g.set_to_zero(),
        "sgd": g.sgd(1e-3),
        "sign_sgd": g.sign_sgd(1e-3),
        "signum": g.signum(1e-3),
        "simplified_ademamix": g.simplified_ademamix(1e-3),
        "sm3": g.sm3(1e-3),
        "sophia": g.sophia(1e-3),
        "split_real_and_imaginary": g.split_real_and_imaginary(g.adam(1e-3)),
        "static_loss_scaling": g.static_loss_scaling(g.sgd(0.1), 1024),
        "trace": g.trace(0.9),
        "yogi": g.yogi(1e-3),
        "zero_nans": g.zero_nans(),
    }
