"""A Flax classifier with clipping, masked weight decay and a warm-up."""
# pyright: reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(32)(x))
        x = nn.LayerNorm()(x)
        return nn.Dense(10)(x)


def main():
    digits: Any = load_digits()
    images = jnp.asarray(digits.data[:512] / 16, jnp.float32)
    labels = jnp.asarray(digits.target[:512])
    model = MLP()
    params = model.init(jax.random.key(0), images[:1])["params"]
    schedule = optax.warmup_cosine_decay_schedule(0.0, 3e-3, 10, 100, 1e-5)
    tx = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(
            schedule,
            weight_decay=0.1,
            mask=lambda tree: jax.tree.map(lambda p: p.ndim > 1, tree),
        ),
    )
    state: Any = TrainState.create(apply_fn=model.apply, params=params, tx=tx)

    @jax.jit
    def step(state, x, y):
        def loss_fn(params):
            logits = state.apply_fn({"params": params}, x)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            return loss.mean()

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        return state.apply_gradients(grads=grads), loss

    losses = []
    for i in range(80):
        rows = slice((i % 8) * 64, (i % 8 + 1) * 64)
        state, loss = step(state, images[rows], labels[rows])
        losses.append(float(loss))
    return np.array(losses)
