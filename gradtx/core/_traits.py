"""Say of a transformation what nothing but its author can know."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Set
from typing import Any, Literal, get_args

from gradtx.core._errors import ArgumentError, MissingArgumentError

#: How far one element of a gradient reaches: itself, its leaf, or all leaves.
Reach = Literal["element", "leaf", "tree"]
#: What `update` takes: gradients like the parameters, one gradient per example along a
#: leading axis, gradients at the fast of two sets of parameters, or trees of which
#: nothing is known beforehand.
Form = Literal["gradients", "examples", "pairs", "any"]

#: The parts of an optimizer whose order matters, in the order in which they belong;
#: what only measures may stand anywhere.
Stage = Literal[
    "",
    "measure",
    "loss_scale",
    "accumulate",
    "guard",
    "reduce",
    "clip",
    "average",
    "precondition",
    "decay",
    "rate",
]

_REACHES: tuple[Reach, ...] = get_args(Reach)
#: Each argument of `update` that may be needed, and how to give it.
NEEDS = {
    "params": "the current parameters, got params=None. "
    "Call tx.update(grads, state, params).",
    "value": "the value of the objective: tx.update(grads, state, params, value=value).",
    "grad": "grad=, the gradient at the parameters: tx.update(grads, state, params, "
    "value=value, grad=grads, value_fn=objective).",
    "value_fn": "value_fn=, the objective: tx.update(grads, state, params, "
    "value=value, grad=grads, value_fn=objective).",
    "obj_fn": "obj_fn=, the objective as a function of the parameters: "
    "tx.update(grads, state, params, obj_fn=objective).",
    "grad_fn": "grad_fn=, the gradient as a function of the parameters and the "
    "step: tx.update(grads, state, params, grad_fn=lambda params, i: ...).",
}


@dataclasses.dataclass(frozen=True)
class Traits:
    """What a transformation needs, and how it behaves.

    Declared where a transformation is defined; those of a chain or wrapper follow from
    what is inside. `gradtx.testing` checks each claim.

    Attributes:
      needs: the arguments without which `update` raises: any of `"params"`, `"value"`,
        `"grad"`, `"value_fn"`, `"obj_fn"` and `"grad_fn"`.
      reach: how far one element of a gradient reaches: `"element"` where each element
        of an update depends on its own history only, `"leaf"` where on its leaf's (a
        norm, a matrix factor), `"tree"` where on all leaves (a global norm).
      differentiable: whether derivatives through `update` are finite, a zero gradient
        included.
      stochastic: whether it draws random numbers.
      complex: whether it takes complex leaves; those that do not raise `DtypeError`.
      scale_free: whether gradients times a power of two give the same updates.
      form: what `update` takes: `"gradients"`, `"examples"` (one gradient per example,
        along a leading axis), `"pairs"` (gradients at `params.fast`), or `"any"` where
        only a run can tell, so that nothing is compared with the parameters.
      stage: which part of an optimizer it is, where the order of parts matters:
        `"reduce"` turns each device's own gradients into one of all devices, `"clip"`
        bounds gradients, `"average"` keeps a mean of them, `"precondition"` rescales by their history, `"decay"` adds
        parameters, `"rate"` applies the learning rate; of wrappers, `"accumulate"`
        sums over calls, `"guard"` leaves out what is not finite, `"loss_scale"` takes
        gradients of a scaled loss. `"measure"` changes no updates, whatever is inside.
        Empty for all else.
      negates: whether it changes the sign, so that gradients become steps downhill.
      shaped: whether it looks at the shapes or paths of leaves, so that it must see the
        tree in place of a `Packed`. What reaches over its leaf always does.
      ulps: the number of units in the last place, of a leaf's largest element, by which
        two compilations of one update may differ.
      exempt: properties of `gradtx.testing` that do not apply, with the reason:
        `{"P4": "noise moves parameters at a zero gradient"}`. A cell of a property is
        named `"P4 bfloat16"`.
      inherited: the keys of `exempt` that come from parts, not from its definition.
    """

    needs: Set[str] = frozenset()
    reach: Reach = "element"
    differentiable: bool = True
    stochastic: bool = False
    complex: bool = True
    scale_free: bool = False
    form: Form = "gradients"
    stage: Stage = ""
    negates: bool = False
    shaped: bool = False
    ulps: int = 16
    exempt: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)

    inherited: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "needs", frozenset(self.needs))
        if unknown := sorted(self.needs - NEEDS.keys()):
            raise ArgumentError(
                f"needs must be among {[*NEEDS]}, got {unknown[0]!r}.", "Traits"
            )
        if self.reach not in _REACHES:
            raise ArgumentError(
                f"reach must be one of {_REACHES}, got {self.reach!r}.", "Traits"
            )
        if self.form not in get_args(Form):
            raise ArgumentError(
                f"form must be one of {get_args(Form)}, got {self.form!r}.", "Traits"
            )
        if self.stage not in get_args(Stage):
            raise ArgumentError(
                f"stage must be one of {get_args(Stage)}, got {self.stage!r}.", "Traits"
            )

    def replace(self, **changes: Any) -> Traits:
        """Return the same traits with some of them changed."""
        return dataclasses.replace(self, **changes)


def joined(traits: Iterable[Traits]) -> Traits:
    """Return the traits of transformations that are applied together.

    All that one needs is needed, the farthest reach is that of all, and what one cannot
    do, all cannot. Freedom from scale, the stage and the sign are no properties of
    parts: they must be declared.
    """
    return functools.reduce(_both, traits, Traits())


def _both(a: Traits, b: Traits) -> Traits:
    return Traits(
        needs=a.needs | b.needs,
        reach=_REACHES[max(map(_REACHES.index, (a.reach, b.reach)))],
        differentiable=a.differentiable and b.differentiable,
        stochastic=a.stochastic or b.stochastic,
        complex=a.complex and b.complex,
        form=b.form if a.form == "gradients" else a.form,
        shaped=a.shaped or b.shaped,
        ulps=max(a.ulps, b.ulps),
        exempt={**a.exempt, **b.exempt},
        inherited=frozenset({*a.exempt, *b.exempt}),
    )


def require(needs: Iterable[str], given: Mapping[str, Any]) -> None:
    """Raise where an argument of `update` that is needed is missing or `None`.

    Raises:
      MissingArgumentError: naming the argument and the call that gives it.
    """
    for name in NEEDS:
        if name in needs and given.get(name) is None:
            raise MissingArgumentError(f"update needs {NEEDS[name]}")
