"""Give each group of leaves a transformation of its own."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import jax

from gradtx.combinators._masked import masked
from gradtx.core import (
    ArgumentError,
    Inner,
    Link,
    MaskOrFn,
    as_shapes,
    as_transformation,
    path_of,
    repack,
    resolve_mask,
    set_to_zero,
    spread_prefix,
    transformation,
)


class PartitionState(NamedTuple):
    """The state of `partition`: one state per label, each for its own leaves."""

    inner_states: Inner


#: The name of the state under optax's older spelling.
MultiTransformState = PartitionState


@transformation
def partition(
    transforms: Mapping[Any, Link],
    param_labels: Any,
    *,
    mask_compatible_extra_args: bool = False,
):
    """Apply to each leaf the transformation that belongs to its label.

    `u ← transforms[label(leaf)](g)`

    Args:
      transforms: a transformation for each label.
      param_labels: a tree of labels like the parameters or a prefix of it, or a
        function from the parameters to such a tree: `label_paths(...)`, or a selector
        for the labels `True` and `False`. It is called with the updates where
        `update` gets no parameters.
      mask_compatible_extra_args: as in `masked`.

    Raises:
      ArgumentError: if a leaf has a label that `transforms` lacks, or the labels do
        not fit the parameters.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.partition(
      ...     {"slow": gradtx.sgd(0.1), "fast": gradtx.sgd(1.0)},
      ...     gradtx.label_paths({"embed": "slow"}, default="fast"),
      ... )
      >>> g = {"embed": jnp.ones(1), "head": jnp.ones(1)}
      >>> tx.update(g, tx.init(g))[0]["head"].tolist()
      [-1.0]

    Source: the parameter groups of torch.optim.
    """
    inner = {label: as_transformation(tx) for label, tx in transforms.items()}

    def groups(tree):
        labels = _labels(param_labels, tree, inner)
        return {
            label: masked(
                tx,
                jax.tree.map(lambda it, label=label: it == label, labels),
                mask_compatible_extra_args=mask_compatible_extra_args,
            )
            for label, tx in inner.items()
        }

    def init(params):
        made = {label: tx.init(params) for label, tx in groups(params).items()}
        return PartitionState(made)

    def update(updates, state, params=None, **extra):
        states = {}
        for label, tx in groups(updates if params is None else params).items():
            before = state.inner_states[label]
            updates, states[label] = tx.update(updates, before, params, **extra)
        return updates, PartitionState(states)

    return init, update


#: optax's older spelling.
multi_transform = partition


@transformation
def selective_transform(optimizer: Link, *, freeze_mask: MaskOrFn):
    """Apply an optimizer to all leaves but those that a mask freezes.

    `u ← optimizer(g)` where the mask is `False`, else `u ← 0`

    Frozen leaves cost no state, where `freeze` as a last link keeps their moments.

    Args:
      optimizer: the transformation for the other leaves.
      freeze_mask: `True` for frozen leaves, in any form that `masked` takes.

    Raises:
      ArgumentError: if the mask does not fit the parameters or its bools are traced.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> frozen = gradtx.path_matches("^encoder")
      >>> tx = gradtx.selective_transform(gradtx.sgd(1.0), freeze_mask=frozen)
      >>> g = {"encoder": jnp.ones(1), "head": jnp.ones(1)}
      >>> tx.update(g, tx.init(g))[0]["head"].tolist()
      [-1.0]

    Source: torch's `requires_grad_(False)` before the optimizer is made.
    """

    def label(tree):
        flags = resolve_mask(freeze_mask, tree)
        return jax.tree.map(lambda frozen: "freeze" if frozen else "train", flags)

    return partition({"train": optimizer, "freeze": set_to_zero()}, label)


def _labels(param_labels: Any, tree: Any, known: Mapping[Hashable, Any]) -> Any:
    seen = as_shapes(tree)
    labels = param_labels(seen) if callable(param_labels) else param_labels
    spread = spread_prefix(labels, seen, "labels")
    for path, label in jax.tree_util.tree_leaves_with_path(spread):
        if label not in known:
            raise ArgumentError(
                f"params{path_of(path)} has the label {label!r}, for which there is no "
                f"transformation; there are some for {list(known)}."
            )
    return repack(spread, tree)
