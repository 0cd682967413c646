"""The optimizers that are compared, by name, as gradtx and optax both spell them."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from benchmarks._options import Options
from benchmarks._trees import TREES

RATE = 1e-3

#: By name: arrays the size of the parameters that a step must at least read or write.
#: The gradient and the parameter read, the parameter written; 2 for each moment; 1 for
#: a norm before. Adafactor reads p and g for its means, g for the norm of the update,
#: and g and p to write p. What Muon multiplies is not counted.
MINIMAL = {
    "sgd": 3,
    "momentum": 5,
    "rmsprop": 5,
    "adam": 7,
    "adamw": 7,
    "clip_adamw": 8,
    "lion": 5,
    "adafactor": 6,
    "muon": 5,
}

OPTIMIZERS = tuple(MINIMAL)


def optimizer(library: ModuleType, name: str) -> Any:
    """Return an optimizer of gradtx or of optax.

    Args:
      library: the module `gradtx` or `optax`.
      name: one of `OPTIMIZERS`.
    """
    if name == "clip_adamw":
        return library.chain(library.clip_by_global_norm(1.0), library.adamw(RATE))
    if name == "momentum":
        return library.sgd(RATE, momentum=0.9)
    if name == "muon":
        return library.contrib.muon(RATE)
    if name in OPTIMIZERS:
        return getattr(library, name)(RATE)
    raise ValueError(f"no optimizer {name!r}; there are {', '.join(OPTIMIZERS)}.")


def torch_optimizer(name: str, parameters: list[Any], form: str) -> Any:
    """Return torch's optimizer, or None where torch has none in this form.

    Args:
      name: one of `OPTIMIZERS`.
      parameters: torch parameters.
      form: "foreach" or "fused".
    """
    import torch

    keywords: dict[str, Any] = {"lr": RATE, form: True}
    kinds = {
        "sgd": (torch.optim.SGD, {}),
        "momentum": (torch.optim.SGD, {"momentum": 0.9}),
        "adam": (torch.optim.Adam, {}),
        "adamw": (torch.optim.AdamW, {"weight_decay": 1e-4}),
        "clip_adamw": (torch.optim.AdamW, {"weight_decay": 1e-4}),
    }
    if form == "foreach":
        kinds |= {
            "rmsprop": (torch.optim.RMSprop, {"alpha": 0.9}),
            "adafactor": (torch.optim.Adafactor, {}),
        }
    if name == "muon" and form == "foreach" and all(p.ndim == 2 for p in parameters):
        return torch.optim.Muon(parameters, lr=RATE)  # has one form only
    if name not in kinds:
        return None
    make, more = kinds[name]
    return make(parameters, **keywords, **more)


def suits(name: str, tree: str, size: str) -> bool:
    """Say whether an optimizer is worth measuring on a tree.

    Muon is for matrices, and takes a minute a step for all of GPT-2 on two cores: it
    has the tree "layers" of its own, and nothing else goes there.
    """
    if tree == "layers" or name == "muon":
        return name == "muon" and (
            tree == "layers" or (tree == "mlp" and size != "quick")
        )
    return True


def cases(options: Options) -> Iterator[tuple[str, str]]:
    """Yield each tree and optimizer of a run that measures one step."""
    usual = ("sgd", "adamw", "clip_adamw", "muon")
    for tree in options.pick("trees", *[tuple(TREES)] * 3):
        for name in options.pick(
            "optimizers", ("clip_adamw", "muon"), usual, OPTIMIZERS
        ):
            if suits(name, tree, options.size):
                yield tree, name
