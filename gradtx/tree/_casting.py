"""Look at the dtypes of a pytree's leaves, and change them."""

from __future__ import annotations

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp

from gradtx.core import ArgumentError, DtypeError, DTypeLike, dtype_of, path_of

Tree = Any


def cast(tree: Tree, dtype: DTypeLike | None) -> Tree:
    """Convert every leaf to `dtype`, or none where `dtype` is `None`."""
    if dtype is None:
        return tree
    return jax.tree.map(lambda x: jnp.asarray(x).astype(dtype), tree)


def cast_like(tree: Tree, other_tree: Tree) -> Tree:
    """Convert every leaf to the dtype of the leaf at its place in `other_tree`.

    A leaf stays as it is where the other one has no dtype, as Python numbers have none.
    """
    return jax.tree.map(
        lambda x, o: jnp.asarray(x).astype(o.dtype) if hasattr(o, "dtype") else x,
        tree,
        other_tree,
    )


def dtype(
    tree: Tree,
    mixed_dtype_handler: Literal["promote", "highest", "lowest"] | None = None,
) -> Any:
    """Return the dtype of the leaves, float of default width for an empty tree.

    Args:
      tree: a pytree of arrays.
      mixed_dtype_handler: what to do where leaves differ. `None` raises; "promote"
        gives the dtype that all promote to; "highest" and "lowest" give the leaf dtype
        that all others promote to, or that promotes to all others.

    Raises:
      ArgumentError: if leaves differ and no handler is given, if neither of two dtypes
        promotes to the other, or for an unknown handler.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tree = [jnp.zeros(2, jnp.float16), jnp.zeros(2)]
      >>> gradtx.tree.dtype(tree, "lowest").name
      'float16'
    """
    handlers = {"promote": promoted, "highest": _higher, "lowest": _lower}
    if mixed_dtype_handler is not None and mixed_dtype_handler not in handlers:
        raise ArgumentError(
            f"mixed_dtype_handler must be None or one of {list(handlers)}, got "
            f"{mixed_dtype_handler!r}.",
            "dtype",
        )
    found = [
        (path, dtype_of(x)) for path, x in jax.tree_util.tree_leaves_with_path(tree)
    ]
    if not found:
        return jnp.zeros(0).dtype
    if mixed_dtype_handler is not None:
        return functools.reduce(handlers[mixed_dtype_handler], [d for _, d in found])
    first = found[0][1]
    for path, other in found:
        if other != first:
            raise ArgumentError(
                f"tree{path_of(path)} has dtype {other} where others have {first}. "
                "Give mixed_dtype_handler=.",
                "dtype",
            )
    return first


def promoted(a: Any, b: Any) -> Any:
    """Return the dtype that both promote to, also where JAX promotes nothing itself."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.promote_types(a, b)


def _higher(a: Any, b: Any) -> Any:
    return a if _lower(a, b) == b else b


def _lower(a: Any, b: Any) -> Any:
    wider = promoted(a, b)
    if wider not in (a, b):
        raise _Incomparable(f"neither of {a} and {b} promotes to the other.", "dtype")
    return b if wider == a else a


class _Incomparable(ArgumentError, DtypeError):
    """Two dtypes of which neither promotes to the other."""
