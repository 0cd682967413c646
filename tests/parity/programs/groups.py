"""Groups of parameters, momentum, averages, projections and a plateau."""
# pyright: reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib


def main():
    rng = np.random.default_rng(1)
    a = jnp.asarray(rng.normal(size=(20, 6)), jnp.float32)
    b = jnp.asarray(rng.normal(size=20), jnp.float32)
    params = {"body": {"w": jnp.ones(6) / 6}, "head": jnp.zeros(())}
    tx = optax.chain(
        optax.multi_transform(
            {
                "slow": optax.sgd(0.01, momentum=0.9, nesterov=True),
                "fast": optax.chain(optax.trace(0.5), optax.scale(-0.05)),
            },
            {"body": "slow", "head": "fast"},
        ),
        contrib.reduce_on_plateau(factor=0.5, patience=5, rtol=1e-3),
    )
    average = optax.ema(0.9)
    state, mean = tx.init(params), average.init(params)

    def loss(p):
        return jnp.mean((a @ p["body"]["w"] + p["head"] - b) ** 2)

    @jax.jit
    def step(params, state, mean):
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params, value=value)
        params = optax.apply_updates(params, updates)
        body = optax.projections.projection_simplex(params["body"]["w"])
        params = {"body": {"w": body}, "head": params["head"]}
        smooth, mean = average.update(params, mean)
        return params, state, mean, loss(smooth)

    losses = []
    for _ in range(150):
        params, state, mean, value = step(params, state, mean)
        losses.append(float(value))
    assert float(optax.tree.norm(params["body"])) > 0
    return np.array(losses)
