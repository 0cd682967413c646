"""Name every metric that gradtx reports: its kind, its unit and what it tells."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

#: A gauge goes up and down, a counter only up; a histogram has counts by magnitude.
Kind = Literal["gauge", "counter", "histogram", "text"]


@dataclasses.dataclass(frozen=True)
class Metric:
    """What one metric is.

    Attributes:
      kind: gauge, counter, histogram or text.
      unit: its unit; empty for a plain number.
      tells: one sentence.
    """

    kind: Kind
    unit: str
    tells: str


#: Every metric by the first part of its name.
METRICS: dict[str, Metric] = {
    # of each update
    "updates": Metric("counter", "updates", "Updates that were observed."),
    "learning_rate": Metric("gauge", "", "The learning rate of the last update."),
    "gradient_norm": Metric("gauge", "", "Global norm of the last gradients."),
    "gradient_norm_mean": Metric("gauge", "", "Mean of the norms in the window."),
    "gradient_norm_variance": Metric(
        "gauge", "", "Variance of the norms in the window."
    ),
    "clipped_fraction": Metric(
        "gauge", "", "Share of the window's updates that were clipped."
    ),
    "clipped_updates": Metric("counter", "updates", "Updates that were clipped."),
    "skipped_updates": Metric("counter", "updates", "Updates that were left out."),
    "loss_scale": Metric(
        "gauge", "", "The number by which the next loss is multiplied."
    ),
    "loss_scale_overflows": Metric(
        "counter", "updates", "Updates left out since a scaled gradient was not finite."
    ),
    "loss_scale_underflows": Metric(
        "counter", "updates", "Updates in which some leaf had scaled gradients of zero."
    ),
    "loss_scale_at_minimum": Metric(
        "gauge", "updates", "Updates in a row left out at the smallest loss scale."
    ),
    "nonfinite_updates": Metric(
        "counter", "updates", "Updates whose gradients held a NaN or an infinity."
    ),
    # of guards
    "bad_gradients": Metric(
        "counter", "updates", "Updates left out for a NaN or infinity in the gradients."
    ),
    "bad_losses": Metric(
        "counter", "updates", "Updates left out for a NaN or infinity in the loss."
    ),
    "bad_updates": Metric(
        "counter", "updates", "Updates left out for one in themselves or in the state."
    ),
    "spikes": Metric(
        "counter", "updates", "Updates left out for a norm or loss that stood out."
    ),
    "consecutive_skips": Metric(
        "gauge", "updates", "Updates that were left out in a row, up to now."
    ),
    "update_factor": Metric(
        "gauge", "", "What a guard multiplies updates by: below 1 it has backed off."
    ),
    "back_offs": Metric("counter", "back-offs", "How often that was made smaller."),
    "roll_backs": Metric(
        "counter", "roll-backs", "How often a guard went back to its snapshot."
    ),
    "exhausted": Metric(
        "gauge", "", "1 where skips and roll-backs do not help; see `guard.check`."
    ),
    # of the last measurement
    "measured_update": Metric(
        "gauge", "updates", "The update at which what follows was measured."
    ),
    "update_norm": Metric("gauge", "", "Global norm of the updates."),
    "param_norm": Metric("gauge", "", "Global norm of the parameters."),
    "update_to_param_ratio": Metric(
        "gauge", "", "Norm of the updates over that of the parameters."
    ),
    "gradient_nonfinite": Metric(
        "gauge", "elements", "NaNs and infinities in the gradients."
    ),
    "update_nonfinite": Metric(
        "gauge", "elements", "NaNs and infinities in the updates."
    ),
    "param_nonfinite": Metric(
        "gauge", "elements", "NaNs and infinities in the parameters."
    ),
    "first_nonfinite": Metric(
        "text",
        "",
        "Path of the first leaf with a NaN or an infinity: of the gradients, or if they "
        "have none of the parameters, else of the updates. Or nothing.",
    ),
    "moment_norm": Metric("gauge", "", "Norm of what a state keeps per parameter."),
    "moment_rms": Metric(
        "gauge", "", "Root mean square of what a state keeps per parameter."
    ),
    "effective_learning_rate": Metric(
        "gauge", "", "Median over elements of |update|/|gradient|."
    ),
    "effective_learning_rate_p10": Metric("gauge", "", "Its tenth percentile."),
    "effective_learning_rate_p90": Metric("gauge", "", "Its ninetieth percentile."),
    "effective_learning_rate_spread": Metric(
        "gauge", "", "Its ninetieth percentile over its tenth."
    ),
    "gradient_cosine": Metric(
        "gauge", "", "Cosine of the angle between successive gradients."
    ),
    "gradient_variance": Metric(
        "gauge", "", "Trace of the covariance of the gradient, per batch."
    ),
    "gradient_noise_scale": Metric(
        "gauge", "batches", "Gradient variance over the squared norm of its mean."
    ),
    "replica_drift": Metric(
        "gauge", "", "Largest difference of a parameter between replicas."
    ),
    "gradient_histogram": Metric("histogram", "elements", "Gradients by magnitude."),
    "update_histogram": Metric("histogram", "elements", "Updates by magnitude."),
    "param_histogram": Metric("histogram", "elements", "Parameters by magnitude."),
    "moment_histogram": Metric(
        "histogram", "elements", "What a state keeps per parameter, by magnitude."
    ),
    "effective_learning_rate_histogram": Metric(
        "histogram", "elements", "Effective learning rates by magnitude."
    ),
    # of the host
    "loss": Metric("gauge", "", "Training loss, as given."),
    "loss_smoothed": Metric("gauge", "", "Running mean of the training loss."),
    "validation_loss": Metric("gauge", "", "Validation loss, as given."),
    "step_seconds": Metric("gauge", "seconds", "Mean time of a step since the last."),
    "steps_per_second": Metric("gauge", "1/seconds", "Steps per second since then."),
    "optimizer_share": Metric("gauge", "", "Share of a step spent in the optimizer."),
    "seconds_to_target": Metric("gauge", "seconds", "Time until the target was met."),
    "state_bytes": Metric("gauge", "bytes", "Size of the optimizer's state."),
    "checkpoint_saves": Metric(
        "counter", "checkpoints", "Checkpoints that were saved."
    ),
    "checkpoint_restores": Metric(
        "counter", "checkpoints", "Checkpoints that were restored."
    ),
    "checkpoint_failures": Metric(
        "counter", "checkpoints", "Saves, restores or verifications that failed."
    ),
    "checkpoint_seconds": Metric("gauge", "seconds", "Duration of the last save."),
    "checkpoint_age_seconds": Metric(
        "gauge", "seconds", "Time since the last good save."
    ),
    "dropped_writes": Metric("counter", "writes", "Writes that a sink could not take."),
}


class Name(NamedTuple):
    """A name in its parts: `moment_norm/field/scale_by_adam.mu/group/encoder`.

    Attributes:
      metric: the first part, a key of `METRICS` or a name of the user's.
      field: the path of a field of the state, after `/field/`. A learning rate or a
        counter has one only where the state holds several.
      group: a label of `observe(groups=)`, after `/group/`.
      leaf: the path of a parameter, after `/leaf/`.
    """

    metric: str
    field: str = ""
    group: str = ""
    leaf: str = ""

    def __str__(self) -> str:
        parts = [self.metric]
        for kind in ("field", "group", "leaf"):
            if value := getattr(self, kind):
                parts += [kind, value]
        return "/".join(parts)


def natural(text: str) -> list[Any]:
    """Return a key that sorts names by the numbers in them: `h_2` before `h_10`."""
    parts = re.split(r"(\d+)", text)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def told_apart(texts: Sequence[str], mark: str) -> tuple[list[str], str]:
    """Return paths without what all begin and end with, and what they begin with.

    Args:
      texts: paths.
      mark: what is between their parts.
    """
    split = [text.split(mark) for text in texts]
    same = lambda index: len({parts[index] for parts in split}) == 1
    least = min((len(parts) for parts in split), default=1)
    front = back = 0
    if len({*texts}) > 1:
        while front < least - 1 and same(front):
            front += 1
        while back < least - 1 - front and same(-1 - back):
            back += 1
    short = [mark.join(parts[front : len(parts) - back]) for parts in split]
    return short, mark.join(split[0][:front]) if split else ""


def parse(name: str) -> Name:
    """Take the name of a value apart.

    Example:
      >>> from gradtx import telemetry
      >>> telemetry.parse("update_norm/leaf/encoder/kernel")
      Name(metric='update_norm', field='', group='', leaf='encoder/kernel')
    """
    metric, *rest = name.split("/")
    parts = {}
    if len(rest) >= 2 and rest[0] == "field":
        parts["field"], rest = rest[1], rest[2:]
    if len(rest) >= 2 and rest[0] in ("group", "leaf"):
        parts[rest[0]] = "/".join(rest[1:])
    whole = Name(metric, **parts)
    return whole if str(whole) == name else Name(name)  # with slashes of its own
