"""Training: forward, backward and update of a small language model in one program."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import _subjects
from benchmarks._options import Options, Row
from benchmarks._timing import Contestant, interleaved, median, once, ratio
from benchmarks._trees import count, gpt2

TITLE = "Training step"
NOTE = (
    "A decoder-only transformer over 65 characters, clip + AdamW. Packed parameters are "
    "unpacked inside the jitted step, and their gradients arrive packed. Gradient: the "
    "same without an optimizer."
)

CONTEXT = 64


def run(options: Options) -> list[Row]:
    """Time and compile whole training steps."""
    rows: list[Row] = []
    for width, layers in ((64, 4),) if options.quick else ((64, 4), (64, 24), (256, 4)):
        leaves = gpt2(width, layers, vocabulary=65)
        leaves["wpe"] = (CONTEXT, width)
        case = {"width": width, "leaves": len(leaves), "parameters": count(leaves)}
        contestants, compiling = {}, {}
        for subject in _subjects.subjects():
            for part in ("step", "gradient"):
                if (subject, part) != ("optax", "gradient"):
                    name = subject if part == "step" else f"{subject}: gradient"
                    made = _contestant(subject, leaves, part)
                    compiling[name] = once(made.run)
                    contestants[name] = made
        seconds = interleaved(contestants, **options.timing)
        for name, taken in seconds.items():
            row = case | {"subject": name, "to_optax": ratio(taken, seconds["optax"])}
            value = 1e3 * median(taken)
            rows.append(row | {"measure": "train", "unit": "ms", "value": value})
        rows += [
            case
            | {"subject": n, "measure": "first call", "unit": "s", "value": s}
            | {"to_optax": s / compiling["optax"]}
            for n, s in compiling.items()
        ]
    return rows


def _contestant(subject: str, leaves: Any, part: str) -> Contestant:
    tx, apply, hold = _subjects.parts(subject, "clip_adamw")
    tokens = jax.random.randint(jax.random.key(0), (8, CONTEXT + 1), 0, 65)

    def objective(params):
        return loss(params.unpack() if subject == "gradtx packed" else params, tokens)

    def step(params, state):
        grads = jax.grad(objective)(params)
        if part == "gradient":
            # kept as if the optimizer had written them
            return jax.tree.map(lambda p, g: p - 1e-9 * g, params, grads), state
        updates, state = tx.update(grads, state, params)
        return apply(params, updates), state

    function = jax.jit(step, donate_argnums=(0, 1))
    params = hold(_subjects.initial(leaves))
    held = [params, jax.jit(tx.init)(params) if part == "step" else ()]

    def run():
        held[:] = function(*held)

    return Contestant(run, lambda: jax.block_until_ready(held))


def loss(params: dict[str, jax.Array], tokens: jax.Array) -> jax.Array:
    """Return the mean cross-entropy of each next token.

    Args:
      params: the leaves of `gpt2`, by name.
      tokens: (batch, CONTEXT + 1) integers below the vocabulary.
    """
    x = params["wte"][tokens[:, :-1]] + params["wpe"][None]  # (batch, time, width)
    layer = 0
    while f"h{layer:02}/ln_1/g" in params:
        block = {
            name[4:]: value
            for name, value in params.items()
            if name.startswith(f"h{layer:02}/")
        }
        x = x + _attend(block, _normal(x, block["ln_1/g"], block["ln_1/b"]))
        hidden = _linear(
            block, "mlp/c_fc", _normal(x, block["ln_2/g"], block["ln_2/b"])
        )
        x = x + _linear(block, "mlp/c_proj", jax.nn.gelu(hidden))
        layer += 1
    x = _normal(x, params["ln_f/g"], params["ln_f/b"])
    logits = jax.nn.log_softmax(x @ params["wte"].T)
    return -jnp.mean(jnp.take_along_axis(logits, tokens[:, 1:, None], axis=-1))


def _linear(block: dict[str, jax.Array], name: str, x: jax.Array) -> jax.Array:
    return x @ block[f"{name}/w"] + block[f"{name}/b"]


def _normal(x: jax.Array, gain: jax.Array, bias: jax.Array) -> jax.Array:
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5) * (1 + gain) + bias


def _attend(block: dict[str, jax.Array], x: jax.Array, heads: int = 4) -> jax.Array:
    batch, time, width = x.shape
    q, k, v = (
        part.reshape(batch, time, heads, width // heads)
        for part in jnp.split(_linear(block, "attn/c_attn", x), 3, axis=-1)
    )
    mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    return _linear(block, "attn/c_proj", mixed.reshape(batch, time, width))
