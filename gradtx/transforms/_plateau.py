"""Scale updates down when the objective stops falling."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from gradtx.core import (
    ArgumentError,
    Count,
    Numeric,
    Scalar,
    check_count,
    check_non_negative,
    is_static,
    map_leaves,
    safe_increment,
    transformation,
    zero_count,
)


class ReduceLROnPlateauState(NamedTuple):
    """The state of `reduce_on_plateau`.

    Attributes:
      scale: the factor in use.
      best_value: the least mean so far.
      plateau_count: means since then, or since the last reduction.
      cooldown_count: means for which nothing will be counted.
      count: values in the mean that is being gathered.
      avg_value: that mean.
    """

    scale: Scalar
    best_value: Scalar
    plateau_count: Count
    cooldown_count: Count
    count: Count
    avg_value: Scalar


@transformation(stage="rate", needs={"value"})
def reduce_on_plateau(
    factor: float = 0.1,
    patience: int = 10,
    rtol: float = 1e-4,
    atol: float = 0.0,
    cooldown: int = 0,
    accumulation_size: int = 1,
    min_scale: Numeric = 0.0,
):
    """Multiply updates by a factor that falls when the objective has stopped falling.

    `u ← scale·g`; `scale ← max(factor·scale, min_scale)` once `patience` means in turn
    were not below `best − rtol·|best| − atol`

    `update` needs `value=`, that of the objective.

    Args:
      factor: what the scale is multiplied by, in (0, 1).
      patience: means without improvement before a reduction, 1 or more.
      rtol: the improvement that counts, relative to the best value, in [0, 1].
      atol: the improvement that counts, absolute. One of the two must be above 0.
      cooldown: means after a reduction that are not counted.
      accumulation_size: values that are averaged before they are judged, 1 or more.
      min_scale: where the scale stops falling.

    Raises:
      ArgumentError: if an argument is outside its range.
      MissingArgumentError: if `update` gets no `value`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.reduce_on_plateau(factor=0.5, patience=1)
      >>> state = tx.init({"w": jnp.ones(1)})
      >>> for value in (1.0, 1.0):
      ...     updates, state = tx.update({"w": jnp.ones(1)}, state, value=value)
      >>> updates["w"].tolist()
      [0.5]

    Source: torch.optim.lr_scheduler.ReduceLROnPlateau.

    Differs from optax: an improvement is relative to the size of the best value, so
    that negative values can improve.
    """
    if is_static(factor) and not 0 < factor < 1:
        raise ArgumentError(f"factor must lie in (0, 1), got {factor!r}.")
    check_non_negative(rtol=rtol, atol=atol, min_scale=min_scale)
    if is_static(rtol) and is_static(atol) and not (rtol + atol > 0 and rtol <= 1):
        raise ArgumentError(
            "rtol must be at most 1, and one of rtol and atol above 0, got "
            f"rtol={rtol!r}, atol={atol!r}."
        )
    check_count(1, accumulation_size=accumulation_size)

    def init(params):
        scalar = lambda x: jnp.asarray(x, jnp.float32)
        return ReduceLROnPlateauState(
            scale=scalar(1.0),
            best_value=scalar(jnp.inf),
            plateau_count=zero_count(),
            cooldown_count=zero_count(),
            count=zero_count(),
            avg_value=scalar(0.0),
        )

    def update(updates, state, params=None, *, value, **extra):
        value = jnp.asarray(value).astype(jnp.float32)
        count = safe_increment(state.count)
        weight = count.astype(jnp.float32)
        mean = ((weight - 1) * state.avg_value + value) / weight
        gathering = state._replace(count=count, avg_value=mean)
        judged = judge(gathering)
        full = count >= accumulation_size
        state = ReduceLROnPlateauState(
            *(
                jnp.where(full, new, old)
                for new, old in zip(judged, gathering, strict=True)
            )
        )
        return map_leaves(_scaled, updates, scale=state.scale), state

    def judge(state: ReduceLROnPlateauState) -> ReduceLROnPlateauState:
        best, mean = state.best_value, state.avg_value
        known = jnp.isfinite(best)
        margin = jnp.where(known, rtol * abs(jnp.where(known, best, 0)) + atol, 0)
        better = mean < best - margin
        resting = state.cooldown_count > 0
        waited = jnp.where(better, 0, safe_increment(state.plateau_count))
        reduce = (waited >= patience) & ~resting
        lower = jnp.maximum(state.scale * factor, min_scale)
        rest = jnp.where(
            reduce, cooldown, state.cooldown_count - resting.astype(jnp.int32)
        )
        return ReduceLROnPlateauState(
            scale=jnp.where(reduce, lower, state.scale).astype(jnp.float32),
            best_value=jnp.where(better, mean, best),
            plateau_count=jnp.where(reduce | resting, 0, waited).astype(jnp.int32),
            cooldown_count=rest.astype(jnp.int32),
            count=zero_count(),
            avg_value=jnp.zeros((), jnp.float32),
        )

    return init, update


def _scaled(g, *, scale):
    return scale * g
