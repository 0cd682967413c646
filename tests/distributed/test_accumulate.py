"""Accumulate over calls, and reduce over devices at the update alone."""

import functools

import jax
import pytest

import gradtx
from tests.distributed import _replicas

EVERY, STEPS = 3, 12

OPTIMIZER = gradtx.adam(0.02)


@functools.cache
def on_one_device(counts=(8,) * _replicas.DEVICES):
    alone = gradtx.accumulate(OPTIMIZER, every=EVERY)
    return _replicas.on_one_device(alone, _replicas.batch(counts), STEPS)


def own_sum(state):
    """Each device sums up gradients of its own, which differ until they are averaged."""
    own = jax.tree.map(lambda _: False, state)
    return own._replace(acc_grads=jax.tree.map(lambda _: True, own.acc_grads))


@pytest.mark.parametrize("mode", _replicas.MODES)
def test_accumulation_around_an_average_equals_one_device(mode):
    tx = gradtx.accumulate(
        gradtx.chain(gradtx.pmean_gradients("data"), OPTIMIZER), every=EVERY
    )
    batch = _replicas.batch()
    # gradients that JAX has summed itself are the same on all devices
    own = None if mode == "shard_map" else own_sum
    trained = _replicas.on_all_devices(mode, tx, batch, STEPS, own)
    assert _replicas.worst(trained, on_one_device()) <= _replicas.ATOL


@pytest.mark.parametrize("mode", ["shard_map", "shard_map cast"])
def test_an_average_around_accumulation_equals_one_device(mode):
    accumulating = gradtx.accumulate(OPTIMIZER, every=EVERY)
    tx = gradtx.chain(gradtx.pmean_gradients("data"), accumulating)
    batch = _replicas.batch()
    trained = _replicas.on_all_devices(mode, tx, batch, STEPS)
    assert _replicas.worst(trained, on_one_device()) <= _replicas.ATOL


@pytest.mark.parametrize("mode", [m for m in _replicas.MODES if m != "shard_map"])
def test_a_weighted_average_is_taken_of_what_each_device_has_summed(mode):
    # every call brings the same counts: the weights of one call are those of all
    counts = (3, 8, 4, 1, 5, 8, 2, 7)
    batch = _replicas.batch(counts)
    weighted = gradtx.pmean_gradients("data", weighted=True)
    tx = gradtx.accumulate(gradtx.chain(weighted, OPTIMIZER), every=EVERY)
    trained = _replicas.on_all_devices(mode, tx, batch, STEPS, own_sum)
    assert _replicas.worst(trained, on_one_device(counts)) <= _replicas.ATOL
