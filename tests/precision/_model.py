"""Loss scaling in plain Python, written from its description and nothing else."""

from typing import NamedTuple


class Scaler(NamedTuple):
    """The numbers that `dynamic_loss_scaling` is made with, by its names."""

    initial: float = 2.0**16
    growth: float = 2.0
    backoff: float = 0.5
    interval: int = 2000
    hysteresis: int = 1
    minimum: float = 1.0
    maximum: float = 2.0**24


#: What a gradient can be.
GOOD, NAN, INF, MINUS_INF, ZERO = range(5)


def trace(rule: Scaler, faults: list[int]) -> list[tuple[float, ...]]:
    """Return scale and counts after each gradient, in the order of the state's fields."""
    scale, good, left = rule.initial, 0, rule.hysteresis
    in_a_row = total = at_min = underflows = 0
    rows = []
    for fault in faults:
        if fault in (GOOD, ZERO):
            in_a_row = at_min = 0
            underflows += fault == ZERO
            good += 1
            if good == rule.interval:
                good, left = 0, rule.hysteresis
                scale = min(scale * rule.growth, rule.maximum)
        else:
            good = 0
            in_a_row += 1
            total += 1
            left = max(left - 1, 0)
            if left == 0:
                at_min += scale == rule.minimum
                scale = max(scale * rule.backoff, rule.minimum)
        rows.append((scale, good, left, in_a_row, total, at_min, underflows))
    return rows
