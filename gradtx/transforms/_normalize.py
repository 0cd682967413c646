"""Divide updates by their global norm."""

from __future__ import annotations

import jax.numpy as jnp

from gradtx.core import (
    AxisName,
    EmptyState,
    Numeric,
    check_non_negative,
    init_empty_state,
    map_leaves,
    scaled_norm,
    transformation,
)


@transformation(reach="tree")
def normalize_by_update_norm(
    scale_factor: Numeric = 1.0,
    eps: Numeric = 1e-6,
    *,
    axis_name: AxisName | None = None,
):
    """Give the updates as a whole one norm.

    `u ← g·scale_factor/(‖g‖ + eps)`, `‖g‖` over all elements of all leaves

    Args:
      scale_factor: the norm that they get.
      eps: keeps the quotient finite where the norm is 0.
      axis_name: mapped axes over which the updates are sharded; see `global_norm`.

    Raises:
      ArgumentError: if `eps` is negative.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.normalize_by_update_norm(10.0, eps=0.0)
      >>> tx.update({"w": jnp.array([3.0, 4.0])}, tx.init(None))[0]["w"].tolist()
      [6.0, 8.0]

    Source: Hazan, Levy & Shalev-Shwartz 2015, arXiv:1507.02030, Algorithm 1
    (normalized gradient descent).
    """
    check_non_negative(eps=eps)

    def update(updates, state, params=None, **extra):
        root, scale = scaled_norm(updates, axis_name=axis_name)

        def leaf(g, *, scale, factor, length):
            return g * scale * (factor / length)

        length = root + jnp.asarray(eps).astype(root.dtype) * scale
        length = jnp.where(length == 0, 1, length)  # of zeros with eps = 0
        normal = map_leaves(
            leaf, updates, scale=scale, factor=scale_factor, length=length
        )
        return normal, state

    return init_empty_state, update


#: optax's name for the state of `normalize`.
NormalizeState = EmptyState


@transformation(reach="tree")
def normalize(*, axis_name: AxisName | None = None):
    """Divide the updates by their norm, and leave zeros as they are.

    `u ← g/‖g‖`, `‖g‖` over all elements of all leaves

    Args:
      axis_name: mapped axes over which the updates are sharded; see `global_norm`.

    Source: Foret et al. 2020, arXiv:2010.01412, equation 2 (for p = 2).

    Differs from optax: zero updates stay zero; there they become NaN.
    """
    return normalize_by_update_norm(eps=0.0, axis_name=axis_name)
