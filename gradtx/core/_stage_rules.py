"""Say which parts of an optimizer may not stand before, or around, which others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from gradtx.core._traits import Stage


class Part(NamedTuple):
    """A link, or a wrapper, whose place in an optimizer matters.

    Attributes:
      name: the name of its factory.
      stage: its `Traits.stage`.
      negates: its `Traits.negates`.
      examples: whether it takes one gradient per example.
      skips: whether it has a function `skip` that leaves out calls.
      axes: the names of the mapped axes over which it decides or reduces.
      leaves: what selects the leaves that it sees, outermost first; empty for all.
    """

    name: str
    stage: Stage
    negates: bool
    examples: bool
    skips: bool
    axes: tuple[Any, ...]
    leaves: tuple[tuple[Any, int], ...] = ()


class Rule(NamedTuple):
    """What is wrong with one part before, or around, another.

    Attributes:
      wrong: what happens, with `{a}` and `{b}` for the two parts.
      instead: what to write.
      holds: `(a, b) -> bool`, where the stages alone do not tell.
      impossible: whether it is an error, which nobody can mean.
    """

    wrong: str
    instead: str
    holds: Callable[[Part, Part], bool] = lambda a, b: True
    impossible: bool = False


#: Rules by the stages of the first part and of the second.
Rules: TypeAlias = dict[tuple[str, str], Rule]

_SCALED = (
    "{a} comes before {b}: it sees gradients that are still multiplied by the loss "
    "scale"
)
_UNSCALE_FIRST = "Put it into the transformation that {b} wraps."
_TWICE = Rule(
    "{a} and {b} both divide by a loss scale, and the loss has one",
    "Leave out one of them.",
    impossible=True,
)

#: What is wrong where a part of the first stage comes before one of the second.
SEQUENCE: Rules = {
    ("clip", "reduce"): Rule(
        "{a} comes before {b}: each device clips by its own gradient, and what is "
        "averaged is no clipped gradient of the whole batch",
        "Put {b} first.",
        # each example is clipped by its own gradient, on whatever device it lies
        holds=lambda a, b: not a.examples,
    ),
    ("clip", "accumulate"): Rule(
        "{a} comes before {b}: it clips each micro-batch, not their mean",
        "Put it into the transformation that {b} wraps.",
        holds=lambda a, b: not a.examples,
    ),
    ("precondition", "reduce"): Rule(
        "{a} comes before {b}: each device keeps a history of its own gradients, so "
        "that states differ between devices",
        "Put {b} first.",
    ),
    ("precondition", "clip"): Rule(
        "{a} comes before {b}: what is clipped are updates, no gradients, and an "
        "outlier has reached that history already",
        "Put {b} first. To bound updates, use clip_by_block_rms.",
    ),
    ("rate", "precondition"): Rule(
        "{a} comes before {b}, which divides the learning rate away again",
        "Put {a} last.",
    ),
    ("rate", "decay"): Rule(
        "{a} comes before {b}: the decay is not multiplied by the learning rate, and "
        "where the sign has been changed already parameters grow",
        "Put {b} before {a}.",
    ),
    ("rate", "rate"): Rule(
        "{a} changes the sign, and {b} changes it back: parameters ascend",
        "Leave out one of them, or use scale_by_schedule for a factor of the learning "
        "rate. To ascend, begin with scale(-1.0).",
        holds=lambda a, b: a.negates and b.negates,
    ),
    ("rate", "clip"): Rule(
        "{a} comes before {b}: what is clipped are steps, no gradients",
        "Put {b} first.",
    ),
    ("reduce", "reduce"): Rule(
        "{a} and {b} average over the same devices: where gradients are known to be "
        "equal there, the second takes them for a sum and divides again",
        "Leave out one of them.",
        holds=lambda a, b: not {*a.axes}.isdisjoint(b.axes),
    ),
    ("loss_scale", "loss_scale"): _TWICE,
} | {
    (stage, "loss_scale"): Rule(_SCALED, _UNSCALE_FIRST)
    for stage in ("guard", "clip", "average", "precondition", "decay", "rate")
}
for _stage in ("average", "precondition"):
    SEQUENCE[_stage, "guard"] = Rule(
        "{a} comes before {b}: a NaN stays in what {a} keeps, and {b} then leaves out "
        "every step",
        "Put {b} around the whole chain.",
    )
# what only changes the sign is no learning rate
SEQUENCE["rate", ""] = SEQUENCE["rate", "rate"]

#: What is wrong where a part of the first stage is around one of the second.
AROUND: Rules = {
    ("accumulate", "guard"): Rule(
        "{a} is around {b}: one NaN in a micro-batch leaves out the whole sum",
        "Put {b} around {a}, or give skip=skip_not_finite.",
        holds=lambda a, b: not a.skips,
    ),
    ("guard", "loss_scale"): Rule(
        "{a} is around {b}: it takes the overflows by which a loss scale finds its "
        "size for errors",
        "Put {b} around {a}.",
    ),
    ("loss_scale", "loss_scale"): _TWICE,
} | {
    (stage, "reduce"): Rule(
        "{a} is around {b}: each device judges its own gradient, and may leave out a "
        "step that others make",
        "Put {b} before {a} in a chain, or give axis_name=.",
        holds=lambda a, b: not a.axes,
    )
    for stage in ("guard", "loss_scale")
}
