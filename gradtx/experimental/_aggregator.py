"""Put an aggregator between what sees single examples and what sees their mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax

from gradtx.combinators import ConditionallyMaskState, conditionally_mask
from gradtx.core import (
    GradientTransformation,
    Inner,
    Link,
    Role,
    Traits,
    as_transformation,
    roles,
    shape_of,
    zero_count,
)

#: Updates of single examples: leaves of shape `(*batch, *shape)`.
PerElementUpdates: TypeAlias = Any
#: Updates of the shapes of the parameters.
AggregatedUpdates: TypeAlias = Any
#: One axis, several, or none.
MaybeAxis: TypeAlias = int | Sequence[int] | None


class AggregatorUpdateFn(Protocol):
    """`update` of an aggregator: from updates of single examples to one update."""

    def __call__(
        self,
        per_elt_updates: PerElementUpdates,
        state: Any,
        params: Any = None,
        **extra_args: Any,
    ) -> tuple[AggregatedUpdates, Any]:
        """Return one update and the new state."""
        ...


@dataclasses.dataclass(frozen=True, repr=False)
class Aggregator(GradientTransformation):
    """A transformation whose gradients are those of single examples.

    Leaves go in with shape `(*batch, *shape)` and come out with that of the parameter.
    The type tells a training loop which gradients to compute.

    Args:
      init, update: as in `GradientTransformation`.
    """

    traits: Traits = dataclasses.field(
        default=Traits(form="any"), compare=False, kw_only=True
    )


class ProcessState(NamedTuple):
    """The state of `process`: those of its three parts."""

    preprocessor: Inner
    aggregator: Inner
    postprocessor: Inner


def process(
    preprocessor: Link,
    aggregator: Link,
    postprocessor: Link,
    aggregator_has_aux: bool = False,
) -> GradientTransformation:
    """Apply one link to single examples, aggregate, and apply another to the result.

    `u ← postprocessor(aggregator(preprocessor(g)))`

    Where the aggregator has a state with a field `ready` that is `False`, because it
    waits for more microbatches, the postprocessor rests and the update is 0.

    Args:
      preprocessor: a link from per-example gradients to per-example updates.
      aggregator: a link from these to one update; an `Aggregator` or, where there is
        nothing to reduce, another transformation.
      postprocessor: a link from that update to the final one, such as an optimizer.
      aggregator_has_aux: whether the aggregator returns a pair of an update and a
        dict, whose entries the postprocessor gets as extra arguments.

    Returns:
      A transformation; an `Aggregator` if `aggregator` is one.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> from gradtx.experimental import aggregating
      >>> tx = aggregating.process(
      ...     gradtx.clip(1.0), aggregating.average_per_element_updates(), gradtx.sgd(1.0)
      ... )
      >>> state = tx.init(jnp.zeros(1))
      >>> tx.update(jnp.array([[5.0], [0.0]]), state)[0].tolist()  # two examples
      [-0.5]

    Source: Abadi et al. 2016, arXiv:1607.00133, Algorithm 1 (clip, add, step), with
    any links in the three places.
    """
    before, gather = as_transformation(preprocessor), as_transformation(aggregator)
    after = as_transformation(postprocessor)
    gate = conditionally_mask(after, _is_ready, forward_extra_args=True)

    def init(params):
        return ProcessState(
            before.init(params), gather.init(params), after.init(params)
        )

    def update(updates, state, params=None, **extra):
        # single examples have no parameters of their own
        own = params if _same_shapes(updates, params) else None
        updates, first = before.update(updates, state[0], own, **extra)
        updates, second = gather.update(updates, state[1], params, **extra)
        if aggregator_has_aux:
            updates, aux = updates
            extra = extra | aux
        ready = _find_ready(second)
        if ready is None:
            updates, third = after.update(updates, state[2], params, **extra)
        else:
            gated = ConditionallyMaskState(zero_count(), state[2])
            updates, gated = gate.update(
                updates, gated, params, **(extra | {"ready": ready})
            )
            third = gated.inner_state
        return updates, ProcessState(first, second, third)

    update.__qualname__ = "process"  # a chain's name for it
    kind = Aggregator if isinstance(gather, Aggregator) else GradientTransformation
    return kind(init, update, traits=Traits(form="any"))


def _same_shapes(a: Any, b: Any) -> bool:
    shapes = lambda tree: [shape_of(x) for x in jax.tree.leaves(tree)]
    return shapes(a) == shapes(b)


def _is_ready(step: Any, *, ready: Any, **extra: Any) -> Any:
    return ready


def _find_ready(state: Any) -> Any:
    """Return the field `ready` of a state or of one inside it, else `None`.

    Trees of parameters are not searched: one of them may be called `ready`.
    """
    if not isinstance(state, tuple):
        return None
    fields = getattr(state, "_fields", ())
    if "ready" in fields:
        return getattr(state, "ready")  # noqa: B009 - of a tuple that may lack it
    kinds = roles(state)
    inside = [
        value
        for name, value in zip(fields or [""] * len(state), state, strict=True)
        if kinds.get(name, Role.INNER) is Role.INNER
    ]
    found = map(_find_ready, inside)
    return next((ready for ready in found if ready is not None), None)
