"""The run that chaos.py disturbs: a small network, a guard, checkpoints all along.

It says what it does in lines of JSON. A kill at any moment loses no more than the steps
since the last checkpoint, and these are made again from the same batches: the place in
the data comes back with the arrays.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from gradtx import checkpoint

BATCH = 64


def init() -> dict[str, Any]:
    """Return the parameters of a convolution and two dense layers."""
    draw = np.random.default_rng(0).standard_normal
    shapes = {"conv": (3, 3, 1, 16), "dense": (256, 64), "out": (64, 10)}
    scales = {name: np.sqrt(2 / np.prod(shape[:-1])) for name, shape in shapes.items()}
    params = {
        name: {
            "kernel": np.float32(draw(shape) * scales[name]),
            "bias": np.zeros(shape[-1], np.float32),
        }
        for name, shape in shapes.items()
    }
    return jax.tree.map(jnp.asarray, params)


def logits(params: dict[str, Any], image: jax.Array) -> jax.Array:
    """Return scores of (batch, 8, 8, 1) as (batch, 10)."""
    conv = params["conv"]
    x = jax.lax.conv_general_dilated(
        image,
        conv["kernel"],
        (2, 2),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    x = jax.nn.relu(x + conv["bias"].reshape(1, 1, 1, -1)).reshape(len(x), -1)
    x = jax.nn.relu(x @ params["dense"]["kernel"] + params["dense"]["bias"][None])
    return x @ params["out"]["kernel"] + params["out"]["bias"][None]


def loss(params: dict[str, Any], image: jax.Array, label: jax.Array) -> jax.Array:
    """Return the mean cross-entropy."""
    log_p = jax.nn.log_softmax(logits(params, image))
    return -jnp.mean(jnp.take_along_axis(log_p, label[:, None], axis=1))


def batch(data: dict[str, Any], position: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the batch at a place in the data; each epoch has an order of its own."""
    epoch, number = divmod(position, len(data["label"]) // BATCH)
    order = np.random.default_rng([0, epoch]).permutation(len(data["label"]))
    chosen = order[number * BATCH : (number + 1) * BATCH]
    return data["image"][chosen], data["label"][chosen]


def tell(event: str, **facts: Any) -> None:
    """Print one line for the script that watches."""
    print(json.dumps({"event": event, **facts}), flush=True)


def train(options: argparse.Namespace) -> None:
    """Train to the end, or until told to stop, from wherever the run stands."""
    data = dict(np.load(options.data))
    rate = gradtx.cosine_decay_schedule(5e-3, options.steps)
    tx = gradtx.guarded(
        gradtx.adamw(rate, weight_decay=0.01, mask=gradtx.ndim_at_least(2))
    )

    @jax.jit
    def step(params, opt_state, image, label):
        grads = jax.grad(loss)(params, image, label)
        updates, opt_state = tx.update(grads, opt_state, params)
        return gradtx.apply_updates(params, updates), opt_state

    position, poisoned = 0, set(options.poison)
    params = init()
    opt_state = tx.init(params)
    saved = lambda future: (
        future.exception() or tell("saved", name=future.result().name)
    )
    manager = checkpoint.Manager(options.out, tx=tx, keep=4, every=options.every)
    with manager, manager.preemption():
        if manager.steps():
            found = manager.restore(params=params, opt_state=opt_state)
            params, opt_state = found["params"], found["opt_state"]
            position = found.record["position"]
            skipped = {path.name: why for path, why in found.skipped}
            tell("resumed", position=position, skipped=skipped)
        while position < options.steps and not manager.stopping:
            image, label = batch(data, position)
            if position in poisoned:  # once: what is read the next time is whole
                poisoned.remove(position)
                image = np.full_like(image, np.nan)
            params, opt_state = step(params, opt_state, image, label)
            if gradtx.guard.check(opt_state).consecutive:
                tell("left out", position=position)
                continue  # and read the batch again
            position += 1
            tell("step", position=position)
            saving = manager.save(
                position,
                params=params,
                opt_state=opt_state,
                record={"position": position},
                batches=int(opt_state.batches),
                updates=position,
            )
            if saving is not None:
                saving.add_done_callback(saved)
    if position < options.steps:
        tell("stopped", position=position)
        return
    scores = jax.jit(logits)(params, data["test_image"])
    right = np.argmax(scores, 1) == data["test_label"]
    tell("done", position=position, accuracy=float(np.mean(right)))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--every", type=int, required=True)
    parser.add_argument("--poison", type=int, nargs="*", default=[])
    train(parser.parse_args())


if __name__ == "__main__":
    main()
