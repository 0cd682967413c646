"""Train inside `lax.scan`, whose carry must never change its type."""

import jax
import pytest

from tests.hosts import _models

STATES = _models.every_kind_of_state()


@pytest.mark.parametrize("name", STATES)
def test_a_scan_equals_the_python_loop(name):
    tx = STATES[name]

    @jax.jit
    def train(params):
        def step(carry, _):
            return _models.step(tx, *carry), None

        start = (params, tx.init(params))
        return jax.lax.scan(step, start, None, length=_models.STEPS)[0][0]

    _models.assert_close(train(_models.params()), _models.plain_loop(tx))
