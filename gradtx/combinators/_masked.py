"""Apply a transformation to some leaves and pass the others through."""

from __future__ import annotations

from typing import NamedTuple

from gradtx.core import (
    Inner,
    Link,
    MaskOrFn,
    as_transformation,
    hide,
    hide_like,
    resolve_mask,
    reveal,
    set_to_zero,
    transformation,
)


class MaskedState(NamedTuple):
    """The state of `masked`: that of the wrapped transformation, without hidden leaves."""

    inner_state: Inner


@transformation
def masked(
    inner: Link,
    mask: MaskOrFn,
    *,
    mask_compatible_extra_args: bool = False,
):
    """Apply `inner` to the leaves that `mask` selects; pass the others through.

    `u ← inner(g)` where the mask is `True`, else `u ← g`

    The other leaves keep their *gradient*: a whole optimizer under a mask would move
    them uphill. To leave them alone, use `partition` with `set_to_zero`, or `freeze`.

    Args:
      inner: the transformation for the selected leaves.
      mask: a tree of bools like the parameters or a prefix of it, a function from
        the parameters to such a tree, or a selector.
      mask_compatible_extra_args: whether extra arguments structured like the
        parameters are masked too.

    Raises:
      ArgumentError: if the mask does not fit the parameters or its bools are traced.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.masked(gradtx.scale(10.0), {"w": True, "b": False})
      >>> params = {"w": jnp.ones(1), "b": jnp.ones(1)}
      >>> tx.update(params, tx.init(params))[0]
      {'b': Array([1.], dtype=float32), 'w': Array([10.], dtype=float32)}

    Source: the parameter groups of torch.optim, as a link.
    """
    inner = as_transformation(inner)

    def init(params):
        return MaskedState(inner.init(hide(resolve_mask(mask, params), params)))

    def update(updates, state, params=None, **extra):
        flags = resolve_mask(mask, updates if params is None else params)
        shown = None if params is None else hide(flags, params)
        if mask_compatible_extra_args:
            extra = {name: hide_like(flags, value) for name, value in extra.items()}
        inside, inner_state = inner.update(
            hide(flags, updates), state.inner_state, shown, **extra
        )
        return reveal(flags, inside, updates), MaskedState(inner_state)

    return init, update


@transformation
def freeze(mask: MaskOrFn):
    """Keep the leaves that `mask` selects where they are; pass the others through.

    `u ← 0` where the mask is `True`, else `u ← g`

    Put it last, or weight decay and momentum move frozen leaves after all.

    Args:
      mask: `True` for frozen leaves, in any form that `masked` takes.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.freeze(gradtx.path_matches("^encoder"))
      >>> g = {"encoder": jnp.ones(1), "head": jnp.ones(1)}
      >>> tx.update(g, tx.init(g))[0]["encoder"].tolist()
      [0.0]

    Source: torch's `requires_grad_(False)`, as a link.
    """
    return masked(set_to_zero(), mask)
