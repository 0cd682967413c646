"""Look at pytrees: paths, structure, shapes, and trees made like another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec

from gradtx.core._call import dtype_of
from gradtx.core._errors import ShapeError, TreeMismatchError
from gradtx.core._numerics import canonicalize_dtype, real_dtype, widened
from gradtx.core._packed import has_packed


@jax.tree_util.register_pytree_node_class
class EveryParam:
    """Stand for all parameters: a tree without leaves, which `init` puts into states.

    It shows where a state keeps parameters. No mask hides any part of it.
    """

    def tree_flatten(self):
        """Return no leaves."""
        return (), None

    @classmethod
    def tree_unflatten(cls, aux: Any, children: Any) -> EveryParam:
        """Return another one."""
        return cls()


def path_of(path: Any) -> str:
    """Print a key path the way Python would index it: `['enc'].w[0]`."""
    return jax.tree_util.keystr(path)


def path_at(tree: Any, index: int) -> str:
    """Print the path of the leaf of `tree` at a position."""
    return path_of(jax.tree_util.tree_leaves_with_path(tree)[index][0])


def shape_of(x: Any) -> tuple[int, ...]:
    """Return the shape of an array, of a shape-and-dtype or of a number."""
    return tuple(x.shape if hasattr(x, "shape") else jnp.shape(x))


def check_structure(expected: Any, got: Any, expected_name: str, got_name: str) -> None:
    """Raise where two trees differ in structure, naming the first leaf that does.

    Raises:
      TreeMismatchError: naming a missing or unexpected leaf, or the two containers.
    """
    wanted, found = jax.tree.structure(expected), jax.tree.structure(got)
    if wanted == found:
        return
    if has_packed(expected) != has_packed(got):
        which = (expected_name, got_name)[has_packed(got)]
        raise TreeMismatchError(
            f"of {got_name} and {expected_name} only {which} are packed. Pack the other "
            "alike by gradtx.pack(tree, like=...), or unpack both."
        )
    there = {path_of(p) for p, _ in jax.tree_util.tree_leaves_with_path(expected)}
    here = {path_of(p) for p, _ in jax.tree_util.tree_leaves_with_path(got)}
    for path, _ in jax.tree_util.tree_leaves_with_path(expected):
        if path_of(path) not in here:
            raise TreeMismatchError(
                f"{got_name}{path_of(path)} is missing: {expected_name} has this leaf. "
                "Give an array of zeros for a leaf that must not move, or freeze it."
            )
    for path, _ in jax.tree_util.tree_leaves_with_path(got):
        if path_of(path) not in there:
            raise TreeMismatchError(
                f"{got_name}{path_of(path)} is unexpected: {expected_name} has no such "
                "leaf. Was the state made by init from these parameters?"
            )
    raise TreeMismatchError(
        f"{got_name} and {expected_name} have the same leaves in containers of "
        f"different kinds: got {_first_difference(wanted, found)}. Convert one."
    )


def check_shapes(
    expected: Any, got: Any, got_name: str, *, leading: bool = False
) -> None:
    """Raise where leaves of two trees of one structure differ in shape.

    Args:
      expected: a pytree of arrays, of shape-and-dtypes or of numbers.
      got: another one.
      got_name: how messages call it.
      leading: whether leaves of `got` have one more axis, in front.

    Raises:
      ShapeError: naming the first such leaf and both shapes.
    """
    pairs = zip(jax.tree.leaves(expected), jax.tree.leaves(got), strict=True)
    for i, (e, g) in enumerate(pairs):
        wanted, found = shape_of(e), shape_of(g)
        if found != wanted and not (leading and found and found[1:] == wanted):
            shown = f"(examples, *{wanted})" if leading else f"{wanted}"
            raise ShapeError(
                f"{got_name}{path_at(got, i)}: expected {shown}, got {found}. "
                "Nothing is broadcast: reshape it, or make the state anew by init."
            )


def zeros_like(params: Any, dtype: Any = None, *, wide: bool = False) -> Any:
    """Return zeros of the shapes and shardings of `params`.

    Args:
      params: a pytree of arrays or of `jax.ShapeDtypeStruct`.
      dtype: dtype of every floating or complex leaf; by default its own. Integer
        leaves keep theirs.
      wide: whether leaves of fewer than 32 bits get 32, where `dtype` does not say.
    """
    return full_like(params, 0, dtype, wide=wide)


def full_like(
    params: Any, fill_value: Any, dtype: Any = None, *, wide: bool = False
) -> Any:
    """Return arrays full of `fill_value`, of the shapes and shardings of `params`.

    Args:
      params: a pytree of arrays or of `jax.ShapeDtypeStruct`.
      fill_value: the value of every element.
      dtype: as in `zeros_like`.
      wide: as in `zeros_like`.
    """
    return _like(
        params, fill_value, lambda own: dtype or (widened(own) if wide else own)
    )


def second_moment_like(params: Any, fill_value: Any = 0, dtype: Any = None) -> Any:
    """Return arrays that hold running means of squares of `params`' gradients.

    The dtype is real, and float32 for parameters of fewer than 32 bits: a bfloat16
    mean that keeps 0.999 of itself would stand still.

    Args:
      params: a pytree of arrays or of `jax.ShapeDtypeStruct`.
      fill_value: the value of every element.
      dtype: dtype of every leaf instead.
    """
    return _like(params, fill_value, lambda own: dtype or widened(real_dtype(own)))


def _like(params: Any, fill_value: Any, choose: Callable[[Any], Any]) -> Any:
    def leaf(p: Any) -> jax.Array:
        own = dtype_of(p)
        moving = jnp.issubdtype(own, jnp.inexact)
        dtype = canonicalize_dtype(choose(own)) if moving else own
        return jnp.full_like(p, fill_value, dtype)

    return jax.tree.map(leaf, params)


def copies(tree: Any) -> Any:
    """Return the arrays of `tree` in buffers of their own, for a state to keep.

    A `jax.ShapeDtypeStruct` becomes zeros: it has no values to copy.
    """

    def leaf(x: Any) -> jax.Array:
        if isinstance(x, jax.ShapeDtypeStruct):
            return jnp.zeros_like(x)
        return jnp.array(x, copy=True)

    return jax.tree.map(leaf, tree)


def zero_count() -> jax.Array:
    """Return an int32 counter at 0."""
    return jnp.zeros((), jnp.int32)


def placed_beside(params: Any, state: Any) -> Any:
    """Replicate over the parameters' mesh what a fresh state holds on one device.

    A counter on one device would not fit beside sharded parameters once it has been
    saved and restored there. Without sharded parameters the state is returned as is.

    Args:
      params: a pytree of arrays or of `jax.ShapeDtypeStruct`.
      state: what `init` made for them.
    """
    meshes = (p.sharding.mesh for p in jax.tree.leaves(params) if _on_mesh(p))
    mesh = next(meshes, None)
    if mesh is None:
        return state
    everywhere = NamedSharding(mesh, PartitionSpec())

    def leaf(x: Any) -> Any:
        movable = _concrete(x) and not _on_mesh(x)
        return jax.device_put(x, everywhere) if movable else x

    return jax.tree.map(leaf, state)


def _concrete(x: Any) -> bool:
    return isinstance(x, jax.Array) and not isinstance(x, Tracer)


def _on_mesh(x: Any) -> bool:
    return _concrete(x) and isinstance(x.sharding, NamedSharding)


def size(tree: Any) -> int:
    """Return the number of elements of all leaves."""
    return sum(jnp.size(leaf) for leaf in jax.tree.leaves(tree))


def _first_difference(expected: Any, got: Any) -> str:
    while True:
        pairs = list(zip(expected.children(), got.children(), strict=False))
        ours, theirs = expected.node_data(), got.node_data()
        if ours != theirs or len(expected.children()) != len(got.children()):
            break
        for expected, got in pairs:
            if expected != got:
                break
        else:
            break
    name = lambda data: data[0].__name__ if data else "a leaf"
    return f"{name(theirs)} where {name(ours)} was expected"
