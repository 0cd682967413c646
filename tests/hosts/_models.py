"""One small regression, the loop that trains it plainly, and optimizers for it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx

STEPS = 5

#: Two compiled programs may add the same terms in another order. That moves numbers
#: below 2 by some units in the last place, 2e-7 each, and they are trained for some
#: steps of at most 0.05. Measured: 2.4e-7 at most.
ATOL = 1e-6


def params() -> Any:
    """Return kernels and biases as Flax lays them out, in new buffers."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape) / 2, jnp.float32)
    return {
        "hidden": {"bias": draw(4), "kernel": draw(3, 4)},
        "out": {"bias": draw(2), "kernel": draw(4, 2)},
    }


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Return inputs `(16, 3)` and targets `(16, 2)`."""
    x = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)
    return x, np.stack([np.sin(x[:, 0]), x[:, 1] * x[:, 2]], axis=1)


def predict(params: Any, x: Any) -> jax.Array:
    """Return the outputs of the two layers."""
    hidden, out = params["hidden"], params["out"]
    h = jnp.tanh(x @ hidden["kernel"] + hidden["bias"][None])
    return h @ out["kernel"] + out["bias"][None]


def loss(params: Any) -> jax.Array:
    """Return the mean squared error over the batch."""
    x, y = batch()
    return jnp.mean((predict(params, x) - y) ** 2)


def optimizer(peak: float = 0.05) -> gradtx.GradientTransformation:
    """Return a chain with a schedule, a mask, decay and a reduction over all leaves."""
    rate = gradtx.schedules.linear_schedule(peak, 0.0, 2 * STEPS)
    decaying = gradtx.ndim_at_least(2)
    return gradtx.chain(
        gradtx.clip_by_global_norm(0.5),
        gradtx.adamw(rate, weight_decay=0.1, mask=decaying),
    )


def step(tx: Any, params: Any, state: Any) -> tuple[Any, Any]:
    """Return parameters and state after one update."""
    value, grads = jax.value_and_grad(loss)(params)
    updates, state = tx.update(
        grads, state, params, value=value, grad=grads, value_fn=loss
    )
    return gradtx.apply_updates(params, updates), state


#: One compiled step for each optimizer, whichever test asks.
compiled_step = jax.jit(step, static_argnums=0)


@functools.cache
def plain_loop(tx: Any, steps: int = STEPS) -> Any:
    """Return the parameters after `steps` updates in a bare loop."""
    now = params()
    state = tx.init(now)
    for _ in range(steps):
        now, state = compiled_step(tx, now, state)
    return now


def assert_close(got: Any, wanted: Any, atol: float = ATOL) -> None:
    """Compare two trees of one structure leaf by leaf."""
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for path, leaf in jax.tree_util.tree_leaves_with_path(got):
        other = dict(jax.tree_util.tree_leaves_with_path(wanted))[path]
        np.testing.assert_allclose(
            np.asarray(leaf), np.asarray(other), rtol=0, atol=atol, err_msg=str(path)
        )


def assert_same_bits(got: Any, wanted: Any) -> None:
    """Compare the dtypes, shapes and bytes of all leaves of two trees."""
    mine, its = map(_numbers, (got, wanted))
    assert [(x.dtype, x.shape, x.tobytes()) for x in mine] == [
        (x.dtype, x.shape, x.tobytes()) for x in its
    ]


def _numbers(tree: Any) -> list[np.ndarray]:
    plain = lambda x: (
        jax.random.key_data(x)
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        else x
    )
    return [np.asarray(plain(x)) for x in jax.tree.leaves(tree)]


def every_kind_of_state() -> dict[str, gradtx.GradientTransformation]:
    """Return chains that hold, together, each stateful link and each combinator."""
    two = gradtx.ndim_at_least(2)
    noise = gradtx.add_noise(0.01, 0.55, key=0)
    momentum = gradtx.sgd(0.05, momentum=0.9)
    return {
        "chain": optimizer(),
        "accumulate": gradtx.accumulate(optimizer(), every=2),
        "partition": gradtx.partition({True: optimizer(), False: momentum}, two),
        "masked": gradtx.chain(gradtx.masked(gradtx.ema(0.9), two), momentum),
        "freeze": gradtx.chain(gradtx.zero_nans(), momentum, gradtx.freeze(two)),
        "noise": gradtx.chain(
            gradtx.masked(noise, gradtx.path_matches("out/b")), momentum
        ),
    }
