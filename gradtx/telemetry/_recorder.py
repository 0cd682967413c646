"""Record each step of a training: time it, smooth its loss, hand all on to sinks."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax

from gradtx.core import ArgumentError, check_count, check_decay
from gradtx.telemetry._copy import copied
from gradtx.telemetry._progress import Progress
from gradtx.telemetry._read import collect, named
from gradtx.telemetry._record import READY, Record, as_record, fetch, plain
from gradtx.telemetry._sink import Sink, close_all, is_failure
from gradtx.telemetry._worker import Lost, Worker

#: Losses that wait for the next written record; more are handed on without one.
_WAITING = 256
_WHAT = ("save", "restore", "verify")


class _Entry(NamedTuple):
    """What the caller's thread hands to the recorder's."""

    losses: list[tuple[float, Any]]  # of the steps before, with their times
    now: float = 0.0
    time: float = 0.0
    step: Any = None  # None: there are only losses
    raw: Any = None
    values: Mapping[str, Any] = {}


class Recorder:
    """What a training loop calls once a step, to have the step measured and written.

    Recording neither waits for the device nor raises: what fails is counted and logged.
    It costs some microseconds a step; where a record is written, its arrays are copied
    on the device, which takes the host 5 µs or so for each of them, and 100 µs or so for
    a thousand numbers. Sinks run in threads of the same interpreter: one call in a
    hundred waits some milliseconds for them, and tens of milliseconds with thousands of
    metrics a step; write those more rarely. Besides what it is given, a record has the times of steps, counts of checkpoints, and what `METRICS`
    lists as of the host.

    Args:
      sinks: where records go; they are closed with the recorder.
      every: of how many calls of `record` the last is written; the losses of all enter
        `loss_smoothed`.
      smoothing: the share of the running mean of losses that one step keeps, in [0, 1).
        The mean is corrected for its start; losses that are not finite are left out.
      target: name and value of a metric that is to be met. From then on
        `seconds_to_target` is the time from the making of the recorder until then.
      direction: whether the target is met at its value and below, or above.
      optimizer_seconds: what the optimizer takes of one step, as measured apart.
      state_bytes: the size of the optimizer's state.
      read: what `record` calls with the state that it gets. It must not wait for the
        device; its arrays are copied there before `record` returns, so that the next
        step may take the state's buffers.
      finish: called in the recorder's thread with a copy of what `read` returned, to
        turn it into metrics by name.
      clock: the time in seconds since any moment.

    Raises:
      ArgumentError: if an argument is out of its range.

    Example:
      >>> from gradtx.telemetry import Recorder, Sink
      >>> sink = Sink(lambda records: print(records[-1].step, records[-1].values["loss"]))
      >>> with Recorder([sink], every=2) as recorder:
      ...     for step in range(1, 4):
      ...         recorder.record(step, loss=1 / step)
      2 0.5
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        every: int = 1,
        smoothing: float = 0.98,
        target: tuple[str, float] | None = None,
        direction: Literal["below", "above"] = "below",
        optimizer_seconds: float | None = None,
        state_bytes: int | None = None,
        read: Callable[[Any], Mapping[str, Any]] = collect,
        finish: Callable[[Any], Mapping[str, Any]] = named,
        clock: Callable[[], float] = time.perf_counter,
    ):
        check_count(1, every=every)
        check_decay(smoothing=smoothing)
        if direction not in ("below", "above"):
            raise ArgumentError(
                f"direction must be 'below' or 'above', got {direction!r}. A loss is to "
                "fall below its target.",
                "Recorder",
            )
        if isinstance(sinks, Sink) or not all(isinstance(s, Sink) for s in sinks):
            raise ArgumentError(
                f"expected a sequence of sinks, got {sinks!r}. One sink goes in a list, "
                "and a function in `Sink(function)`.",
                "Recorder",
            )
        self.sinks = tuple(sinks)
        self._every = every
        self._optimizer_seconds, self._state_bytes = optimizer_seconds, state_bytes
        self._read, self._finish, self._clock = read, finish, clock
        self._progress = Progress(smoothing, target, direction == "above", clock())
        self._calls, self._step = 0, 0
        #: Time and calls at the last record.
        self._since: tuple[float, int] | None = None
        self._losses: list[tuple[float, Any]] = []
        self._paused = 0.0  # seconds in checkpoints since the last record
        self._thread = threading.get_ident()
        # May be entered again: a handler of SIGTERM saves, wherever the loop is just now.
        self._lock = threading.RLock()
        self._saves = self._restores = self._failures = 0
        self._saved_at = self._save_seconds = None
        self._worker = Worker(
            self._hand_on, close=None, name="recorder", capacity=1024, interval=0.0
        )

    def record(self, step: Any, state: Any = None, /, **values: Any) -> None:
        """Take what was measured at one step; call it once a step.

        The time of a step is the mean of those since the last written record, without
        what this thread spent in `checkpoint`. Where the host runs ahead of the device,
        single times are those of the host, and means come near those of the device.

        Args:
          step: the training step.
          state: the optimizer's state, in any loop's; or metrics by name.
          **values: more metrics, as `loss` and `validation_loss`. Losses of steps that
            are not written are not copied: do not donate them.
        """
        try:
            now = self._clock()
            self._calls += 1
            self._thread = threading.get_ident()
            if not isinstance(step, jax.Array):
                self._step = step
            given = values
            if isinstance(state, Mapping) and self._read is collect:
                given, state = {**state, **values}, None
            if self._calls % self._every == 0:
                timed = {**given, **self._timed(now)}
                self._put(step, now, state, timed)
            elif "loss" in given:
                with self._lock:
                    self._losses.append((now, given["loss"]))
                if len(self._losses) >= _WAITING:
                    self._worker.put(_Entry(self._waiting_losses()))
            if self._since is None:
                self._since = now, self._calls
        except Exception as error:
            self._worker.lose(1, type(error).__name__, str(error))

    def write(self, step: Any, /, **values: Any) -> None:
        """Write metrics at once, whatever `every` is: a validation loss, say.

        Args:
          step: the training step.
          **values: the metrics.
        """
        try:
            self._put(step, self._clock(), None, values)
        except Exception as error:
            self._worker.lose(1, type(error).__name__, str(error))

    @contextlib.contextmanager
    def checkpoint(
        self, what: Literal["save", "restore", "verify"] = "save"
    ) -> Iterator[None]:
        """Time and count a save, a restore or a verification, and write it at once.

        An error counts as a failure, and is raised all the same.

        Args:
          what: which of the three it is.

        Raises:
          ArgumentError: if it is none of them.
        """
        if what not in _WHAT:
            raise ArgumentError(
                f"expected one of {_WHAT}, got {what!r}. Name what the block does.",
                "Recorder.checkpoint",
            )
        begin, failed = self._clock(), True
        try:
            yield
            failed = False
        finally:
            now = self._clock()
            with self._lock:
                self._failures += failed
                if not failed and what == "save":
                    self._saves += 1
                    self._saved_at, self._save_seconds = now, now - begin
                if not failed and what == "restore":
                    self._restores += 1
                if threading.get_ident() == self._thread:
                    self._paused += now - begin
            self.write(self._step)

    @property
    def dropped(self) -> int:
        """Writes that were lost, by the recorder and by all of its sinks."""
        return self._worker.dropped + sum(sink.dropped for sink in self.sinks)

    @property
    def last_error(self) -> str | None:
        """What went wrong last in the recorder itself, or None; sinks have their own."""
        return self._worker.last_error

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until all sinks have had all that was recorded, at most so many seconds.

        Returns:
          Whether they had all of it, be it that some was lost.
        """
        until = time.monotonic() + timeout
        done = self._worker.flush(timeout)
        for sink in self.sinks:
            done = sink.flush(max(0.0, until - time.monotonic())) and done
        return done

    def close(self, timeout: float = 10.0, *, failed: bool = False) -> None:
        """Hand on what was recorded, and close the sinks, within so many seconds.

        Half of the time is for what the device still computes. A second call does
        nothing.

        Args:
          timeout: how long to wait at most, in seconds.
          failed: whether the training ended with an error, as `Sink.close` has it.
        """
        until = time.monotonic() + timeout
        self._worker.close(timeout / 2)
        close_all(self.sinks, max(0.0, until - time.monotonic()), failed=failed)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        self.close(failed=is_failure(error))

    def __reduce__(self):
        raise TypeError(
            "Recorder: it holds a thread and sinks, and cannot be pickled or copied. "
            "Make one in each process."
        )

    def _timed(self, now: float) -> dict[str, float]:
        """Return the time of a step since the last record, and begin anew."""
        since, self._since = self._since, (now, self._calls)
        with self._lock:
            paused, self._paused = self._paused, 0.0
        if since is None or now - since[0] <= paused:
            return {}
        seconds = (now - since[0] - paused) / (self._calls - since[1])
        times = {"step_seconds": seconds, "steps_per_second": 1 / seconds}
        if self._optimizer_seconds is not None:
            times["optimizer_share"] = self._optimizer_seconds / seconds
        return times

    def _put(self, step: Any, now: float, state: Any, values: dict[str, Any]) -> None:
        raw = None if state is None else self._read(state)
        with self._lock:
            age = None if self._saved_at is None else now - self._saved_at
            common = {
                "checkpoint_saves": self._saves,
                "checkpoint_restores": self._restores,
                "checkpoint_failures": self._failures,
                "checkpoint_seconds": self._save_seconds,
                "checkpoint_age_seconds": age,
                "state_bytes": self._state_bytes,
            }
        values |= {name: value for name, value in common.items() if value is not None}
        arrays = {n: v for n, v in values.items() if type(v) not in READY}
        step, raw, arrays = copied((step, raw, arrays))
        values |= arrays
        self._step = step
        losses = self._waiting_losses()
        self._worker.put(_Entry(losses, now, time.time(), step, raw, values))

    def _waiting_losses(self) -> list[tuple[float, Any]]:
        with self._lock:  # a save in another thread writes, too
            losses, self._losses = self._losses, []
        return losses

    def _hand_on(self, batch: Sequence[_Entry]) -> None:
        """Finish records, and give them to all sinks; in the recorder's thread."""
        spoilt, failures = 0, []
        for entry in batch:
            arrays = [v for v in entry.values.values() if type(v) not in READY]
            fetch([entry.losses, entry.raw, arrays])
            failed = self._see(entry.losses)
            if entry.step is not None:
                failed += self._write_out(entry)
            spoilt += bool(failed)
            failures += failed
        if spoilt:
            raise Lost(failures[-1], spoilt)

    def _see(self, losses: list[tuple[float, Any]]) -> list[str]:
        failures = []
        for now, loss in losses:
            try:
                self._progress.see(now, "loss", plain(loss))
            except Exception as error:
                failures.append(f"loss: {error}")
        return failures

    def _write_out(self, entry: _Entry) -> list[str]:
        given, failures = entry.values, []
        try:
            raw = {} if entry.raw is None else self._finish(entry.raw)
            given = {**raw, **given}
        except Exception as error:
            failures.append(f"finish: {error}")
        record, unreadable = as_record(entry.step, entry.time, given)
        if record is not None:
            for name, value in record.values.items():
                self._progress.see(entry.now, name, value)
            smoothed = self._progress.metrics.get("loss_smoothed")
            self._progress.see(entry.now, "loss_smoothed", smoothed)
            found = {**self._progress.metrics, "dropped_writes": self.dropped}
            for sink in self.sinks:
                values = {**record.values, **found}  # a backend may change its own
                sink._take(Record(record.step, record.time, values))
        return failures + unreadable
