"""Evaluate a function on a large batch in pieces that fit into memory."""

from gradtx.microbatching._accumulators import (
    AccumulationType as AccumulationType,
    Accumulator as Accumulator,
)
from gradtx.microbatching._grad import (
    micro_grad as micro_grad,
)
from gradtx.microbatching._microbatch import (
    microbatch as microbatch,
)
from gradtx.microbatching._reshape import (
    reshape_batch_axis as reshape_batch_axis,
)
from gradtx.microbatching._vmap import (
    micro_vmap as micro_vmap,
)
