"""The optimizers under test, in the forms in which they are compared.

Each case is one call, which gradtx, optax, torch and the NumPy reference spell alike
or as the case says.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from tests.optimizers import _paths, _reference
from tests.optimizers._paths import Mode, Path, falling, steep

#: float64: 200 steps of some 30 roundings of 2^-53 each, all of one sign, are 7e-13.
DOUBLE = 1e-12

#: float32 against float32: each side rounds the sum `p + u` 200 times. One rounding
#: is up to 2^-24 of the way travelled and 2e-8 on average (root mean square, on a way
#: of even steps), so the walk away is 3e-7, three times that for an outlier.
MATCHED = 1e-6

#: float32 against the truth: float32(0.999) is off by 1.3e-8, its hundredth power, the
#: mean age of a square in `nu`, by 1.3e-6, and the root by half of that, which comes
#: on top of the sums.
SINGLE = 1.5e-6


class Case(NamedTuple):
    """One optimizer in one form.

    Attributes:
      id: a name for the report, which starts with that of the factory.
      rule: the NumPy reference, which takes `arguments`.
      arguments: the keyword arguments of gradtx.
      rate: the learning rate: a number or a schedule.
      optax: whether optax's function of this name takes the same arguments and means
        the same by them.
      torch: the class in `torch.optim` and its keyword arguments, but for the
        learning rate; `None` where torch has no such form.
    """

    id: str
    rule: Callable[..., _reference.Step]
    arguments: Mapping[str, Any] = MappingProxyType({})
    rate: float | Callable[[Any], Any] = falling
    optax: bool = True
    torch: tuple[str, dict[str, Any]] | None = None

    @property
    def factory(self) -> str:
        """The name of the factory in gradtx and in optax."""
        return self.id.split()[0]

    @property
    def family(self) -> str:
        """The name of the rule in the reference, which related factories share."""
        return getattr(self.rule, "func", self.rule).__name__


def only_w(params: Any) -> Any:
    """Select the leaf `w` for weight decay."""
    return {name: name == "w" for name in params}


def rising(t: Any) -> Any:
    """Return a weight decay that grows with the step; each is exact in float32."""
    return t / 1024


R = _reference
NADAM = functools.partial(R.adam, nesterov=True)
STDDEV = functools.partial(R.rmsprop, centered=True)
SHORT = {"b1": 0.75, "b2": 0.9375}
CASES = [
    Case("sgd", R.sgd, torch=("SGD", {})),
    Case("sgd constant", R.sgd, rate=0.1, torch=("SGD", {})),
    Case("sgd momentum", R.sgd, {"momentum": 0.9}, torch=("SGD", {"momentum": 0.9})),
    Case(
        "sgd nesterov",
        R.sgd,
        {"momentum": 0.9, "nesterov": True},
        torch=("SGD", {"momentum": 0.9, "nesterov": True}),
    ),
    Case("rmsprop", R.rmsprop),
    Case(
        "rmsprop root inside",
        R.rmsprop,
        {"decay": 0.75, "eps": 1e-2, "initial_scale": 0.5},
    ),
    Case(
        "rmsprop root outside",
        R.rmsprop,
        {"decay": 0.99, "eps": 1e-2, "eps_in_sqrt": False},
        torch=("RMSprop", {"alpha": 0.99, "eps": 1e-2}),
    ),
    Case("rmsprop corrected", R.rmsprop, {"bias_correction": True}),
    Case(
        "rmsprop corrected outside",
        R.rmsprop,
        {"bias_correction": True, "eps_in_sqrt": False, "eps": 1e-2},
    ),
    Case("rmsprop centered", R.rmsprop, {"centered": True, "eps": 1e-2}),
    Case(
        "rmsprop centered outside",
        R.rmsprop,
        {"centered": True, "eps_in_sqrt": False, "eps": 1e-2},
        torch=("RMSprop", {"alpha": 0.9, "eps": 1e-2, "centered": True}),
    ),
    Case("rmsprop momentum", R.rmsprop, {"momentum": 0.9}),
    Case("rmsprop nesterov", R.rmsprop, {"momentum": 0.9, "nesterov": True}),
    Case("rmsprop momentum constant", R.rmsprop, {"momentum": 0.9}, rate=0.05),
    Case(
        "rmsprop torch",
        R.rmsprop,
        {
            "decay": 0.99,
            "eps_in_sqrt": False,
            "momentum": 0.75,
            "momentum_after": "scaling",
        },
        optax=False,
        torch=("RMSprop", {"momentum": 0.75}),
    ),
    Case(
        "rmsprop torch centered coupled",
        R.rmsprop,
        {
            "decay": 0.99,
            "eps": 1e-2,
            "eps_in_sqrt": False,
            "centered": True,
            "momentum": 0.75,
            "momentum_after": "scaling",
            "weight_decay": 0.1,
        },
        optax=False,
        torch=(
            "RMSprop",
            {"eps": 1e-2, "centered": True, "momentum": 0.75, "weight_decay": 0.1},
        ),
    ),
    Case(
        "rmsprop nesterov after scaling",
        R.rmsprop,
        {"momentum": 0.75, "nesterov": True, "momentum_after": "scaling"},
        optax=False,
    ),
    Case("rmsprop coupled schedule", R.rmsprop, {"weight_decay": rising}, optax=False),
    Case(
        "scale_by_stddev",
        STDDEV,
        {"decay": 0.75, "eps": 1e-2, "initial_scale": 0.5},
    ),
    Case(
        "scale_by_stddev corrected",
        STDDEV,
        {"eps": 1e-2, "initial_scale": 0.5, "bias_correction": True},
    ),
    Case(
        "scale_by_stddev corrected outside",
        STDDEV,
        {
            "eps": 1e-2,
            "initial_scale": 0.5,
            "bias_correction": True,
            "eps_in_sqrt": False,
        },
    ),
    Case("adam", R.adam, torch=("Adam", {})),
    Case("adam constant", R.adam, rate=0.1, torch=("Adam", {})),
    Case(
        "adam short",
        R.adam,
        SHORT | {"eps": 1e-2},
        torch=("Adam", {"betas": (0.75, 0.9375), "eps": 1e-2}),
    ),
    Case("adam eps_root", R.adam, {"b1": 0.0, "eps_root": 1e-2}),
    Case("adam nesterov", R.adam, {"nesterov": True, "eps": 1e-2}),
    Case(
        "adamw",
        functools.partial(R.adam, weight_decay=1e-4),
        torch=("AdamW", {"weight_decay": 1e-4}),
    ),
    Case(
        "adamw masked",
        R.adam,
        SHORT | {"eps_root": 1e-2, "weight_decay": 0.1, "mask": only_w},
    ),
    Case(
        "adamw torch masked",
        R.adam,
        {"weight_decay": 0.1, "mask": only_w},
        torch=("AdamW", {"weight_decay": 0.1}),
    ),
    Case("adamw schedule", R.adam, SHORT | {"eps": 1e-2, "weight_decay": rising}),
    Case("adamw nesterov", R.adam, {"nesterov": True, "weight_decay": 0.1}),
    Case("nadam", NADAM),
    Case("nadam short", NADAM, SHORT | {"eps": 1e-2, "eps_root": 1e-2}),
    Case("nadamw", functools.partial(NADAM, weight_decay=1e-4)),
    Case(
        "nadamw masked",
        NADAM,
        SHORT | {"eps_root": 1e-2, "weight_decay": 0.1, "mask": only_w},
    ),
    Case("amsgrad", R.amsgrad, optax=False, torch=("Adam", {"amsgrad": True})),
    Case(
        "amsgrad short",
        R.amsgrad,
        SHORT | {"eps": 1e-2},
        optax=False,
        torch=("Adam", {"betas": (0.75, 0.9375), "eps": 1e-2, "amsgrad": True}),
    ),
    Case(
        "amsgrad raw",
        R.amsgrad,
        SHORT
        | {"eps_root": 1e-2, "bias_correction_mu": False, "bias_correction_nu": False},
    ),
    Case("amsgrad raw nu", R.amsgrad, {"eps": 1e-2, "bias_correction_nu": False}),
    Case(
        "scale_by_amsgrad raw mu",
        R.amsgrad,
        {"bias_correction_mu": False},
        optax=False,
    ),
    Case("adamax", R.adamax, torch=("Adamax", {})),
    Case(
        "adamax short",
        R.adamax,
        SHORT | {"eps": 1e-2},
        torch=("Adamax", {"betas": (0.75, 0.9375), "eps": 1e-2}),
    ),
    Case("adamaxw", functools.partial(R.adamax, weight_decay=1e-4)),
    Case(
        "adamaxw masked",
        R.adamax,
        SHORT | {"eps": 1e-2, "weight_decay": 0.1, "mask": only_w},
    ),
    Case("adagrad", R.adagrad, rate=steep),
    Case(
        "adagrad root inside",
        R.adagrad,
        {"initial_accumulator_value": 0.0, "eps": 1e-2},
        rate=steep,
    ),
    Case(
        "adagrad torch",
        R.adagrad,
        {"initial_accumulator_value": 0.0, "eps": 1e-10, "eps_in_sqrt": False},
        rate=steep,
        optax=False,
        torch=("Adagrad", {}),
    ),
    Case(
        "adagrad root outside",
        R.adagrad,
        {"initial_accumulator_value": 0.5, "eps": 1e-2, "eps_in_sqrt": False},
        rate=steep,
        optax=False,
        torch=("Adagrad", {"initial_accumulator_value": 0.5, "eps": 1e-2}),
    ),
    Case("radam", R.radam, rate=steep),
    # torch adds eps before the correction: only without eps are the two one rule, and
    # 1e-30 is none, but for the quotient 0/0
    Case(
        "radam torch",
        R.radam,
        {"eps": 1e-30},
        rate=steep,
        torch=("RAdam", {"eps": 1e-30}),
    ),
    Case("radam short", R.radam, SHORT | {"eps": 1e-2, "eps_root": 1e-2}),
    Case("radam threshold", R.radam, {"b2": 0.99, "threshold": 20.0}, rate=steep),
    Case("radam nesterov", R.radam, {"b2": 0.99, "eps": 1e-2, "nesterov": True}),
    Case("lion", functools.partial(R.lion, weight_decay=1e-3)),
    Case(
        "lion masked",
        R.lion,
        {"b1": 0.75, "b2": 0.9375, "weight_decay": 0.1, "mask": only_w},
    ),
    Case("scale_by_lion", R.lion),
    Case("scale_by_lion smooth", R.lion, {"mode": "smooth", "smooth_beta": 2.0}),
    Case("scale_by_lion refined", R.lion, {"b1": 0.25, "mode": "refined"}),
]


def cases(*factories: str) -> list[Case]:
    """Return the cases of some factories, in the order of the table."""
    found = [case for case in CASES if case.factory in factories]
    assert {case.factory for case in found} == set(factories)
    return found


def make(case: Case, library: Any) -> Any:
    """Return gradtx's or optax's optimizer: a link is followed by the learning rate."""
    factory = getattr(library, case.factory)
    if not case.factory.startswith("scale_by"):
        return factory(case.rate, **case.arguments)
    descend = library.scale_by_learning_rate(case.rate)
    return library.chain(factory(**case.arguments), descend)


def ours(case: Case, mode: Mode) -> Path:
    """Return gradtx's path, walked once a session."""
    return _walked(case.family, "gradtx", mode)[case.id]


def optax_path(case: Case, mode: Mode) -> Path:
    """Return optax's path, walked once a session."""
    # optax fails under the strict promotion that the tests run in
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return _walked(case.family, "optax", mode)[case.id]


def reference_path(case: Case) -> Path:
    """Return the path of the NumPy reference, walked once a session."""
    return _walked_numpy(case.id)


@functools.cache
def _walked(family: str, library: str, mode: Mode) -> dict[str, Path]:
    module = importlib.import_module(library)
    txs = {
        case.id: make(case, module)
        for case in CASES
        if case.family == family and (case.optax or library == "gradtx")
    }
    return _paths.walk_jax(txs, module.apply_updates, mode)


@functools.cache
def _walked_numpy(name: str) -> Path:
    case = by_id(name)
    arguments = dict(case.arguments)
    decays = arguments.pop("mask", lambda params: dict.fromkeys(params, True))
    steps = {
        leaf: case.rule(**(arguments if flag else arguments | {"weight_decay": 0.0}))
        for leaf, flag in decays(_paths.START).items()
    }
    rate = case.rate if callable(case.rate) else lambda t: case.rate
    return _paths.walk_numpy(steps, rate)


def by_id(name: str) -> Case:
    """Return one case."""
    return next(case for case in CASES if case.id == name)
