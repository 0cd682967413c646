"""Work through a bounded buffer in a thread, and count what could not be done."""

from __future__ import annotations

import atexit
import collections
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from gradtx.core import ArgumentError

_LOG = logging.getLogger("gradtx.telemetry")
#: How long one kind of failure stays quiet after it was told, in seconds.
_QUIET = 60.0
#: How many items are handled at once at most.
_BATCH = 256
#: What closing at the exit of Python takes at most in all, and what each worker gets
#: all the same, in seconds.
_AT_EXIT, _EACH_AT_EXIT = 10.0, 1.0
_exit_until: float | None = None  # set by the first worker that is closed then


class Lost(Exception):
    """Some items of a batch were lost, and the others were not."""

    def __init__(self, message: str, count: int):
        super().__init__(message, count)
        self.count = count

    def __str__(self) -> str:
        return self.args[0]


class Worker:
    """A buffer, a thread and what the thread does with the items.

    Args:
      handle: called with a list of items, in order. Where it raises, all are lost; but
        with `Lost` as many as that says.
      close: called in the same thread after the last items.
      name: how the worker calls itself in logs.
      capacity: items that the buffer holds; a full one loses its oldest.
      interval: least time between calls of `handle`, in seconds, if the buffer is less
        than half full.
    """

    def __init__(
        self,
        handle: Callable[[Sequence[Any]], object],
        *,
        close: Callable[[], object] | None,
        name: str,
        capacity: int,
        interval: float,
    ):
        if capacity < 1 or not 0 <= interval < float("inf"):
            raise ArgumentError(
                f"expected a capacity of at least 1 and an interval of at least 0 "
                f"seconds, got {capacity} and {interval}.",
                name,
            )
        self._handle, self._finish, self._name = handle, close, name
        self._capacity, self._interval = capacity, interval
        self._changed = threading.Condition()  # its lock is held for microseconds only
        self._buffer: collections.deque[tuple[int, Any]] = collections.deque()
        self._batch: list[tuple[int, Any]] = []  # what is being handled
        self._given = 0
        self.dropped = 0
        self.errors: collections.Counter[str] = collections.Counter()
        self.last_error: str | None = None
        self._told: dict[str, float] = {}
        self._resting = self._urgent = self._closing = self._abandoned = False
        self._process = os.getpid()
        self._thread = threading.Thread(
            target=self._work, name=f"gradtx-{name}", daemon=True
        )
        self._thread.start()
        # One by one rather than all at once: what a backend registered before, W&B say,
        # comes after its sink, and a recorder before its sinks.
        atexit.register(self._close_at_exit)

    def put(self, item: Any) -> None:
        """Take an item; neither blocks nor raises."""
        if not self._is_here():
            self.dropped += 1  # a fork has no thread, and maybe a lock that is held
            return
        with self._changed:
            full = not self._closing and len(self._buffer) >= self._capacity
            if full or self._closing:
                self.dropped += 1
            if full:
                self._buffer.popleft()
            if not self._closing:
                self._buffer.append((self._given, item))
                self._given += 1
                if not self._resting or 2 * len(self._buffer) >= self._capacity:
                    self._changed.notify_all()
        if full:
            self.tell("Overflow", "the buffer is full, the oldest is lost")

    def lose(self, count: int, kind: str, message: str) -> None:
        """Count what was lost before it was put, and tell why."""
        if self._is_here():
            with self._changed:
                self.dropped += count
            self.tell(kind, message)

    def tell(self, kind: str, message: str) -> None:
        """Keep a failure, and log it unless one of its kind was logged lately."""
        with contextlib.suppress(Exception):
            with self._changed:
                self.errors[kind] += 1
            self.last_error = f"{kind}: {message}"[:1000]
            now = time.monotonic()
            if now - self._told.get(kind, -float("inf")) >= _QUIET:
                self._told[kind] = now
                _LOG.warning(
                    "%s: %s; the training goes on, `dropped` counts what is lost",
                    *(self._name, self.last_error),
                )

    def flush(self, timeout: float) -> bool:
        """Wait until all that was put before is done with, and return whether it is."""
        if not self._is_here():
            return True
        with self._changed:
            until, self._urgent = self._given, True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._oldest() >= until, timeout)

    def close(self, timeout: float = 10.0) -> None:
        """Finish what is in the buffer, and end."""
        self.ask_to_close()
        self.await_close(timeout)

    def ask_to_close(self) -> None:
        """Take no more, and end when all is done."""
        if self._is_here():
            with self._changed:
                self._closing = True
                self._changed.notify_all()

    def await_close(self, timeout: float) -> None:
        """Wait for the end; what is not done by then is lost."""
        if not self._is_here():
            return
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        atexit.unregister(self._close_at_exit)
        with self._changed:
            lost = len(self._buffer) + len(self._batch)
            if not self._thread.is_alive() or self._abandoned:
                return
            self._abandoned = True
            self.dropped += lost
            self._buffer.clear()
        self.tell("Timeout", f"did not end within {timeout:g} s, {lost} are lost")

    def _close_at_exit(self) -> None:
        global _exit_until
        if _exit_until is None:
            _exit_until = time.monotonic() + _AT_EXIT
        self.close(max(_EACH_AT_EXIT, _exit_until - time.monotonic()))

    def _is_here(self) -> bool:
        return os.getpid() == self._process

    def _oldest(self) -> int:
        """Return the number of the oldest item that is not done with."""
        waiting = self._batch or self._buffer
        return waiting[0][0] if waiting else self._given

    def _work(self) -> None:
        while batch := self._take():
            lost = 0
            try:
                self._handle([item for _, item in batch])
            except BaseException as error:  # an exit, too, must not end the thread
                lost = len(batch)
                if isinstance(error, Lost):
                    lost = min(error.count, lost)
                self.tell(type(error).__name__, str(error))
            with self._changed:
                self._batch = []
                if not self._abandoned:  # else they are counted already
                    self.dropped += lost
                self._changed.notify_all()  # those who wait in `flush`
            del batch  # its arrays, which may lie on a device, while there is no other
        if self._finish is not None:
            try:
                self._finish()
            except BaseException as error:
                self.tell(type(error).__name__, str(error))

    def _take(self) -> list[tuple[int, Any]]:
        """Wait for items, and return some; none when there will be none any more."""
        with self._changed:
            self._resting = True
            if self._interval and self._given:
                self._changed.wait_for(self._is_due, self._interval)
            self._resting = False
            self._changed.wait_for(lambda: self._buffer or self._closing)
            count = min(_BATCH, len(self._buffer))
            self._batch = [self._buffer.popleft() for _ in range(count)]
            self._urgent = self._urgent and bool(self._buffer)
            return self._batch

    def _is_due(self) -> bool:
        half = 2 * len(self._buffer) >= self._capacity
        return half or self._closing or (self._urgent and bool(self._buffer))


def close_all(workers: Sequence[Worker], timeout: float) -> None:
    """Close workers together: all of them end within one timeout, in seconds."""
    until = time.monotonic() + timeout
    for worker in workers:
        worker.ask_to_close()
    for worker in workers:
        worker.await_close(max(0.0, until - time.monotonic()))
