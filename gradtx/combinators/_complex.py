"""Show a transformation the two parts of complex leaves."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core import Inner, Link, as_transformation, dtype_of, transformation


class SplitRealAndImaginaryArrays(NamedTuple):
    """A complex leaf as two real ones.

    Attributes:
      real: its real part.
      imaginary: its imaginary part.
    """

    real: jax.Array
    imaginary: jax.Array


class SplitRealAndImaginaryState(NamedTuple):
    """The state of `split_real_and_imaginary`.

    Attributes:
      inner_state: the state of the wrapped transformation, for real leaves.
    """

    inner_state: Inner


@transformation(adjust=lambda traits, given: traits.replace(complex=True))
def split_real_and_imaginary(inner: Link):
    """Apply `inner` to the real and the imaginary parts of complex leaves.

    `u ← inner(Re g) + i·inner(Im g)`, elementwise links; real leaves as they are

    Args:
      inner: what to apply. It sees two leaves for each complex one.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.split_real_and_imaginary(gradtx.scale_by_sign())
      >>> g = {"z": jnp.array([3.0 - 2.0j])}
      >>> tx.update(g, tx.init(g))[0]["z"].tolist()
      [(1-1j)]

    Source: the plane as two real axes, as in torch's Adam for complex parameters.
    """
    inner = as_transformation(inner)

    def init(params):
        return SplitRealAndImaginaryState(inner.init(_split(params)))

    def update(updates, state, params=None, **extra):
        made, after = inner.update(
            _split(updates), state.inner_state, _split(params), **extra
        )
        joined = jax.tree.map(_joined, made, is_leaf=_is_pair)
        return joined, SplitRealAndImaginaryState(after)

    return init, update


def _split(tree: Any) -> Any:
    def leaf(x):
        if not jnp.issubdtype(dtype_of(x), jnp.complexfloating):
            return x
        return SplitRealAndImaginaryArrays(jnp.real(x), jnp.imag(x))

    return jax.tree.map(leaf, tree)


def _is_pair(x: Any) -> bool:
    return isinstance(x, SplitRealAndImaginaryArrays)


def _joined(x: Any) -> Any:
    return lax.complex(x.real, x.imaginary) if _is_pair(x) else x
