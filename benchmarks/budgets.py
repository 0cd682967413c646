"""What a compiled step may cost: one table, which the tests hold gradtx to.

Bytes and passes are those that the CPU backend reaches from one leaf expression: it
writes one array a kernel, so every moment is a pass of its own that reads its inputs
again. Sources: issue 5, and for rows it does not name the count of that expression.
"""

from __future__ import annotations

from typing import NamedTuple

from benchmarks._trees import Shapes, gpt2


class Budget(NamedTuple):
    """The most that one optimizer's step may cost."""

    bytes: float  # moved per parameter
    passes: float  # over the parameters


#: p ← p − rate·g reads two and writes one; a moment reads two or three and writes one;
#: then the parameter reads every moment. Lion reads the moment before it moves.
STEPS = {
    "sgd": Budget(bytes=12, passes=1),
    "momentum": Budget(bytes=24, passes=2),
    "rmsprop": Budget(bytes=28, passes=2),
    "adam": Budget(bytes=40, passes=3),
    "adamw": Budget(bytes=40, passes=3),
    "clip_adamw": Budget(bytes=44, passes=4),
    "lion": Budget(bytes=28, passes=2),
}

#: Bytes and passes may exceed the table by this much: scalars, partial sums of norms.
ROUNDING = 1.01

#: Temporaries that are no matter of size: a hundredth of the parameters, and 4 kB.
SMALL = 0.01
SCALARS = 4096

#: Peak of a donated step, × (parameters + state + gradients).
PEAK = 1.01

#: Kernels beside one for each leaf and pass: scalars of the step, of the norm.
SCALAR_KERNELS = 16

#: XLA sums vectors of fewer than some thousand numbers in three kernels, not one.
SHORT_NORM_KERNELS = 2

#: HLO instructions for each leaf, and for the rest.
INSTRUCTIONS = {
    "sgd": (10, 20),
    "adamw": (60, 60),
    "clip_adamw": (130, 120),
}

#: Kernels and instructions of a packed step, however many leaves it has.
PACKED_KERNELS = 24
PACKED_INSTRUCTIONS = 400

#: Between measurements, an observed step moves the bytes of the step and these of the
#: metrics, in so many kernels more.
OBSERVED_STATE, OBSERVED_KERNELS = 2048, 24
#: Bytes of temporaries that a measurement takes: for each element of small leaves, which
#: are packed; for each parameter, the updates and, where they are counted by magnitude,
#: once more (0.06 and 4.1 for leaves as large as GPT-2's); for the metrics.
OBSERVED_SMALL = 28
OBSERVED_TEMPORARIES = {"default": 4, "per leaf": 8, "successive": 4}
OBSERVED_METRICS = 2**18

#: The trees that are compiled: leaves of one size, and the leaves of a language model.
BUDGET_TREES: dict[str, Shapes] = {
    "equal": {f"w{index}": (256, 256) for index in range(4)},
    "gpt2": gpt2(width=64, layers=1, vocabulary=509),
}
