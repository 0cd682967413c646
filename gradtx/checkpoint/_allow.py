"""Decide which differences between two optimizers the caller has allowed."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from pathlib import Path

from gradtx.checkpoint._changes import (
    Change,
    argument_names,
    optimizer_changes,
    shown,
)
from gradtx.checkpoint._leaves import Listing
from gradtx.checkpoint._records import Manifest
from gradtx.core import (
    ArgumentError,
    GradientTransformation,
    MismatchError,
    describe,
)


def allowed_changes(
    directory: Path,
    manifest: Manifest,
    now: Listing,
    tx: GradientTransformation | None,
    names: Sequence[str],
    allow_opaque: bool,
    migrate: bool,
) -> list[Change]:
    """Return how the optimizers differ, if all of it is allowed.

    Args:
      directory: of the step, to be told.
      manifest: what is in it.
      now: what it is restored into.
      tx: the optimizer that goes on.
      names: the hyperparameters that may have changed.
      allow_opaque: whether what cannot be compared may have changed.
      migrate: whether anything else of the optimizer may have changed.

    Raises:
      MismatchError: listing what differs and is not allowed.
      ArgumentError: if a name in `names` is no argument.
    """
    if missing := [name for name in now.trees if name not in manifest.trees]:
        raise MismatchError(
            f"{directory}: nothing was saved as {missing[0]!r}; there are "
            f"{', '.join(manifest.trees)}."
        )
    if tx is None:
        if manifest.optimizer is None or not now.states:
            return []
        raise MismatchError(
            f"{directory}: an optimizer was saved, and its state is asked for without "
            "one to compare. Give tx=."
        )
    if manifest.optimizer is None:
        return _unrecorded(directory, now, tx, allow_opaque)
    described = describe(tx, opaque=True)
    changes = optimizer_changes(manifest.optimizer, described)
    known = {*argument_names(manifest.optimizer), *argument_names(described)}
    _check_names(names, known)
    refused, advice = [], []
    hyper = [c for c in changes if c.kind == "hyperparameter"]
    if odd := [c for c in hyper if not _is_named(c.path, names, known)]:
        refused += odd
        last = sorted({c.path for c in odd})
        advice.append(f"allow_hyperparameters={last} if the new values are meant")
    if (opaque := [c for c in changes if c.kind == "opaque"]) and not allow_opaque:
        refused += opaque
        advice.append(
            "allow_opaque=True if the functions are the same; a selector or schedule of "
            "gradtx in their place would tell by itself"
        )
    if (other := [c for c in changes if c.kind == "optimizer"]) and not migrate:
        refused += other
        advice.append("migrate=True to carry over by name what both have")
    if refused:
        raise MismatchError(
            f"{directory}: the optimizer is not the one that was saved (then -> now):\n"
            f"{shown(sorted(refused, key=changes.index))}\nGive the optimizer of then, or "
            f"{'; or '.join(advice)}. Nothing was read."
        )
    return changes


def _unrecorded(
    directory: Path, now: Listing, tx: GradientTransformation, allow_opaque: bool
) -> list[Change]:
    """Return that nothing is known of the optimizer of then, if that is allowed."""
    if not now.states:
        return []
    change = Change("opaque", "optimizer", "not recorded", repr(tx))
    if allow_opaque:
        return [change]
    raise MismatchError(
        f"{directory}: it was saved without tx=, so that nobody can tell whether its "
        f"state is that of {tx!r}. allow_opaque=True takes it for the same. Nothing was "
        "read."
    )


def _check_names(names: Collection[str], known: Collection[str]) -> None:
    """Raise for a name that neither optimizer has: a slip would allow nothing."""
    known = {*known, *(_last(path) for path in known)}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ArgumentError(
                f"allow_hyperparameters names {name!r}, which is an argument of neither "
                f"optimizer.{hint} gradtx.hyperparameters(tx) lists them.",
                "checkpoint.restore",
            )


def _is_named(path: str, names: Collection[str], known: Collection[str]) -> bool:
    """Say whether an argument is named, or what it is an argument of: a schedule."""
    while path:
        if path in known and (path in names or _last(path) in names):
            return True
        path = path.rpartition(".")[0]
    return False


def _last(path: str) -> str:
    return path.rpartition(".")[2]
