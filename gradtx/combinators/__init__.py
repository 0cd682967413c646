"""Decide which leaves a transformation sees, and when it runs."""

from gradtx.combinators._accumulate import (
    MultiStepsState as MultiStepsState,
    ShouldSkipUpdateFunction as ShouldSkipUpdateFunction,
    accumulate as accumulate,
)
from gradtx.combinators._complex import (
    SplitRealAndImaginaryArrays as SplitRealAndImaginaryArrays,
    SplitRealAndImaginaryState as SplitRealAndImaginaryState,
    split_real_and_imaginary as split_real_and_imaginary,
)
from gradtx.combinators._finite import (
    ApplyIfFiniteState as ApplyIfFiniteState,
    apply_if_finite as apply_if_finite,
)
from gradtx.combinators._flatten import (
    flatten as flatten,
)
from gradtx.combinators._inject import (
    InjectHyperparamsState as InjectHyperparamsState,
    InjectStatefulHyperparamsState as InjectStatefulHyperparamsState,
    StatefulSchedule as StatefulSchedule,
    WrappedSchedule as WrappedSchedule,
    WrappedScheduleState as WrappedScheduleState,
    inject_hyperparams as inject_hyperparams,
    inject_stateful_hyperparams as inject_stateful_hyperparams,
)
from gradtx.combinators._lookahead import (
    LookaheadParams as LookaheadParams,
    LookaheadState as LookaheadState,
    lookahead as lookahead,
)
from gradtx.combinators._masked import (
    MaskedState as MaskedState,
    freeze as freeze,
    masked as masked,
)
from gradtx.combinators._mechanic import (
    MechanicState as MechanicState,
    mechanize as mechanize,
)
from gradtx.combinators._multi_steps import (
    MultiSteps as MultiSteps,
    skip_large_updates as skip_large_updates,
    skip_not_finite as skip_not_finite,
)
from gradtx.combinators._partition import (
    MultiTransformState as MultiTransformState,
    PartitionState as PartitionState,
    multi_transform as multi_transform,
    partition as partition,
    selective_transform as selective_transform,
)
from gradtx.combinators._sam import (
    SAMState as SAMState,
    sam as sam,
)
from gradtx.combinators._schedule_free import (
    ScheduleFreeState as ScheduleFreeState,
    schedule_free as schedule_free,
    schedule_free_eval_params as schedule_free_eval_params,
)
from gradtx.combinators._when import (
    ConditionallyMaskState as ConditionallyMaskState,
    ConditionallyTransformState as ConditionallyTransformState,
    ConditionFn as ConditionFn,
    conditionally_mask as conditionally_mask,
    conditionally_transform as conditionally_transform,
)
