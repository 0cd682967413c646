"""L-BFGS with its line search, then a schedule-free run from where it is."""
# pyright: reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib


def main():
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.normal(size=(64, 5)), jnp.float32)
    y = jnp.asarray(rng.integers(0, 2, 64), jnp.float32)

    def loss(w):
        return jnp.mean(optax.sigmoid_binary_cross_entropy(x @ w, y)) + 0.01 * w @ w

    w = jnp.zeros(5)
    solver = optax.lbfgs()
    state = solver.init(w)
    evaluate = optax.value_and_grad_from_state(loss)
    losses = []
    for _ in range(8):
        value, grad = evaluate(w, state=state)
        updates, state = solver.update(
            grad, state, w, value=value, grad=grad, value_fn=loss
        )
        w = optax.apply_updates(w, updates)
        losses.append(float(loss(w)))

    w = w + 1.0
    tx = contrib.schedule_free_adamw(0.1, b1=0.9)
    free = tx.init(w)

    @jax.jit
    def step(w, free):
        updates, free = tx.update(jax.grad(loss)(w), free, w)
        return optax.apply_updates(w, updates), free

    for _ in range(60):
        w, free = step(w, free)
        losses.append(float(loss(contrib.schedule_free_eval_params(free, w))))
    return np.array(losses)
