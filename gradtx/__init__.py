"""Composable gradient transformations for JAX.

```
 grads ─► reduce ─► clip ─► precondition ─► decay ─► learning rate ─► updates
          └── each link: update(updates, state, params) -> (updates, state) ──┘
```

An optimizer is a chain of links; `init(params)` makes its state, `update` turns
gradients into updates, and `apply_updates` adds them to the parameters:

    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3))
    state = tx.init(params)
    updates, state = tx.update(grads, state, params)
    params = gradtx.apply_updates(params, updates)

The names below are shortcuts to the rooms in which they live.
"""

from gradtx import (
    combinators as combinators,
    core as core,
    distributed as distributed,
    experimental as experimental,
    microbatching as microbatching,
    optimizers as optimizers,
    schedules as schedules,
    transforms as transforms,
    tree as tree,
)
from gradtx._version import __version__ as __version__

# combinators: which leaves, and when
from gradtx.combinators import (
    AccumulateState as AccumulateState,
    ApplyIfFiniteState as ApplyIfFiniteState,
    ConditionallyMaskState as ConditionallyMaskState,
    ConditionallyTransformState as ConditionallyTransformState,
    ConditionFn as ConditionFn,
    InjectHyperparamsState as InjectHyperparamsState,
    InjectStatefulHyperparamsState as InjectStatefulHyperparamsState,
    MaskedState as MaskedState,
    MultiTransformState as MultiTransformState,
    PartitionState as PartitionState,
    StatefulSchedule as StatefulSchedule,
    WrappedSchedule as WrappedSchedule,
    WrappedScheduleState as WrappedScheduleState,
    accumulate as accumulate,
    apply_if_finite as apply_if_finite,
    conditionally_mask as conditionally_mask,
    conditionally_transform as conditionally_transform,
    flatten as flatten,
    freeze as freeze,
    inject_hyperparams as inject_hyperparams,
    inject_stateful_hyperparams as inject_stateful_hyperparams,
    masked as masked,
    multi_transform as multi_transform,
    partition as partition,
    selective_transform as selective_transform,
)

# core: the value, composition, description, roles, selectors, errors
from gradtx.core import (
    ArgumentError as ArgumentError,
    ArrayTree as ArrayTree,
    AxisNameError as AxisNameError,
    Count as Count,
    DescriptionError as DescriptionError,
    DtypeError as DtypeError,
    EmptyState as EmptyState,
    Factored as Factored,
    GradientTransformation as GradientTransformation,
    GradientTransformationExtraArgs as GradientTransformationExtraArgs,
    GradtxError as GradtxError,
    Inner as Inner,
    Key as Key,
    MaskedNode as MaskedNode,
    MaskOrFn as MaskOrFn,
    MissingArgumentError as MissingArgumentError,
    OptState as OptState,
    Params as Params,
    PerParam as PerParam,
    Role as Role,
    Scalar as Scalar,
    ScalarOrSchedule as ScalarOrSchedule,
    Schedule as Schedule,
    Selector as Selector,
    ShapeError as ShapeError,
    TransformInitFn as TransformInitFn,
    TransformUpdateFn as TransformUpdateFn,
    TreeMismatchError as TreeMismatchError,
    Updates as Updates,
    all_of as all_of,
    any_of as any_of,
    any_shape as any_shape,
    apply_updates as apply_updates,
    build as build,
    chain as chain,
    describe as describe,
    global_norm as global_norm,
    hyperparameters as hyperparameters,
    identity as identity,
    incremental_update as incremental_update,
    label_paths as label_paths,
    map_leaves as map_leaves,
    named_chain as named_chain,
    ndim_at_least as ndim_at_least,
    none_of as none_of,
    path_matches as path_matches,
    periodic_update as periodic_update,
    roles as roles,
    safe_increment as safe_increment,
    safe_int32_increment as safe_int32_increment,
    schedule as schedule,
    selector as selector,
    set_to_zero as set_to_zero,
    stateless as stateless,
    stateless_with_tree_map as stateless_with_tree_map,
    transformation as transformation,
    with_extra_args_support as with_extra_args_support,
)

# distributed: links that communicate
from gradtx.distributed import pmean_gradients as pmean_gradients

# microbatching: large batches in pieces
from gradtx.microbatching import (
    AccumulationType as AccumulationType,
    Accumulator as Accumulator,
    micro_grad as micro_grad,
    micro_vmap as micro_vmap,
    microbatch as microbatch,
    reshape_batch_axis as reshape_batch_axis,
)

# optimizers: one algorithm a file
from gradtx.optimizers import (
    ScaleByAdamState as ScaleByAdamState,
    ScaleByAmsgradState as ScaleByAmsgradState,
    ScaleByLionState as ScaleByLionState,
    ScaleByRmsState as ScaleByRmsState,
    ScaleByRmsWithCountState as ScaleByRmsWithCountState,
    ScaleByRssState as ScaleByRssState,
    ScaleByRStdDevState as ScaleByRStdDevState,
    ScaleByRStdDevWithCountState as ScaleByRStdDevWithCountState,
    adagrad as adagrad,
    adam as adam,
    adamax as adamax,
    adamaxw as adamaxw,
    adamw as adamw,
    amsgrad as amsgrad,
    lion as lion,
    nadam as nadam,
    nadamw as nadamw,
    radam as radam,
    rmsprop as rmsprop,
    scale_by_adam as scale_by_adam,
    scale_by_adamax as scale_by_adamax,
    scale_by_amsgrad as scale_by_amsgrad,
    scale_by_lion as scale_by_lion,
    scale_by_radam as scale_by_radam,
    scale_by_rms as scale_by_rms,
    scale_by_rss as scale_by_rss,
    scale_by_stddev as scale_by_stddev,
    sgd as sgd,
)

# schedules: step -> scalar
from gradtx.schedules import (
    constant_schedule as constant_schedule,
    cosine_decay_schedule as cosine_decay_schedule,
    cosine_onecycle_schedule as cosine_onecycle_schedule,
    exponential_decay as exponential_decay,
    inverse_sqrt_schedule as inverse_sqrt_schedule,
    join_schedules as join_schedules,
    linear_onecycle_schedule as linear_onecycle_schedule,
    linear_schedule as linear_schedule,
    piecewise_constant_schedule as piecewise_constant_schedule,
    piecewise_interpolate_schedule as piecewise_interpolate_schedule,
    polynomial_schedule as polynomial_schedule,
    sgdr_schedule as sgdr_schedule,
    warmup_constant_schedule as warmup_constant_schedule,
    warmup_cosine_decay_schedule as warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule as warmup_exponential_decay_schedule,
    warmup_stable_decay_schedule as warmup_stable_decay_schedule,
)

# transforms: reusable links
from gradtx.transforms import (
    AdaptiveGradClipState as AdaptiveGradClipState,
    AddNoiseState as AddNoiseState,
    ClipByGlobalNormState as ClipByGlobalNormState,
    ClipState as ClipState,
    EmaState as EmaState,
    MonitorState as MonitorState,
    ScaleByScheduleState as ScaleByScheduleState,
    SnapshotState as SnapshotState,
    TraceState as TraceState,
    WeightDecaySchedule as WeightDecaySchedule,
    ZeroNansState as ZeroNansState,
    adaptive_grad_clip as adaptive_grad_clip,
    add_decayed_weights as add_decayed_weights,
    add_noise as add_noise,
    centralize as centralize,
    clip as clip,
    clip_by_block_rms as clip_by_block_rms,
    clip_by_global_norm as clip_by_global_norm,
    ema as ema,
    measure_with_ema as measure_with_ema,
    monitor as monitor,
    scale as scale,
    scale_by_learning_rate as scale_by_learning_rate,
    scale_by_schedule as scale_by_schedule,
    scale_by_sign as scale_by_sign,
    snapshot as snapshot,
    trace as trace,
    zero_nans as zero_nans,
)
