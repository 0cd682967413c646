"""A transformation of the user's own has all that gradtx's have."""

import json
import pickle

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.hosts import _models, _signum
from tests.hosts.test_train_state import TRAIN, fresh

LINK, OPTIMIZER = _signum.scale_by_signum(0.8), _signum.signum(0.05, momentum=0.8)


@pytest.mark.parametrize("tx", [LINK, OPTIMIZER], ids=repr)
def test_it_pickles_and_describes_itself(tx):
    assert pickle.loads(pickle.dumps(tx)) == tx
    data = json.loads(json.dumps(gradtx.describe(tx)))
    assert data["call"].startswith("tests.hosts._signum.")
    assert gradtx.build(data) == tx
    assert hash(gradtx.build(data)) == hash(tx)


def test_it_prints_as_its_call_and_names_its_state():
    assert eval(repr(OPTIMIZER), dict(vars(_signum))) == OPTIMIZER
    assert eval(repr(LINK), dict(vars(_signum))) == LINK
    state = gradtx.chain(gradtx.clip(1.0), LINK).init(_models.params())
    assert state._fields == ("clip", "scale_by_signum")
    assert gradtx.roles(state.scale_by_signum) == {"mu": gradtx.Role.PER_PARAM}


def test_it_takes_the_steps_that_its_formula_says():
    rng = np.random.default_rng(2)
    grads = rng.normal(size=(4, 3))
    p, mu = np.zeros(3), np.zeros(3)
    params = {"w": jnp.zeros(3)}
    state = OPTIMIZER.init(params)
    for g in grads:
        mu = 0.8 * mu + g
        p = p - 0.05 * np.sign(mu)
        updates, state = OPTIMIZER.update(
            {"w": jnp.asarray(g, jnp.float32)}, state, params
        )
        params = gradtx.apply_updates(params, updates)
    # four sums of float32 numbers below 1/4
    np.testing.assert_allclose(params["w"], p, rtol=0, atol=1e-7)


@pytest.mark.usefixtures("lenient")
def test_it_trains_in_a_train_state():
    trained = TRAIN(fresh(OPTIMIZER))
    _models.assert_close(trained.params, _models.plain_loop(OPTIMIZER))
