"""Injected hyperparameters, changed in the middle, under gradient accumulation."""
# pyright: reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def main():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(128, 8)), rng.normal(size=8)
    x, y = jnp.asarray(x, jnp.float32), jnp.asarray(x @ w, jnp.float32)
    params = {"w": jnp.zeros(8), "b": jnp.zeros(())}
    inner = optax.inject_hyperparams(optax.adam)(learning_rate=0.1, b1=0.9)
    opt: Any = optax.MultiSteps(inner, every_k_schedule=4)
    state = opt.init(params)

    @jax.jit
    def step(params, state, x, y):
        def loss(p):
            return jnp.mean(optax.huber_loss(x @ p["w"] + p["b"], y))

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    losses = []
    for i in range(200):
        rows = slice((i % 8) * 16, (i % 8 + 1) * 16)
        params, state, value = step(params, state, x[rows], y[rows])
        if i == 100:
            hyper = state.inner_opt_state.hyperparams
            hyper["learning_rate"] = jnp.asarray(0.01)
        losses.append(float(value))
    assert int(state.gradient_step) == 50
    return np.array(losses)
