"""Why some of optax's own tests do not pass with gradtx in optax's place."""

from __future__ import annotations

#: Pattern of the test's name (`file::class::test`), and the reason.
EXPLAINED = {
    r"test_abs_sqr_hlo_equivalence": "compares the text of compiled code",
    r"::test_canonicalize_dtype|test_extract_fns_kwargs|test_reshape_inverse": (
        "calls a private helper of optax"
    ),
    r"test_preconditioning_by_lbfgs|test_power_iteration_cond_fun": (
        "calls a private helper of optax"
    ),
    r"raises_on_unused_extra_args": (
        "line searches ignore extra arguments that the objective does not name, so that "
        "they can share a chain with links that want others"
    ),
    r"LBFGSTest::test_against_plain_implementation": (
        "with a constant step, pairs of negative curvature arise; gradtx leaves them out"
    ),
    r"GaLoreTest::test_mu_dtype": "second moments are float32, whatever `mu_dtype` is",
    r"GaLoreTest": (
        "expects the longer side to be projected; the paper projects the shorter one"
    ),
    r"test_isinstance": (
        "`GradientTransformation` and `GradientTransformationExtraArgs` are one class: "
        "every gradtx transformation takes extra arguments"
    ),
    r"ExtraArgsTest::test_extra_args": "its gradients are Python integers: `DtypeError`",
    r"test_lion_invalid_mode_raises": "the error comes when `scale_by_lion` is made",
    r"test_deprecated_alias": "`convex_kl_divergence` works without a warning",
    r"test_hyperparam_default_dtype_bf16": (
        "injected hyperparameters are float32: in bfloat16 b2 = 0.999 becomes 1"
    ),
    r"starts_with_step_count_zero": "a state's integers are not replaced by floats",
    r"test_raises_when_decay_equals_warmup": (
        "`warmup_cosine_decay_schedule` without a decay stays at its peak"
    ),
    r"FreezeTest::test_bad_structure|test_selective_bad_structure": (
        "the error has gradtx's words, with the leaf's path"
    ),
    r"AddingTest::test_none_argument": (
        "updates of `None` beside parameters raise: no leaf gets lost"
    ),
    r"StateUtilsTest::test_(adam|map_params_to_none)": (
        "the state of a constant learning rate holds it, and a chain's is a named tuple"
    ),
    r"test_masked_state_structure": "masks hide single leaves, not whole subtrees",
    r"test_nnls5": "rises by a rounding of float32 at a step that repeats the one before, as with "
    "optax itself",
    r"test_mask_compatible_callable_pytree": "calls a private helper of optax",
    r"StateUtilsTest::test_tree_set": "compares with a chain's state as a plain tuple",
    r"test_clip_by_block_rms": "off by one rounding of float32",
    r"test_tree_vdot": "off by one rounding of float32, 1.3e-7, against 1e-7",
    r"ShardingTest.*noisy_sgd": "`noisy_sgd` wants a key",
    r"noisy_sgd": "`noisy_sgd` wants a key",
}
