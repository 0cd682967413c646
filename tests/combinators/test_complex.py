"""Complex leaves as two real ones."""

import jax
import jax.numpy as jnp
import numpy as np

import gradtx


def test_parts_are_optimized_apart():
    tx = gradtx.split_real_and_imaginary(gradtx.adam(0.1))
    z = {"z": jnp.array([1.0 + 2.0j, -3.0j]), "x": jnp.ones(2)}
    made, state = tx.update(z, tx.init(z), z)
    alone = gradtx.adam(0.1)
    parts = {"re": z["z"].real, "im": z["z"].imag, "x": z["x"]}
    expected, _ = alone.update(parts, alone.init(parts), parts)
    np.testing.assert_array_equal(made["z"].real, expected["re"])
    np.testing.assert_array_equal(made["z"].imag, expected["im"])
    np.testing.assert_array_equal(made["x"], expected["x"])
    assert state.inner_state.scale_by_adam.nu["z"].real.dtype == jnp.float32


def test_extra_arguments_and_missing_parameters_pass():
    tx = gradtx.split_real_and_imaginary(gradtx.polyak_sgd())
    z = {"z": jnp.array([1.0 + 1.0j])}
    made, _ = tx.update(z, tx.init(z), value=1.0)  # optax drops the value
    np.testing.assert_allclose(made["z"], [-0.5 - 0.5j], rtol=1e-6)


def test_what_is_for_real_numbers_only_can_be_wrapped():
    z = {"z": jnp.array([1.0 - 2.0j])}
    for inner in (gradtx.rprop(0.1), gradtx.sm3(0.1), gradtx.cocob()):
        tx = gradtx.split_real_and_imaginary(inner)
        made, _ = jax.jit(tx.update)(z, tx.init(z), z)
        assert made["z"].dtype == jnp.complex64
