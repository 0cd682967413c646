"""Define the distributions of noise: samples and log densities."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from gradtx.core import DTypeLike, Numeric, PRNGKey, Shape


class Normal:
    """The standard normal distribution, `exp(−x²/2)` but for a constant factor."""

    def sample(
        self, key: PRNGKey, sample_shape: Shape = (), dtype: DTypeLike = float
    ) -> jax.Array:
        """Draw an array of independent numbers."""
        return jax.random.normal(key, tuple(sample_shape), dtype)

    def log_prob(self, inputs: jax.Array) -> jax.Array:
        """Return the log density of each element, but for a constant."""
        return -0.5 * (inputs * inputs)


class Gumbel:
    """The standard Gumbel distribution, `exp(−x − exp(−x))`."""

    def sample(
        self, key: PRNGKey, sample_shape: Shape = (), dtype: DTypeLike = float
    ) -> jax.Array:
        """Draw an array of independent numbers."""
        return jax.random.gumbel(key, tuple(sample_shape), dtype)

    def log_prob(self, inputs: jax.Array) -> jax.Array:
        """Return the log density of each element."""
        return -inputs - jnp.exp(-inputs)


class MultiNormalDiagFromLogScale:
    """Independent normal numbers, given by their means and log standard deviations."""

    def __init__(self, loc: Numeric, log_scale: Numeric):
        self._mean = jnp.asarray(loc)
        self._log_scale = jnp.asarray(log_scale)
        self._param_shape = jax.lax.broadcast_shapes(
            self._mean.shape, self._log_scale.shape
        )

    def sample(self, shape: Shape, key: PRNGKey) -> jax.Array:
        """Draw an array of shape `shape` + that of the parameters."""
        whole = tuple(shape) + self._param_shape
        mean = jnp.broadcast_to(self._mean, whole)
        scale = jnp.broadcast_to(jnp.exp(self._log_scale), whole)
        dtype = jnp.promote_types(mean.dtype, scale.dtype)
        noise = jax.random.normal(key, whole, dtype)
        return noise * scale.astype(dtype) + mean.astype(dtype)

    def log_prob(self, x: Numeric) -> jax.Array:
        """Return the log density, summed over the axes of the parameters."""
        x = jnp.asarray(x)
        shape = jnp.broadcast_shapes(x.shape, self._param_shape)
        dtype = jnp.result_type(float, x.dtype, self._mean.dtype, self._log_scale.dtype)
        scale = jnp.exp(self._log_scale)
        terms = (jnp.broadcast_to(a, shape) for a in (x, self._mean, scale))
        from jax.scipy.stats import norm  # slow to load

        density = norm.logpdf(*(a.astype(dtype) for a in terms))
        return jnp.sum(density, axis=tuple(range(-len(self._param_shape), 0)))

    @property
    def log_scale(self) -> jax.Array:
        """The logarithms of the standard deviations."""
        return self._log_scale

    @property
    def params(self) -> Sequence[jax.Array]:
        """The means and the logarithms of the standard deviations."""
        return [self._mean, self._log_scale]


def multi_normal(loc: Numeric, log_scale: Numeric) -> MultiNormalDiagFromLogScale:
    """Return the distribution of independent normal numbers.

    Args:
      loc: means.
      log_scale: logarithms of the standard deviations, of a shape that broadcasts.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> normal = gradtx.multi_normal(jnp.zeros(3), jnp.zeros(3))
      >>> normal.sample((5,), jax.random.key(0)).shape
      (5, 3)

    Source: Bishop 2006, "Pattern Recognition and Machine Learning", section 2.3.
    """
    return MultiNormalDiagFromLogScale(loc, log_scale)
