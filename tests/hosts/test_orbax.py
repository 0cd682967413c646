"""Save the state of a chain by Orbax, and go on from what is restored."""

import functools

import jax
import orbax.checkpoint
import pytest

from tests.hosts import _models

pytestmark = pytest.mark.usefixtures("lenient")

STATES = _models.every_kind_of_state()


@pytest.mark.parametrize("name", ["accumulate", "partition", "noise"])
def test_a_restored_state_goes_on_with_the_same_bits(name, tmp_path):
    tx = STATES[name]
    update = functools.partial(_models.compiled_step, tx)
    params = _models.params()
    state = tx.init(params)
    for _ in range(3):
        params, state = update(params, state)

    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "step", {"params": params, "state": state})
        checkpointer.wait_until_finished()
        fresh = {"params": _models.params(), "state": tx.init(_models.params())}
        restored = checkpointer.restore(tmp_path / "step", fresh)

    assert jax.tree.structure(restored["state"]) == jax.tree.structure(state)
    _models.assert_same_bits(restored, {"params": params, "state": state})
    _models.assert_same_bits(
        update(restored["params"], restored["state"]), update(params, state)
    )
