"""Decide which leaves a transformation sees, and when it runs."""

from gradtx.combinators._accumulate import (
    AccumulateState as AccumulateState,
    accumulate as accumulate,
)
from gradtx.combinators._masked import (
    MaskedState as MaskedState,
    freeze as freeze,
    masked as masked,
)
from gradtx.combinators._partition import (
    MultiTransformState as MultiTransformState,
    PartitionState as PartitionState,
    multi_transform as multi_transform,
    partition as partition,
)
