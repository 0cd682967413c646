"""Add updates to parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._call import dtype_of
from gradtx.core._errors import DtypeError, signed
from gradtx.core._numerics import bits, cast, working
from gradtx.core._tree import check_shapes, check_structure, path_of
from gradtx.core._types import Params, Updates


def apply_updates(params: Params, updates: Updates) -> Params:
    """Return `params + updates`, in the parameters' dtypes.

    The sum is taken in 32 bits or more and then rounded to the parameter's dtype.
    `None` parameters stay `None`; a `float0` update leaves its parameter as it is.

    Args:
      params: a pytree of parameters.
      updates: a pytree of the same structure and shapes; nothing is broadcast.

    Raises:
      TreeMismatchError: if the structures differ.
      ShapeError: if the shapes of two leaves differ.
      DtypeError: if an integer parameter has a floating update, or a real one a
        complex update.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.apply_updates({"w": jnp.ones(2)}, {"w": jnp.full(2, -0.25)})
      {'w': Array([0.75, 0.75], dtype=float32)}
    """
    with signed("apply_updates"):
        check_structure(params, updates, "params", "updates")
        check_shapes(params, updates, "updates")
        return jax.tree_util.tree_map_with_path(_added, params, updates)


def _added(path: Any, p: Any, u: Any) -> Any:
    mine, its = dtype_of(p), dtype_of(u)
    if its == jax.dtypes.float0:
        return p
    if not jnp.issubdtype(mine, jnp.inexact):
        if jnp.issubdtype(its, jnp.inexact):
            raise DtypeError(
                f"params{path_of(path)} has dtype {mine} and its update {its}: the sum "
                "would be cut off. Freeze this parameter or make it floating."
            )
        return jnp.asarray(p) + jnp.asarray(u).astype(mine)
    if jnp.issubdtype(its, jnp.complexfloating) and not jnp.issubdtype(
        mine, jnp.complexfloating
    ):
        raise DtypeError(
            f"params{path_of(path)} is real ({mine}) and its update complex ({its}). "
            "Take the real part of the gradient."
        )
    precise = 64 in (bits(p), bits(u))
    p, u = working(p, precise), working(u, precise)
    return cast(p + u.astype(p.dtype), mine)
