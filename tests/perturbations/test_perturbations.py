"""Noise, and functions averaged over it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import gradtx
from gradtx import perturbations


def test_densities_are_those_of_scipy():
    x = np.linspace(-2, 3, 7, dtype=np.float32)
    gumbel = perturbations.Gumbel().log_prob(jnp.asarray(x))
    np.testing.assert_allclose(gumbel, scipy.stats.gumbel_r.logpdf(x), rtol=1e-5)
    normal = perturbations.Normal().log_prob(jnp.asarray(x))
    rest = scipy.stats.norm.logpdf(x) - normal  # a constant
    np.testing.assert_allclose(rest, rest[0], rtol=1e-5)
    found = gradtx.multi_normal(jnp.array([1.0, 2.0]), jnp.array([0.5, -0.5]))
    truth = scipy.stats.norm.logpdf([0.3, 0.7], [1, 2], np.exp([0.5, -0.5])).sum()
    np.testing.assert_allclose(found.log_prob(jnp.array([0.3, 0.7])), truth, rtol=1e-5)


@pytest.mark.parametrize("noise", [perturbations.Gumbel(), perturbations.Normal()])
def test_a_step_becomes_smooth(noise):
    step = lambda tree: jax.tree.map(lambda x: jnp.heaviside(x, 0.0), tree)
    smooth = perturbations.make_perturbed_fun(step, 20_000, 0.5, noise)
    x = {"x": jnp.array([0.2])}
    law = (
        scipy.stats.gumbel_r
        if isinstance(noise, perturbations.Gumbel)
        else (scipy.stats.norm)
    )
    value = smooth(jax.random.key(0), x)["x"][0]
    # four standard deviations of a mean of 20000 numbers between 0 and 1
    assert abs(value - law.sf(-0.4)) < 4 * 0.5 / 20_000**0.5
    slope = jax.grad(lambda x: smooth(jax.random.key(1), x)["x"][0])(x)["x"][0]
    assert abs(slope - law.pdf(-0.4) / 0.5) < 0.05


def test_bad_arguments_are_named():
    with pytest.raises(gradtx.ArgumentError, match="num_samples must be"):
        perturbations.make_perturbed_fun(lambda x: x, 0)
    with pytest.raises(gradtx.ArgumentError, match="sigma must be positive"):
        perturbations.make_perturbed_fun(lambda x: x, sigma=0.0)
