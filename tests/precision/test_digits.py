"""A network computed in float16 learns digits as well as in float32."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

import gradtx
from gradtx import precision

SIZES = (64, 64, 32, 10)
#: A small weight of the loss, as of one term among others or of a mean over a large
#: batch. With 1 and with 1e-3 float16 learns these digits without a scale too.
WEIGHT = 1e-5
SGD = gradtx.sgd(0.1 / WEIGHT, momentum=0.9)


def _data():
    digits: Any = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.data))
    x, y = digits.data[order].astype("float32") / 16, digits.target[order]
    x, y = jnp.asarray(x), jnp.asarray(y)
    return (x[:1400], y[:1400]), (x[1400:], y[1400:])


def _params(seed):
    draw = np.random.default_rng(seed)
    shapes = itertools.pairwise(SIZES)
    kernels = [draw.normal(size=s) * np.sqrt(2 / s[0]) for s in shapes]
    return [(jnp.asarray(w, jnp.float32), jnp.zeros(w.shape[1])) for w in kernels]


def _outputs(params, x, dtype):
    for layer, (w, b) in enumerate(params):
        x = jax.nn.relu(x) if layer else x.astype(dtype)
        x = x @ w.astype(dtype) + b.astype(dtype)[None]
    return x.astype(jnp.float32)


TRAIN, TEST = _data()


def _accuracies(tx, dtype, differentiate, steps, seeds):
    """Return the accuracy after so many steps from each seed, and the states."""

    def loss(params, x, y):
        outputs = _outputs(params, x, dtype)
        return WEIGHT * jnp.mean(
            gradtx.softmax_cross_entropy_with_integer_labels(outputs, y)
        )

    def step(carry, batch):
        params, state = carry
        grads = differentiate(loss)(state, params, TRAIN[0][batch], TRAIN[1][batch])
        updates, state = tx.update(grads, state, params)
        return (gradtx.apply_updates(params, updates), state), None

    def trained(params, batches):
        (params, state), _ = jax.lax.scan(step, (params, tx.init(params)), batches)
        best = _outputs(params, TEST[0], jnp.float32).argmax(-1)
        return (best == TEST[1]).mean(), state

    run = jax.jit(trained)
    batches = lambda seed: np.random.default_rng(seed).integers(0, 1400, (steps, 100))
    made = [run(_params(seed), batches(seed)) for seed in seeds]
    return [float(accuracy) for accuracy, _ in made], [state for _, state in made]


def _plainly(loss):
    return lambda state, *args: jax.grad(loss)(*args)


def _scaled(loss):
    return lambda *args: precision.value_and_grad(loss)(*args)[1]


@pytest.mark.parametrize(
    ("steps", "seeds"),
    [(200, [0]), pytest.param(600, [0, 1, 2], marks=pytest.mark.slow)],
)
def test_scaled_float16_is_as_good_as_float32_and_unscaled_is_not(steps, seeds):
    full, _ = _accuracies(SGD, jnp.float32, _plainly, steps, seeds)
    half, _ = _accuracies(SGD, jnp.float16, _plainly, steps, seeds)
    tx = gradtx.dynamic_loss_scaling(SGD, interval=50)
    scaled, states = _accuracies(tx, jnp.float16, _scaled, steps, seeds)
    assert min(full) > 0.97
    # measured: 0.980, 0.992, 0.982 and 0.980, 0.990, 0.980; unscaled 0.08 to 0.38
    assert np.abs(np.array(scaled) - full).max() <= 0.01
    assert max(half) < 0.5
    assert all(state.scale >= 2.0**20 for state in states)
    assert not any(state.underflows for state in states)
