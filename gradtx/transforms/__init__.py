"""Reusable links, one idea a file."""

from gradtx.core import (
    shown_here as _shown_here,
)
from gradtx.transforms._apply_every import (
    ApplyEvery as ApplyEvery,
    apply_every as apply_every,
)
from gradtx.transforms._backtracking import (
    BacktrackingLinesearchInfo as BacktrackingLinesearchInfo,
    ScaleByBacktrackingLinesearchState as ScaleByBacktrackingLinesearchState,
    scale_by_backtracking_linesearch as scale_by_backtracking_linesearch,
)
from gradtx.transforms._centralize import (
    centralize as centralize,
)
from gradtx.transforms._clip import (
    AdaptiveGradClipState as AdaptiveGradClipState,
    ClipByGlobalNormState as ClipByGlobalNormState,
    ClipState as ClipState,
    adaptive_grad_clip as adaptive_grad_clip,
    clip as clip,
    clip_by_block_rms as clip_by_block_rms,
    clip_by_global_norm as clip_by_global_norm,
    unitwise_clip as unitwise_clip,
    unitwise_norm as unitwise_norm,
)
from gradtx.transforms._decay import (
    AddDecayedWeightsState as AddDecayedWeightsState,
    WeightDecaySchedule as WeightDecaySchedule,
    add_decayed_weights as add_decayed_weights,
)
from gradtx.transforms._linesearch import (
    value_and_grad_from_state as value_and_grad_from_state,
)
from gradtx.transforms._monitor import (
    MonitorState as MonitorState,
    SnapshotState as SnapshotState,
    measure_with_ema as measure_with_ema,
    monitor as monitor,
    snapshot as snapshot,
)
from gradtx.transforms._noise import (
    AddNoiseState as AddNoiseState,
    add_noise as add_noise,
)
from gradtx.transforms._nonnegative import (
    NonNegativeParamsState as NonNegativeParamsState,
    keep_params_nonnegative as keep_params_nonnegative,
)
from gradtx.transforms._normalize import (
    NormalizeState as NormalizeState,
    normalize as normalize,
    normalize_by_update_norm as normalize_by_update_norm,
)
from gradtx.transforms._norms import (
    safe_norm as safe_norm,
    safe_root_mean_squares as safe_root_mean_squares,
)
from gradtx.transforms._optimistic import (
    ScaleByOptimisticGradientState as ScaleByOptimisticGradientState,
    scale_by_optimistic_gradient as scale_by_optimistic_gradient,
)
from gradtx.transforms._per_example import (
    per_example_global_norm_clip as per_example_global_norm_clip,
    per_example_layer_norm_clip as per_example_layer_norm_clip,
)
from gradtx.transforms._plateau import (
    ReduceLROnPlateauState as ReduceLROnPlateauState,
    reduce_on_plateau as reduce_on_plateau,
)
from gradtx.transforms._privacy import (
    DifferentiallyPrivateAggregateState as DifferentiallyPrivateAggregateState,
    differentially_private_aggregate as differentially_private_aggregate,
)
from gradtx.transforms._scale import (
    ScaleByScheduleState as ScaleByScheduleState,
    ScaleState as ScaleState,
    scale as scale,
    scale_by_learning_rate as scale_by_learning_rate,
    scale_by_schedule as scale_by_schedule,
)
from gradtx.transforms._scale_gradient import (
    scale_gradient as scale_gradient,
)
from gradtx.transforms._sign import (
    scale_by_sign as scale_by_sign,
)
from gradtx.transforms._trace import (
    EmaState as EmaState,
    TraceState as TraceState,
    ema as ema,
    trace as trace,
)
from gradtx.transforms._trust_ratio import (
    ScaleByTrustRatioState as ScaleByTrustRatioState,
    scale_by_param_block_norm as scale_by_param_block_norm,
    scale_by_param_block_rms as scale_by_param_block_rms,
    scale_by_trust_ratio as scale_by_trust_ratio,
)
from gradtx.transforms._zero_nans import (
    ZeroNansState as ZeroNansState,
    zero_nans as zero_nans,
)
from gradtx.transforms._zoom import (
    ScaleByZoomLinesearchState as ScaleByZoomLinesearchState,
    ZoomLinesearchInfo as ZoomLinesearchInfo,
    scale_by_zoom_linesearch as scale_by_zoom_linesearch,
)

# what combines or wraps links lives in core and combinators
__getattr__ = _shown_here(
    __name__,
    "ApplyIfFiniteState",
    "ConditionFn",
    "ConditionallyMaskState",
    "ConditionallyTransformState",
    "MaskedNode",
    "MaskedState",
    "MultiSteps",
    "MultiStepsState",
    "PartitionState",
    "ShouldSkipUpdateFunction",
    "apply_if_finite",
    "chain",
    "conditionally_mask",
    "conditionally_transform",
    "flatten",
    "freeze",
    "masked",
    "named_chain",
    "partition",
    "selective_transform",
    "skip_large_updates",
    "skip_not_finite",
)
