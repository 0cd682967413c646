"""Make any function differentiable by averaging it over noise on its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core import Numeric, PRNGKey, check_count, check_positive, working
from gradtx.perturbations._distributions import Gumbel
from gradtx.tree import random_like


def make_perturbed_fun(
    fun: Callable[[Any], Any],
    num_samples: int = 1000,
    sigma: Numeric = 0.1,
    noise: Any = Gumbel(),  # noqa: B008  it holds nothing
    use_baseline: bool = True,
) -> Callable[[PRNGKey, Any], Any]:
    """Return an estimate of `E[fun(x + sigma·z)]` that has derivatives of any order.

    `mean_k box_k·fun(x + sigma·z_k) + (1 − box_k)·fun(x)`, where
    `box_k = exp(log p(z_k) − stop_gradient(log p(z_k)))` is 1 and has the score of the
    sample as its derivative. `fun` itself is never differentiated.

    Args:
      fun: from a pytree of floating arrays to a pytree of arrays.
      num_samples: number of samples, at least 1.
      sigma: scale of the noise, above 0.
      noise: what has `sample(key, shape, dtype)` and `log_prob(z)`, such as `Gumbel()`.
      use_baseline: whether `fun(x)` is taken off what the score multiplies: the mean
        stays, the variance falls.

    Returns:
      `(key, x) -> value`, structured like the value of `fun`.

    Raises:
      ArgumentError: if `num_samples` or `sigma` is not positive.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> step = lambda x: jnp.heaviside(x, 0.0)
      >>> smooth = gradtx.perturbations.make_perturbed_fun(step, 10_000)
      >>> slope = jax.grad(smooth, argnums=1)(jax.random.key(0), jnp.array(0.0))
      >>> bool(3.3 < slope < 4.1)  # exp(-1)/0.1
      True

    Source: Berthet et al. 2020, arXiv:2002.08676; Foerster et al. 2018,
    arXiv:1802.05098, equation 5 (the box).
    """
    check_count(1, num_samples=num_samples)
    check_positive(sigma=sigma)

    def estimate(key, x):
        x = jax.tree.map(jnp.asarray, x)
        fixed = lax.stop_gradient(x)
        baseline = fun(fixed) if use_baseline else None

        def sampled(key):
            z = random_like(key, x, noise.sample)
            moved = jax.tree.map(lambda p, n: p + _as(sigma, p) * n, fixed, z)
            # the sample as a function of x, with x + sigma·z held fast
            score = jax.tree.map(
                lambda p, s, n: n + (s - p) / _as(sigma, p), x, fixed, z
            )
            densities = (noise.log_prob(working(n)) for n in jax.tree.leaves(score))
            total = sum(map(jnp.sum, densities), start=jnp.zeros(()))
            box = jnp.exp(total - lax.stop_gradient(total))
            out = jax.tree.map(lambda y: _weighed(box, y), fun(moved))
            if use_baseline:
                out = jax.tree.map(lambda y, b: y + _weighed(1 - box, b), out, baseline)
            return out

        outs = jax.vmap(sampled)(jax.random.split(key, num_samples))
        return jax.tree.map(lambda y: jnp.mean(y, axis=0), outs)

    return estimate


def _as(scalar: Numeric, x: jax.Array) -> jax.Array:
    return jnp.asarray(scalar).astype(x.dtype)


def _weighed(weight: jax.Array, y: Any) -> jax.Array:
    """Return `weight·y`, in the dtype of `y` if that is inexact."""
    y = jnp.asarray(y)
    if not jnp.issubdtype(y.dtype, jnp.inexact):
        return weight * y.astype(weight.dtype)
    return weight.astype(y.dtype) * y
