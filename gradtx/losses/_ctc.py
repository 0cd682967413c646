"""Connectionist temporal classification: sequences without alignment."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core import Numeric, ShapeError
from gradtx.losses._arrays import check_integers, floats


def ctc_loss(
    logits: Any,
    logit_paddings: Any,
    labels: Any,
    label_paddings: Any,
    *,
    blank_id: int = 0,
    log_epsilon: Numeric = -1e5,
) -> jax.Array:
    """Return minus the log-probability that frames spell a label sequence.

    `−log Σ over alignments of Π_t softmax(logits_t)_(symbol of the alignment at t)`

    Args:
      logits: floating array of shape `(batch, frames, classes)`.
      logit_paddings: shape `(batch, frames)`, 1 where a frame is padding, else 0.
      labels: integers of shape `(batch, labels)`, without blanks.
      label_paddings: shape `(batch, labels)`, 1 where a label is padding, which must be
        at the end, else 0.
      blank_id: the class of the blank.
      log_epsilon: the logarithm that stands for probability 0. A sequence longer than
        its frames costs about minus that.

    Returns:
      An array of shape `(batch,)`.

    Raises:
      ShapeError: if the shapes do not fit.
      DtypeError: if logits are not floating or labels not integer.

    Source: Graves et al. 2006, "Connectionist Temporal Classification", section 4.1.
    """
    return ctc_loss_with_forward_probs(
        logits,
        logit_paddings,
        labels,
        label_paddings,
        blank_id=blank_id,
        log_epsilon=log_epsilon,
    )[0]


def ctc_loss_with_forward_probs(
    logits: Any,
    logit_paddings: Any,
    labels: Any,
    label_paddings: Any,
    *,
    blank_id: int = 0,
    log_epsilon: Numeric = -1e5,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the loss of `ctc_loss` and the log-probabilities of all prefixes.

    Args:
      logits, logit_paddings, labels, label_paddings, blank_id, log_epsilon: as in
        `ctc_loss`.

    Returns:
      The loss, shape `(batch,)`; the log-probabilities that the frames so far spell the
      first n labels and end in a blank, shape `(frames, batch, labels + 1)`, where the
      last frame has those of any end; and that they end in label n itself, shape
      `(frames, batch, labels)`.

    Source: Graves et al. 2006, "Connectionist Temporal Classification", equations 5-8.
    """
    name = "ctc_loss"
    logits, frame_pads, label_pads = floats(
        name, logits, logit_paddings, label_paddings
    )
    labels = jnp.asarray(labels)
    check_integers(name, labels)
    fits = logits.ndim == 3 and labels.ndim == 2 and labels.shape == label_pads.shape
    if not (
        fits and frame_pads.shape == logits.shape[:2] and len(labels) == len(logits)
    ):
        raise ShapeError(
            "expected logits (batch, frames, classes), their paddings (batch, frames), "
            "labels and their paddings (batch, labels); got "
            f"{logits.shape}, {frame_pads.shape}, {labels.shape}, {label_pads.shape}.",
            name,
        )
    batch, count = labels.shape
    dtype = logits.dtype
    none = jnp.asarray(log_epsilon).astype(dtype)
    log_probs = jax.nn.log_softmax(logits).transpose(
        1, 0, 2
    )  # (frames, batch, classes)
    of_blank = log_probs[:, :, blank_id, None]
    of_label = jnp.take_along_axis(log_probs, labels[None], axis=2)
    # a label that equals the one before it is reached through a blank only
    again = jnp.pad(labels[:, 1:] == labels[:, :-1], ((0, 0), (0, 1))).astype(dtype)

    def reached(blank: jax.Array, arrivals: jax.Array) -> jax.Array:
        """Let states after each label be reached from that label as well."""
        return jnp.concatenate(
            [blank[:, :1], jnp.logaddexp(blank[:, 1:], arrivals)], axis=1
        )

    def frame(state: Any, drawn: Any) -> Any:
        blank, label = state
        p_label, p_blank, pad = drawn
        start = reached(blank, label + none * again)
        new_label = p_label + jnp.logaddexp(start[:, :-1], label)
        new_blank = reached(start + p_blank, label + p_blank + none * (1 - again))
        pad = pad[:, None] > 0
        state = jnp.where(pad, blank, new_blank), jnp.where(pad, label, new_label)
        return state, state

    blank = jnp.full((batch, count + 1), none, dtype).at[:, 0].set(0)
    label = jnp.full((batch, count), none, dtype)
    frames = (of_label, of_blank, frame_pads.T)
    _, (blanks, label_ends) = lax.scan(frame, (blank, label), frames)
    last = reached(blanks[-1], label_ends[-1])
    blanks = blanks.at[-1].set(last)
    lengths = count - jnp.sum(label_pads > 0, axis=1, dtype=jnp.int32)
    loss = -jnp.take_along_axis(last, lengths[:, None], axis=1)[:, 0]
    return loss, blanks, label_ends
