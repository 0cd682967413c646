"""Let several processes agree on what only one can decide, and wait for each other."""

from __future__ import annotations

import collections
import json
import threading
from typing import Any

import jax

from gradtx.core import CheckpointError, imported

_SECONDS = 1200
_CALLS: collections.Counter[str] = collections.Counter()
_LOCK = threading.Lock()


def is_first() -> bool:
    """Say whether this process writes what only one may write."""
    return jax.process_index() == 0


def agree(label: str, value: Any) -> Any:
    """Return the plain data that the first process gives, on all processes.

    Every process must come here as often under one label. No device takes part, so
    that a thread beside the training may call it.

    Raises:
      CheckpointError: if another process does not come.
    """
    if jax.process_count() == 1:
        return value
    key, client = _next(label), _client()
    if is_first():
        client.key_value_set(key, json.dumps(value))
        return value
    try:
        return json.loads(client.blocking_key_value_get(key, _SECONDS * 1000))
    except jax.errors.JaxRuntimeError as error:
        raise _alone(label, error) from error


def barrier(label: str) -> None:
    """Wait until every process is here.

    Raises:
      CheckpointError: if another process does not come.
    """
    if jax.process_count() == 1:
        return
    try:
        _client().wait_at_barrier(_next(label), _SECONDS * 1000)
    except jax.errors.JaxRuntimeError as error:
        raise _alone(label, error) from error


def _next(label: str) -> str:
    with _LOCK:
        _CALLS[label] += 1
        return f"gradtx/checkpoint/{label}/{_CALLS[label]}"


def _client() -> Any:
    multihost = imported("orbax.checkpoint", "checkpoint").multihost
    return multihost.get_jax_distributed_client()


def _alone(label: str, error: BaseException) -> CheckpointError:
    return CheckpointError(
        f"process {jax.process_index()} of {jax.process_count()} waited for the others "
        f"at {label!r}, and they did not come: {str(error).splitlines()[0][:200]}"
    )
