"""Follow how far a training is: the running mean of its loss, when it met its target."""

from __future__ import annotations

import math
from typing import Any


class Progress:
    """The mean of the losses so far, and the time of the target.

    Args:
      smoothing: the share of the mean that one loss keeps.
      target: name and value of the metric to be met.
      above: whether the target is met from its value upwards.
      began: when training began, in seconds of any clock.
    """

    def __init__(
        self,
        smoothing: float,
        target: tuple[str, float] | None,
        above: bool,
        began: float,
    ):
        self._smoothing, self._target, self._above = smoothing, target, above
        self._began, self._met = began, None
        self._mean = self._weight = 0.0

    def see(self, now: float, name: str, value: Any) -> None:
        """Look at a metric of that time; a loss that is not finite is left out."""
        if not isinstance(value, (int, float)):
            return
        if name == "loss" and math.isfinite(value):
            keep = self._smoothing
            self._mean = keep * self._mean + (1 - keep) * value
            self._weight = keep * self._weight + (1 - keep)
        if self._met is None and self._target is not None and self._target[0] == name:
            goal = self._target[1]
            if value >= goal if self._above else value <= goal:
                self._met = now

    @property
    def metrics(self) -> dict[str, float]:
        """The mean, corrected for its start, and how long the target took."""
        found = {}
        if self._weight:
            found["loss_smoothed"] = self._mean / self._weight
        if self._met is not None:
            found["seconds_to_target"] = self._met - self._began
        return found
