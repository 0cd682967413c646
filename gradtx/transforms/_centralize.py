"""Centre the gradients of matrices and convolutions."""

from __future__ import annotations

import jax.numpy as jnp

from gradtx.core import (
    AxisName,
    all_sum,
    init_empty_state,
    map_leaves,
    shards,
    transformation,
)


@transformation(reach="leaf")
def centralize(*, kept_axis: int = 0, axis_name: AxisName | None = None):
    """Subtract from each leaf of two axes or more its mean over all axes but one.

    `u ← g − mean(g over every axis but kept_axis)`

    Args:
      kept_axis: the axis along which means differ, the one of the outputs in the
        paper. 0 fits kernels stored outputs first, as in torch, and is what optax
        does with every kernel; −1 fits those of Flax.
      axis_name: mapped axes over which leaves are sharded, along axes other than
        `kept_axis`.

    Raises:
      AxisNameError: if `update` runs where an axis is not mapped.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.centralize()
      >>> g = {"kernel": jnp.array([[1.0, 3.0], [4.0, 8.0]]), "bias": jnp.ones(2)}
      >>> tx.update(g, tx.init(g))[0]["kernel"].tolist()
      [[-1.0, 1.0], [-2.0, 2.0]]

    Source: Yong et al. 2020, arXiv:2004.01461, equation 1.
    """

    def update(updates, state, params=None, **extra):
        def leaf(g):
            if g.ndim < 2 or g.size == 0:
                return g
            axes = tuple(a for a in range(g.ndim) if a != kept_axis % g.ndim)
            mean = jnp.mean(g, axis=axes, keepdims=True)
            return g - all_sum(mean, axis_name) / shards(g, axis_name)

        return map_leaves(leaf, updates), state

    return init_empty_state, update
