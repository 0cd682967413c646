"""Second derivatives against the whole Hessian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from gradtx import ArgumentError, second_order


def _loss(params, inputs, targets):
    hidden = jnp.tanh(inputs @ params["w"] + params["b"][None])
    return jnp.mean((jnp.sum(hidden, axis=-1) - targets) ** 2)


def _problem():
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(3, 2))), "b": jnp.zeros(2)}
    return params, jnp.asarray(rng.normal(size=(5, 3))), jnp.ones(5)


@pytest.mark.usefixtures("x64")
def test_products_and_diagonals_are_those_of_the_hessian():
    params, inputs, targets = _problem()
    flat, unravel = ravel_pytree(params)
    of_flat = lambda x: _loss(unravel(x), inputs, targets)
    hessian = jax.hessian(of_flat)(flat)
    v = jnp.arange(8.0)
    found = second_order.hvp(_loss, v, params, inputs, targets)
    np.testing.assert_allclose(ravel_pytree(found)[0], hessian @ v, rtol=1e-10)
    for size in (1, 3, 64):
        diagonal = second_order.hessian_diag(
            _loss, params, inputs, targets, batch_size=size
        )
        np.testing.assert_allclose(diagonal, jnp.diagonal(hessian), rtol=1e-10)
    fisher = second_order.fisher_diag(_loss, params, inputs, targets)
    np.testing.assert_allclose(fisher, jax.grad(of_flat)(flat) ** 2, rtol=1e-12)
    with pytest.raises(ArgumentError, match="batch_size must be"):
        second_order.hessian_diag(_loss, params, inputs, targets, batch_size=0)
