"""Decide which leaves a transformation sees, and when it runs."""

from gradtx.combinators._accumulate import (
    MultiStepsState as MultiStepsState,
    ShouldSkipUpdateFunction as ShouldSkipUpdateFunction,
    accumulate as accumulate,
)
from gradtx.combinators._masked import (
    MaskedState as MaskedState,
    freeze as freeze,
    masked as masked,
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
)
