"""Train a small network on handwritten digits, with an optimizer made of parts.

    python examples/digits.py                    # on all local devices
    python examples/digits.py --devices 8        # on eight parts of a CPU
    python examples/digits.py --stop-after 10    # part of the way; then go on:
    python examples/digits.py --resume           # bit for bit as without the stop
    python examples/digits.py --telemetry        # see inside the optimizer meanwhile

Each device computes the mean gradient of its share of a batch; the first link of the
optimizer averages them. curves.png and the checkpoints of a run are left in --out, and
with --telemetry what was measured: the run is the same to the bit, and so are its
checkpoints.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from _checkpoints import open_checkpoints, restore, save
from _command_line import Refused, at_least, defer_interrupts, use_devices
from _data import Batch, batches, load_data
from _report import (
    draw_curves,
    hyperparameter_table,
    progress_bar,
    replicas_equal,
    summary,
)
from _telemetry import (
    Nobody,
    Watcher,
    inside,
    open_telemetry,
    report_telemetry,
    unwatch,
    watch,
    where_to_look,
)
from flax import struct
from flax.jax_utils import replicate, unreplicate
from flax.training import train_state
from rich.console import Console

import gradtx


class Network(nn.Module):
    """Two convolutions and two dense layers."""

    @nn.compact
    def __call__(self, image):  # (batch, 8, 8, 1) -> (batch, 10)
        x = nn.relu(nn.Conv(16, (3, 3))(image))
        x = nn.relu(nn.Conv(32, (3, 3), strides=2)(x))
        x = nn.relu(nn.Dense(64)(x.reshape(len(x), -1)))
        return nn.Dense(10)(x)


class TrainState(train_state.TrainState):
    """Flax's training state, with the key of the random shifts."""

    key: jax.Array
    tx: Any = struct.field(pytree_node=False)  # Flax's type knows no extra arguments


def make_optimizer(
    options: argparse.Namespace, epoch_steps: int
) -> gradtx.GradientTransformation:
    """Compose the optimizer; its schedule spans --epochs, wherever a run stops."""
    precondition = {
        "adam": gradtx.scale_by_adam(b1=0.9, b2=0.999),
        "rms": gradtx.scale_by_rms(decay=0.99, bias_correction=True),
    }
    learning_rate = gradtx.schedules.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=options.learning_rate,
        warmup_steps=round(options.warmup * options.epochs * epoch_steps),
        decay_steps=options.epochs * epoch_steps,
    )
    return gradtx.chain(
        gradtx.pmean_gradients("data", weighted=True),
        gradtx.clip_by_global_norm(options.clip),
        precondition[options.optimizer],
        gradtx.add_decayed_weights(options.weight_decay, gradtx.ndim_at_least(2)),
        gradtx.scale_by_learning_rate(learning_rate),
    )


def shifted(key: jax.Array, image: jax.Array) -> jax.Array:
    """Move each image of (batch, 8, 8, 1) by up to one pixel along each axis."""
    padded = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    corners = jax.random.randint(key, (len(image), 2), 0, 3)
    cut = lambda x, corner: jax.lax.dynamic_slice(x, (*corner, 0), (8, 8, 1))
    return jax.vmap(cut)(padded, corners)


def totals(logits: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return summed cross-entropy, right answers and examples, by weight."""
    loss = -jnp.take_along_axis(nn.log_softmax(logits), batch.label[:, None], axis=1)
    right = jnp.argmax(logits, axis=1) == batch.label
    weight = batch.weight
    return jnp.sum(weight * loss[:, 0]), jnp.sum(weight * right), jnp.sum(weight)


def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
    """Update once, from one device's share of a batch; runs under pmap."""
    key, now = jax.random.split(state.key)
    image = shifted(jax.random.fold_in(now, jax.lax.axis_index("data")), batch.image)

    def mean_loss(params):
        sums = totals(state.apply_fn({"params": params}, image), batch)
        return sums[0] / jnp.maximum(sums[2], 1), sums

    grads, sums = jax.grad(mean_loss, has_aux=True)(state.params)
    # state.apply_gradients hands no extra arguments on to the optimizer
    updates, opt_state = state.tx.update(
        grads, state.opt_state, state.params, example_count=sums[2]
    )
    params = gradtx.apply_updates(state.params, updates)
    loss, right, count = jax.lax.psum(sums, "data")
    metrics = {
        "loss": loss / count,
        "accuracy": right / count,
        "learning_rate": inside(opt_state).scale_by_learning_rate.step_size,
        "gradient_norm": inside(opt_state).clip_by_global_norm.norm,
    }
    step = state.step + 1
    state = state.replace(step=step, params=params, opt_state=opt_state, key=key)
    return state, metrics


def test_step(state: TrainState, batch: Batch) -> tuple[jax.Array, ...]:
    """Return `totals` over all devices; runs under pmap."""
    logits = state.apply_fn({"params": state.params}, batch.image)
    return jax.lax.psum(totals(logits, batch), "data")


def train_epoch(
    step: Callable[..., Any],
    state: TrainState,
    epoch: int,
    parts: Sequence[Batch],
    report: Callable[..., None],
    recorder: Watcher,
) -> tuple[TrainState, list[dict[str, float]]]:
    """Update once per batch; return also what was measured at each update."""
    measured = []
    for number, batch in enumerate(parts, start=1):
        state, metrics = step(state, batch)
        watched = {name: metrics[name] for name in ("loss", "accuracy")}
        recorder.record(epoch * len(parts) + number, state.opt_state, **watched)
        row = {name: float(value) for name, value in metrics.items()}
        measured.append(row | {"epoch": epoch + number / len(parts)})
        report(measured[-1])
    return state, measured


def evaluate(
    step: Callable[..., Any], state: TrainState, parts: Iterable[Batch]
) -> dict[str, float]:
    """Return mean loss and accuracy over all examples, each counted once."""
    sums = [step(state, batch) for batch in parts]
    loss, right, count = np.sum(jax.device_get(sums), axis=0)
    return {"loss": float(loss / count), "accuracy": float(right / count)}


def train(options: argparse.Namespace, console: Console) -> None:
    """Train, test and save epoch by epoch, then report."""
    stop_if_asked = defer_interrupts()
    devices = use_devices(options.devices)
    split = functools.partial(batches, size=options.batch_size, devices=len(devices))
    train_data, test_data = load_data(options.seed)
    epoch_steps = len(list(split(train_data)))
    tx = make_optimizer(options, epoch_steps)
    console.print(tx, hyperparameter_table(tx))

    network, key = Network(), jax.random.key(options.seed)
    params = jax.jit(network.init)(key, train_data.image[:1])["params"]
    state = TrainState.create(apply_fn=network.apply, params=params, tx=tx, key=key)
    state = state.replace(step=jnp.zeros((), jnp.int32))  # as it is once it has counted
    pmap = functools.partial(jax.pmap, axis_name="data", devices=devices)
    train_on = pmap(train_step, out_axes=(0, None))  # metrics are equal everywhere
    test_on = pmap(test_step, out_axes=None)

    settings = {name: getattr(options, name) for name in ("seed", "batch_size")}
    record: dict[str, Any] = {
        "settings": settings | {"devices": len(devices)},
        "epoch": 0,  # the place in the data: each epoch has an order of its own
        "steps": [],
        "tests": [],
    }
    empty = not options.resume
    recording = contextlib.nullcontext(Nobody())
    if options.telemetry:
        recording = open_telemetry(options.out, options.port, tx, params, empty=empty)
    began = time.perf_counter()
    checkpoints = open_checkpoints(options.out, tx, empty=empty)
    with checkpoints as manager, recording as recorder:
        if options.resume:
            with recorder.checkpoint("restore"):
                change = options.allow_change
                state, record, skipped = restore(manager, tx, state, record, change)
            console.print(*skipped, sep="\n", end="\n" * bool(skipped), soft_wrap=True)
        else:
            with recorder.checkpoint():
                save(manager, state, record)
        if options.telemetry:
            state = watch(state)  # and checkpoints keep the state without it
            commands = where_to_look(recorder).values()
            lines = ["to look inside while it trains:", *(f"  {c}" for c in commands)]
            console.print(*lines, sep="\n", soft_wrap=True, highlight=False)
        # over the axis that pmap will have, or the second step is compiled again
        state = replicate(state, devices, "data")
        last = min(options.epochs, options.stop_after or options.epochs)
        with progress_bar(console, record["epoch"], options.epochs) as report:
            for epoch in range(record["epoch"], last):
                stop_if_asked()
                shuffle = np.random.default_rng([options.seed, epoch]).permutation
                parts = list(split(train_data, shuffle(len(train_data.label))))
                state, steps = train_epoch(
                    train_on, state, epoch, parts, report, recorder
                )
                test = evaluate(test_on, state, split(test_data))
                record = record | {
                    "epoch": epoch + 1,
                    "steps": record["steps"] + steps,
                    "tests": record["tests"] + [test | {"epoch": epoch + 1}],
                }
                recorder.write(len(record["steps"]), validation_loss=test["loss"])
                with recorder.checkpoint():
                    save(manager, unwatch(unreplicate(state)), record)
    seconds = time.perf_counter() - began

    trained = evaluate(test_on, state, split(train_data))
    same = replicas_equal((state.params, state.opt_state))
    console.print(summary(record, trained, same, seconds))
    draw_curves(options.out / "curves.png", record, clip=options.clip)
    if options.telemetry:
        report_telemetry(options.out, recorder, console)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add, some = parser.add_argument, at_least(1)
    add("--optimizer", choices=("adam", "rms"), default="adam", help="default adam")
    add("--learning-rate", type=float, default=5e-3, help="its peak, default 0.005")
    add("--weight-decay", type=float, default=0.1, help="of kernels, default 0.1")
    add("--clip", type=float, default=1.0, help="largest gradient norm, default 1")
    add("--warmup", type=float, default=0.1, help="share of the run, default 0.1")
    add("--epochs", type=some, default=30, help="length of the schedule, default 30")
    add("--stop-after", type=some, help="epoch at which to stop before that")
    add("--batch-size", type=some, default=64, help="over all devices, default 64")
    add("--seed", type=at_least(0), default=0, help="of data and network, default 0")
    add("--devices", type=some, help="default all; a CPU is split into as many")
    add(
        "--out",
        type=Path,
        default=Path("runs/digits"),
        help="folder to write to; without --resume its checkpoints are deleted",
    )
    flag = functools.partial(add, action="store_true")
    flag("--resume", help="go on from the newest checkpoint in --out")
    flag("--allow-change", help="resume although settings differ from the saved ones")
    flag("--telemetry", help="measure the optimizer; write it to --out, and serve it")
    add("--port", type=at_least(0), default=9464, help="where, default 9464; 0: a free")
    flag("--quiet", help="print nothing but errors")
    return parser.parse_args()


def main() -> int | str:
    """Return the exit status, or what went wrong."""
    options = parse_options()
    try:
        train(options, Console(quiet=options.quiet))
    except KeyboardInterrupt:
        print("digits.py: interrupted; go on with --resume.", file=sys.stderr)
        return 130
    except (Refused, gradtx.GradtxError, OSError) as error:
        return f"digits.py: {error}"
    return 0


if __name__ == "__main__":
    sys.exit(main())
