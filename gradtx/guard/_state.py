"""Say what a guard keeps between steps."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from gradtx.core import Count, Flag, Inner, Reading, Role, Saved, Scalar


class GuardedState(NamedTuple):
    """The state of `guarded`; `gradtx.guard.status` tells what it says.

    Attributes:
      batches: calls so far.
      skipped: those that were left out: the sum of the next four.
      bad_gradients: for a NaN or an infinity in the gradients.
      bad_losses: for one in `value=`.
      bad_updates: for one in the updates of the wrapped transformation or in its state.
      spikes: for a number far above those before.
      consecutive: how many were left out in a row, up to now.
      recovery: good steps since the last bad one, or since the factor was last raised.
      factor: what the updates are multiplied by.
      back_offs: how often it was made smaller.
      entries: numbers that have been entered in the window.
      window: the last of them, in a ring; nothing without `sigmas`.
      snapshot: what a roll-back goes back to; nothing without `roll_back_after`.
      snapshot_age: updates since then.
      roll_backs: how often the run went back.
      attempts: roll-backs to this snapshot.
      rolled_back: whether the last call went back.
      exhausted: whether a person should look; see `raise_after`.
      inner_state: the state of the wrapped transformation, untouched by bad steps.
    """

    batches: Count
    skipped: Annotated[Count, Reading("skipped_updates")]
    bad_gradients: Annotated[Count, Reading("bad_gradients")]
    bad_losses: Annotated[Count, Reading("bad_losses")]
    bad_updates: Annotated[Count, Reading("bad_updates")]
    spikes: Annotated[Count, Reading("spikes")]
    consecutive: Annotated[Count, Reading("consecutive_skips")]
    recovery: Count
    factor: Annotated[Scalar, Reading("update_factor")]
    back_offs: Annotated[Count, Reading("back_offs")]
    entries: Count
    window: Annotated[Any, Role.SCALAR]
    snapshot: Saved
    snapshot_age: Count
    roll_backs: Annotated[Count, Reading("roll_backs")]
    attempts: Count
    rolled_back: Flag
    exhausted: Annotated[Flag, Reading("exhausted")]
    inner_state: Inner
