"""Assignments cost what SciPy's cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from gradtx import ShapeError, assignment

hungarian = jax.jit(assignment.hungarian_algorithm)


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (3, 7), (7, 3), (20, 20)])
@pytest.mark.parametrize("seed", range(5))
def test_the_sum_is_the_smallest(shape, seed):
    cost = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    rows, columns = map(np.asarray, hungarian(cost))
    i, j = scipy.optimize.linear_sum_assignment(cost)
    np.testing.assert_allclose(cost[rows, columns].sum(), cost[i, j].sum(), rtol=1e-5)
    assert len(set(rows)) == len(set(columns)) == min(shape)
    assert (np.diff(rows) > 0).all()


def test_ties_infinities_batches_and_empty_matrices():
    assert set(hungarian(jnp.zeros((3, 3)))[1].tolist()) == {0, 1, 2}
    forbidden = jnp.array([[jnp.inf, 1.0], [1.0, 5.0]])
    assert hungarian(forbidden)[1].tolist() == [1, 0]
    many = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3, 5)))
    rows, columns = jax.vmap(assignment.hungarian_algorithm)(many)
    for k in range(4):
        np.testing.assert_array_equal(columns[k], hungarian(many[k])[1])
    assert rows.shape == (4, 3)
    assert assignment.hungarian_algorithm(jnp.zeros((0, 3)))[0].shape == (0,)
    with pytest.raises(ShapeError, match=r"expected costs \(n, m\)"):
        assignment.hungarian_algorithm(jnp.ones(3))
