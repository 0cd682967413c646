"""Restore what was saved into something else: `python -m tests.checkpoint.wrong_restores`.

The command prints a table of what gradtx, Orbax and Flax do with each, under the same
states of gradtx: whether it is caught, and whether the message says what changed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import gradtx
from gradtx import checkpoint
from tests.checkpoint._sides import SHAPES, Side, filled, side

WD = gradtx.ndim_at_least(2)
KEY = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)
RBG = jax.ShapeDtypeStruct((), jax.random.key(0, impl="rbg").dtype)
RAW = jax.ShapeDtypeStruct((2,), jnp.uint32)
COSINE = gradtx.cosine_decay_schedule(1e-3, 100)
WARMUP = gradtx.warmup_cosine_decay_schedule(0.0, 1e-3, 10, 100)


def noise(seed: int) -> Any:
    """Return a chain with noise from a seed."""
    return gradtx.chain(gradtx.add_noise(0.1, 0.5, key=seed), gradtx.scale(-0.1))


def groups(rate: float = 0.1, names: Any = (True, False)) -> Any:
    """Return two optimizers, one of matrices and one of the rest."""
    made = dict(zip(names, (gradtx.adamw(1e-3), gradtx.sgd(rate, 0.9)), strict=True))
    return gradtx.partition(made, WD)


def raw(factor: float) -> Any:
    """Return a pair of functions that knows nothing of itself."""
    init = lambda params: gradtx.EmptyState()

    def halved(updates, state, params=None, **extra):
        return jax.tree.map(lambda u: u * factor, updates), state

    def doubled(updates, state, params=None, **extra):
        return jax.tree.map(lambda u: u * factor, updates), state

    return gradtx.GradientTransformation(init, halved if factor < 1 else doubled)


def masked_by(function: Any) -> Any:
    """Return a decay under a mask that is a plain function."""
    return gradtx.adamw(1e-3, weight_decay=0.1, mask=function)


def matrices(params):
    """Select matrices."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def vectors(params):
    """Select vectors."""
    return jax.tree.map(lambda p: p.ndim == 1, params)


def plain(shapes: Any, dtype: Any = jnp.float32, **more: Any) -> Side:
    """Return parameters without an optimizer."""
    return side(None, shapes, dtype, **more)


chain, adam, trace = gradtx.chain, gradtx.adam, gradtx.trace

#: What is saved, by name.
THEN: dict[str, Callable[[], Side]] = {
    "adam": lambda: side(adam(1e-3)),
    "adamw": lambda: side(gradtx.adamw(1e-3, weight_decay=0.01)),
    "adamw, mask": lambda: side(gradtx.adamw(1e-3, mask=WD)),
    "adam, mu bf16": lambda: side(adam(1e-3, mu_dtype=jnp.bfloat16)),
    "adam, cosine": lambda: side(adam(COSINE)),
    "adam, warm-up": lambda: side(adam(WARMUP)),
    "sgd": lambda: side(gradtx.sgd(0.1, 0.9)),
    "rmsprop": lambda: side(gradtx.rmsprop(0.1)),
    "clip, adam": lambda: side(chain(gradtx.clip_by_global_norm(1.0), adam(1e-3))),
    "ema, adam": lambda: side(chain(gradtx.ema(0.9), adam(1e-3))),
    "traces": lambda: side(chain(trace(0.9), trace(0.5), gradtx.scale(-0.1))),
    "accumulate": lambda: side(gradtx.accumulate(adam(1e-3), every=2)),
    "lookahead": lambda: side(gradtx.lookahead(adam(1e-3), 5, 0.5)),
    "masked": lambda: side(gradtx.masked(gradtx.ema(0.9), gradtx.path_matches("enc"))),
    "freeze": lambda: side(
        chain(adam(1e-3), gradtx.freeze(gradtx.path_matches("out")))
    ),
    "partition": lambda: side(groups()),
    "noise": lambda: side(noise(0)),
    "observed": lambda: side(gradtx.observe(adam(1e-3), every=10)),
    "guarded": lambda: side(gradtx.guarded(adam(1e-3), sigmas=3.0)),
    "scaled": lambda: side(gradtx.dynamic_loss_scaling(adam(1e-3))),
    "injected": lambda: side(gradtx.inject_hyperparams(adam)(1e-3)),
    "raw": lambda: side(chain(raw(0.5), adam(1e-3))),
    "lambda": lambda: side(masked_by(matrices)),
    "named": lambda: side(
        gradtx.named_chain(("first", trace(0.9)), ("last", trace(0.5)))
    ),
    "plain": lambda: plain(SHAPES),
    "bf16": lambda: side(adam(1e-3), dtype=jnp.bfloat16),
    "list": lambda: plain([(2, 3), (3, 2), (4,)]),
    "key": lambda: plain(SHAPES, rng=KEY),
    "raw key": lambda: plain(SHAPES, rng=RAW),
    "number": lambda: plain(SHAPES, epoch=3),
    "no tx": lambda: side(adam(1e-3))._replace(tx=None),
}


class Row(NamedTuple):
    """A restoration that must not pass.

    Attributes:
      name: what differs.
      then: what was saved, by its name in `THEN`.
      now: what it is restored into.
      told: what the message must say.
      allow: the hyperparameters that make it right, where that is all that differs.
      arguments: further ones of `restore`.
      peers: whether the question makes sense for peers.
    """

    name: str
    then: str
    now: Callable[[], Side]
    told: tuple[str, ...]
    allow: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = MappingProxyType({})
    peers: bool = True


def _hyper(name: str, then: str, tx: Callable[[], Any], path: str, *values: str) -> Row:
    wanted = (f"hyperparameter {path}: {values[0]} -> {values[1]}", "allow_hyper")
    return Row(name, then, lambda: side(tx()), wanted, (path,))


def _other(name: str, then: str, tx: Callable[[], Any], *told: str) -> Row:
    return Row(name, then, lambda: side(tx()), (*told, "migrate=True"))


def _leaf(name: str, then: str, now: Callable[[], Side], *told: str) -> Row:
    return Row(name, then, now, (*told, "trees are not those that were saved"))


HYPERPARAMETERS = [
    _hyper(
        "learning rate", "adam", lambda: adam(1e-2), "learning_rate", "0.001", "0.01"
    ),
    _hyper("b1", "adam", lambda: adam(1e-3, b1=0.8), "b1", "0.9", "0.8"),
    _hyper("b2", "adam", lambda: adam(1e-3, b2=0.99), "b2", "0.999", "0.99"),
    _hyper("eps", "adam", lambda: adam(1e-3, eps=1e-6), "eps", "1e-08", "1e-06"),
    _hyper(
        "eps_root", "adam", lambda: adam(1e-3, eps_root=0.1), "eps_root", "0.0", "0.1"
    ),
    _hyper(
        "nesterov",
        "adam",
        lambda: adam(1e-3, nesterov=True),
        "nesterov",
        "false",
        "true",
    ),
    _hyper(
        "weight decay",
        "adamw",
        lambda: gradtx.adamw(1e-3, weight_decay=0.1),
        "weight_decay",
        "0.01",
        "0.1",
    ),
    _hyper("momentum", "sgd", lambda: gradtx.sgd(0.1, 0.95), "momentum", "0.9", "0.95"),
    _hyper(
        "sgd nesterov",
        "sgd",
        lambda: gradtx.sgd(0.1, 0.9, True),
        "nesterov",
        "false",
        "true",
    ),
    _hyper(
        "rmsprop decay",
        "rmsprop",
        lambda: gradtx.rmsprop(0.1, 0.99),
        "decay",
        "0.9",
        "0.99",
    ),
    _hyper(
        "cosine horizon",
        "adam, cosine",
        lambda: adam(gradtx.cosine_decay_schedule(1e-3, 10)),
        "learning_rate.decay_steps",
        "100",
        "10",
    ),
    _hyper(
        "warm-up",
        "adam, warm-up",
        lambda: adam(gradtx.warmup_cosine_decay_schedule(0.0, 1e-3, 20, 100)),
        "learning_rate.warmup_steps",
        "10",
        "20",
    ),
    _hyper(
        "schedule -> constant",
        "adam, cosine",
        lambda: adam(1e-3),
        "learning_rate",
        "cosine_decay_schedule(0.001, 100)",
        "0.001",
    ),
    _hyper(
        "constant -> schedule",
        "adam",
        lambda: adam(COSINE),
        "learning_rate",
        "0.001",
        "cosine_decay_schedule(0.001, 100)",
    ),
    _hyper(
        "clip norm",
        "clip, adam",
        lambda: chain(gradtx.clip_by_global_norm(5.0), adam(1e-3)),
        "clip_by_global_norm.max_norm",
        "1.0",
        "5.0",
    ),
    _hyper(
        "ema decay",
        "ema, adam",
        lambda: chain(gradtx.ema(0.99), adam(1e-3)),
        "ema.decay",
        "0.9",
        "0.99",
    ),
    _hyper(
        "accumulate 2 -> 8 in a window",
        "accumulate",
        lambda: gradtx.accumulate(adam(1e-3), every=8),
        "every",
        "2",
        "8",
    ),
    _hyper(
        "rate inside accumulate",
        "accumulate",
        lambda: gradtx.accumulate(adam(1e-2), every=2),
        "inner.learning_rate",
        "0.001",
        "0.01",
    ),
    _hyper(
        "lookahead period",
        "lookahead",
        lambda: gradtx.lookahead(adam(1e-3), 10, 0.5),
        "sync_period",
        "5",
        "10",
    ),
    _hyper(
        "rate of one group",
        "partition",
        lambda: groups(0.2),
        "transforms.False.learning_rate",
        "0.1",
        "0.2",
    ),
    _hyper("noise seed", "noise", lambda: noise(1), "add_noise.key", "0", "1"),
    _hyper(
        "what is observed when",
        "observed",
        lambda: gradtx.observe(adam(1e-3), every=20),
        "every",
        "10",
        "20",
    ),
    _hyper(
        "guard threshold",
        "guarded",
        lambda: gradtx.guarded(adam(1e-3), sigmas=6.0),
        "sigmas",
        "3.0",
        "6.0",
    ),
    _hyper(
        "loss scale interval",
        "scaled",
        lambda: gradtx.dynamic_loss_scaling(adam(1e-3), interval=100),
        "interval",
        "2000",
        "100",
    ),
    _hyper(
        "traces swapped",
        "traces",
        lambda: chain(trace(0.5), trace(0.9), gradtx.scale(-0.1)),
        "trace.decay",
        "0.9",
        "0.5",
    )._replace(allow=("trace.decay", "trace_2.decay")),
    _hyper(
        "named traces swapped",
        "named",
        lambda: gradtx.named_chain(("first", trace(0.5)), ("last", trace(0.9))),
        "first.decay",
        "0.9",
        "0.5",
    )._replace(allow=("first.decay", "last.decay")),
]

OPTIMIZERS = [
    *(
        _other(
            f"adam -> {name}",
            "adam",
            lambda name=name: getattr(gradtx, name)(1e-3),
            name,
        )
        for name in (
            "adabelief",
            "radam",
            "yogi",
            "nadam",
            "adamax",
            "amsgrad",
            "adamw",
            "adan",
            "lion",
            "sgd",
        )
    ),
    _other("adamw -> lamb", "adamw", lambda: gradtx.lamb(1e-3), "adamw", "lamb"),
    _other("sgd -> signum", "sgd", lambda: gradtx.signum(0.1), "sgd", "signum"),
    _other("rmsprop -> adagrad", "rmsprop", lambda: gradtx.adagrad(0.1), "adagrad"),
    _other(
        "clip and adam swapped",
        "clip, adam",
        lambda: chain(adam(1e-3), gradtx.clip_by_global_norm(1.0), deliberate=True),
        "clip_by_global_norm, adam -> adam, clip_by_global_norm",
    ),
    _other(
        "ema and adam swapped",
        "ema, adam",
        lambda: chain(adam(1e-3), gradtx.ema(0.9)),
        "ema, adam -> adam, ema",
    ),
    _other(
        "link added",
        "clip, adam",
        lambda: chain(gradtx.clip_by_global_norm(1.0), gradtx.ema(0.9), adam(1e-3)),
        "clip_by_global_norm, adam -> clip_by_global_norm, ema, adam",
    ),
    _other(
        "link dropped", "ema, adam", lambda: adam(1e-3), "chain(ema", "-> adam(0.001)"
    ),
    _other(
        "wrapped",
        "adam",
        lambda: gradtx.accumulate(adam(1e-3), every=2),
        "adam(0.001) -> accumulate(adam(0.001), 2)",
    ),
    _other(
        "wrapped, with another rate",
        "adam",
        lambda: gradtx.accumulate(adam(1e-2), every=2),
        "adam(0.001) -> accumulate(adam(0.01), 2)",
        "inner.learning_rate: 0.001 -> 0.01",
    ),
    _other(
        "unwrapped", "lookahead", lambda: adam(1e-3), "lookahead(", "-> adam(0.001)"
    ),
    _other(
        "observed from now on",
        "adam",
        lambda: gradtx.observe(adam(1e-3)),
        "observe(adam",
    ),
    _other(
        "dynamic -> static loss scale",
        "scaled",
        lambda: gradtx.static_loss_scaling(adam(1e-3), 128.0),
        "dynamic_loss_scaling",
        "static_loss_scaling",
    ),
    _other(
        "group renamed",
        "partition",
        lambda: gradtx.partition(
            {"m": gradtx.adamw(1e-3), "v": gradtx.sgd(0.1, 0.9)},
            gradtx.label_paths({"out": "m", "enc": "v"}, "m"),
        ),
        "transforms: False, True -> m, v",
    ),
    _other(
        "links renamed",
        "named",
        lambda: gradtx.named_chain(("one", trace(0.9)), ("two", trace(0.5))),
        "first, last -> one, two",
    ),
]

LEAVES = [
    _leaf(
        "params bf16 -> f32",
        "bf16",
        lambda: side(adam(1e-3)),
        "params['enc']['w']: bfloat16[4, 3] -> float32[4, 3]",
    ),
    _leaf(
        "params f32 -> bf16",
        "adam",
        lambda: side(adam(1e-3), dtype=jnp.bfloat16),
        "params['enc']['w']: float32[4, 3] -> bfloat16[4, 3]",
    ),
    _leaf(
        "reshaped",
        "adam",
        lambda: side(adam(1e-3), {**SHAPES, "out": (6,)}),
        "params['out']: float32[3, 2] -> float32[6]",
        "opt_state.scale_by_adam.mu['out']",
    ),
    _leaf(
        "grown",
        "adam",
        lambda: side(adam(1e-3), {**SHAPES, "out": (3, 5)}),
        "params['out']: float32[3, 2] -> float32[3, 5]",
    ),
    _leaf(
        "shrunk",
        "adam",
        lambda: side(adam(1e-3), {**SHAPES, "out": (3, 1)}),
        "params['out']: float32[3, 2] -> float32[3, 1]",
    ),
    _leaf(
        "transposed",
        "adam",
        lambda: side(adam(1e-3), {**SHAPES, "out": (2, 3)}),
        "params['out']: float32[3, 2] -> float32[2, 3]",
    ),
    _leaf(
        "renamed",
        "adam",
        lambda: side(adam(1e-3), {"enc": SHAPES["enc"], "head": (3, 2)}),
        "params['out']: float32[3, 2] -> absent",
        "params['head']: absent -> float32[3, 2]",
    ),
    _leaf(
        "removed",
        "adam",
        lambda: side(adam(1e-3), {"enc": SHAPES["enc"]}),
        "params['out']: float32[3, 2] -> absent",
    ),
    _leaf(
        "added",
        "adam",
        lambda: side(adam(1e-3), {**SHAPES, "z": (1,)}),
        "params['z']: absent -> float32[1]",
    ),
    _leaf(
        "list reordered",
        "list",
        lambda: plain([(3, 2), (2, 3), (4,)]),
        "params[0]: float32[2, 3] -> float32[3, 2]",
    ),
    _leaf(
        "list -> dict",
        "list",
        lambda: plain({"0": (2, 3), "1": (3, 2), "2": (4,)}),
        "params[0]: float32[2, 3] -> absent",
    ),
    _leaf(
        "f32 -> i32",
        "plain",
        lambda: plain(SHAPES, jnp.int32),
        "float32[3, 2] -> int32[3, 2]",
    ),
    _leaf(
        "threefry -> rbg",
        "key",
        lambda: plain(SHAPES, rng=RBG),
        "key:threefry2x32 of uint32[2] -> key:rbg of uint32[4]",
    ),
    _leaf(
        "typed key -> its data",
        "key",
        lambda: plain(SHAPES, rng=RAW),
        "key:threefry2x32 of uint32[2] -> uint32[2]",
    ),
    _leaf(
        "data -> typed key",
        "raw key",
        lambda: plain(SHAPES, rng=KEY),
        "uint32[2] -> key:threefry2x32 of uint32[2]",
    ),
    _leaf(
        "number -> array",
        "number",
        lambda: plain(SHAPES, epoch=jax.ShapeDtypeStruct((), jnp.int32)),
        "epoch: int of int64[] -> int32[]",
    ),
    _leaf(
        "trees swapped",
        "no tx",
        lambda: Side(
            None,
            {
                "params": side(adam(1e-3)).trees["opt_state"],
                "opt_state": side(None).trees["params"],
            },
        ),
        "params['out']: float32[3, 2] -> absent",
        "opt_state.scale_by_adam",
    ),
]

OTHERS = [
    Row(
        "mu bf16 -> f32",
        "adam, mu bf16",
        lambda: side(adam(1e-3)),
        ("mu_dtype", "bfloat16"),
    ),
    Row(
        "mu f32 -> bf16",
        "adam",
        lambda: side(adam(1e-3, mu_dtype=jnp.bfloat16)),
        ("mu_dtype", "bfloat16"),
    ),
    Row(
        "mu f32 -> bf16, allowed: moments are not cast",
        "adam",
        lambda: side(adam(1e-3, mu_dtype=jnp.bfloat16)),
        ("opt_state.scale_by_adam.mu['out']: float32[3, 2] -> bfloat16[3, 2]",),
        arguments={"allow_hyperparameters": ["mu_dtype"], "allow_opaque": True},
        peers=False,
    ),
    Row(
        "decay mask changed",
        "adamw, mask",
        lambda: side(gradtx.adamw(1e-3, mask=gradtx.ndim_at_least(1))),
        ("mask.ndim: 2 -> 1", "allow_hyperparameters=['mask.ndim']"),
    ),
    Row(
        "decay mask dropped",
        "adamw, mask",
        lambda: side(gradtx.adamw(1e-3)),
        ("mask: ndim_at_least(2) -> null",),
    ),
    Row(
        "regular expression of masked",
        "masked",
        lambda: side(gradtx.masked(gradtx.ema(0.9), gradtx.path_matches("out"))),
        ("mask.pattern", '"enc" -> "out"'),
    ),
    Row(
        "regular expression of masked, allowed: other leaves are masked",
        "masked",
        lambda: side(gradtx.masked(gradtx.ema(0.9), gradtx.path_matches("out"))),
        ("ema['out']: absent -> float32[3, 2]",),
        arguments={"allow_hyperparameters": ["mask"]},
        peers=False,
    ),
    Row(
        "frozen leaves",
        "freeze",
        lambda: side(chain(adam(1e-3), gradtx.freeze(gradtx.path_matches("enc")))),
        ("freeze.mask.pattern", '"out" -> "enc"'),
    ),
    Row(
        "rule of the groups",
        "partition",
        lambda: side(
            gradtx.partition(
                {True: gradtx.adamw(1e-3), False: gradtx.sgd(0.1, 0.9)},
                gradtx.ndim_at_least(1),
            )
        ),
        ("param_labels.ndim: 2 -> 1",),
    ),
    Row(
        "injected learning rate",
        "injected",
        lambda: side(gradtx.inject_hyperparams(adam)(1e-2)),
        ("learning_rate: 0.001 -> 0.01",),
    ),
    Row(
        "function of a raw link",
        "raw",
        lambda: side(chain(raw(2.0), adam(1e-3))),
        ("halved", "doubled", "allow_opaque=True"),
    ),
    Row(
        "a raw link that nothing can be told of",
        "raw",
        lambda: side(chain(raw(0.25), adam(1e-3))),
        ("halved", "then and now", "allow_opaque=True"),
        peers=False,
    ),
    Row(
        "a mask that nothing can be told of",
        "lambda",
        lambda: side(masked_by(matrices)),
        ("opaque mask", "matrices", "then and now"),
        peers=False,
    ),
    Row(
        "function of a mask",
        "lambda",
        lambda: side(masked_by(vectors)),
        ("opaque mask", "matrices", "vectors"),
    ),
    Row(
        "mask from function to rule",
        "lambda",
        lambda: side(masked_by(WD)),
        ("opaque mask", "matrices", "ndim_at_least(2)"),
    ),
    Row(
        "other names allowed",
        "adam",
        lambda: side(adam(1e-2, b2=0.99)),
        ("hyperparameter b2: 0.999 -> 0.99",),
        arguments={"allow_hyperparameters": ["learning_rate"]},
        peers=False,
    ),
    Row(
        "saved without an optimizer",
        "no tx",
        lambda: side(gradtx.adam(1e-2)),
        ("without tx=", "allow_opaque=True"),
        peers=False,
    ),
    Row(
        "restored without an optimizer",
        "adam",
        lambda: side(adam(1e-3))._replace(tx=None),
        ("Give tx=",),
        peers=False,
    ),
    Row(
        "no such tree",
        "adam",
        lambda: Side(None, {"ema": side(None).trees["params"]}),
        ("nothing was saved as 'ema'", "opt_state, params"),
    ),
]

ROWS = [*HYPERPARAMETERS, *OPTIMIZERS, *LEAVES, *OTHERS]


def saved(name: str, directory: Path) -> Side:
    """Save what has a name in `THEN`, filled with numbers; return it."""
    then = THEN[name]()
    then = Side(then.tx, filled(then.trees))
    checkpoint.save(directory, 7, tx=then.tx, **then.trees)
    return then


def of_gradtx(row: Row, directory: Path) -> str:
    """Say what `gradtx.checkpoint` does."""
    now = row.now()
    try:
        checkpoint.restore(directory, tx=now.tx, **row.arguments, **now.trees)
    except gradtx.MismatchError:
        return "caught, named"
    return "silent"


def of_orbax(row: Row, then: Side, directory: Path) -> str:
    """Say what Orbax's `StandardCheckpointer` does with the same trees."""
    import orbax.checkpoint

    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        try:
            if not directory.exists():
                checkpointer.save(directory, then.trees)
                checkpointer.wait_until_finished()
            now = _concrete(row.now().trees)
            checkpointer.restore(directory, now)
        except Exception as error:
            return f"caught ({type(error).__name__})"
    return "silent"


def of_flax(row: Row, then: Side) -> str:
    """Say what `flax.serialization` does with the same trees."""
    import flax.serialization

    try:
        raw_bytes = flax.serialization.to_bytes(then.trees)
    except Exception:
        return "cannot save"
    try:
        flax.serialization.from_bytes(_concrete(row.now().trees), raw_bytes)
    except Exception as error:
        return f"caught ({type(error).__name__})"
    return "silent"


def _concrete(tree: Any) -> Any:
    return filled(tree, 1)


def table() -> list[tuple[str, str, str, str]]:
    """Return the name of each row, and what gradtx, Orbax and Flax do."""
    found, then = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        for row in ROWS:
            ours = Path(scratch) / "gradtx" / row.then
            if row.then not in then:
                then[row.then] = saved(row.then, ours)
            theirs = Path(scratch) / "orbax" / row.then
            others = ("-", "-")
            if row.peers:
                orbax = of_orbax(row, then[row.then], theirs)
                others = (orbax, of_flax(row, then[row.then]))
            found.append((row.name, of_gradtx(row, ours), *others))
    return found


def main() -> None:
    """Print the table, and how many are silent."""
    found = table()
    print("| saved, then restored with | gradtx | Orbax | Flax |\n|---|---|---|---|")
    for line in found:
        print(f"| {' | '.join(line)} |")
    silent = [sum(line[i] == "silent" for line in found) for i in (1, 2, 3)]
    print(f"| silent, of {len(found)} | {' | '.join(map(str, silent))} |")


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()
