"""Hand what was measured to whoever keeps it, without costing the training anything."""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gradtx.telemetry import _worker
from gradtx.telemetry._record import Record, as_record
from gradtx.telemetry._worker import Lost, Worker


class Sink:
    """Where what was measured goes: a bounded buffer, a thread and a backend.

    Writing costs some microseconds and never blocks or raises, whatever becomes of the
    backend: one that fails, hangs or whose disk is full loses writes, which are counted
    and logged (`gradtx.telemetry`, each kind of failure at most once a minute), and
    gets later ones all the same. A sink that was not closed is closed when Python
    exits, which a backend that hangs delays by 10 s, and each further one by 1 s. A
    signal that kills, as SIGTERM does unless it is handled, leaves no time for that. A
    sink cannot be pickled, and what a forked process writes is lost.

    Args:
      backend: called in the sink's thread with a list of records, in order. Where it
        raises, all of them count as lost. None writes nothing, and loses nothing.
      close: called in the same thread after the last records.
      name: how the sink calls itself in logs.
      capacity: writes that the buffer holds; a full one loses its oldest.
      interval: least time from one call of the backend to the next, in seconds, if the
        buffer is less than half full.
      address: where to find what was written: a path or a URL.

    Raises:
      ArgumentError: if the capacity is below 1 or the interval below 0.

    Example:
      >>> from gradtx.telemetry import Sink
      >>> with Sink(lambda records: print(records[0].values), name="mine") as sink:
      ...     sink.write(1, {"loss": 0.5})
      {'loss': 0.5}
    """

    def __init__(
        self,
        backend: Callable[[Sequence[Record]], object] | None,
        *,
        close: Callable[[], object] | None = None,
        name: str = "sink",
        capacity: int = 1024,
        interval: float = 0.0,
        address: str = "",
    ):
        self.name, self.address = name, address
        self._backend = backend
        self._failed = False
        self._worker = None
        if backend is not None:
            self._worker = Worker(
                self._hand_on,
                close=close,
                name=name,
                capacity=capacity,
                interval=interval,
            )

    def write(
        self, step: Any, metrics: Mapping[str, Any], *, time: float | None = None
    ) -> None:
        """Take what was measured at a step; returns at once.

        What is not computed yet is awaited in the sink's thread. Arrays must not be
        donated to another computation meanwhile; `Recorder` copies those of a state.

        Args:
          step: the training step.
          metrics: by name: Python, NumPy or JAX numbers, texts or histograms. Where
            one of them cannot be written, the others are, and the write counts as lost.
          time: when it was measured, in seconds since 1970; by default now.
        """
        if self._worker is None:
            return
        try:
            self._worker.put(
                (step, clock.time() if time is None else time, dict(metrics))
            )
        except Exception as error:
            self._worker.lose(1, type(error).__name__, str(error))

    def _take(self, record: Record) -> None:
        """Take a record that holds plain values already."""
        if self._worker is not None:
            self._worker.put(record)

    @property
    def dropped(self) -> int:
        """Writes that were lost, whole or in part, for whatever reason."""
        return self._worker.dropped if self._worker else 0

    @property
    def errors(self) -> Mapping[str, int]:
        """How often each kind of failure came about: the name of an exception.

        `Overflow` is a full buffer, `Timeout` a backend that did not end in time.
        """
        return dict(self._worker.errors) if self._worker else {}

    @property
    def last_error(self) -> str | None:
        """What went wrong last, or None."""
        return self._worker.last_error if self._worker else None

    @property
    def failed(self) -> bool:
        """Whether it was closed because of an error, for `close` of a backend to see."""
        return self._failed

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until the backend has had all that was written before.

        Args:
          timeout: how long to wait at most, in seconds.

        Returns:
          Whether it had all of it, be it that some was lost.
        """
        return self._worker is None or self._worker.flush(timeout)

    def close(self, timeout: float = 10.0, *, failed: bool = False) -> None:
        """Hand on what is in the buffer, and end; a second call does nothing.

        Args:
          timeout: how long to wait at most, in seconds; what the backend has not taken
            by then is lost.
          failed: whether the training ended with an error. Leaving a `with` block says
            so by itself; MLflow and W&B mark the run.
        """
        close_all([self], timeout, failed=failed)

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        self.close(failed=is_failure(error))

    def __repr__(self) -> str:
        where = f" {self.address}" if self.address else ""
        return f"<Sink {self.name}{where} dropped={self.dropped}>"

    def __reduce__(self):
        raise TypeError(
            f"{self.name}: a sink holds a thread and open files, and cannot be pickled "
            "or copied. Open one in each process."
        )

    def _hand_on(
        self, batch: Sequence[Record | tuple[Any, float, dict[str, Any]]]
    ) -> None:
        records, spoilt, failures = [], 0, []
        for entry in batch:
            if isinstance(entry, Record):
                records.append(entry)
                continue
            record, failures_of_entry = as_record(*entry)
            records += [record] if record else []
            failures += failures_of_entry
            spoilt += bool(failures_of_entry)
        try:
            if records and self._backend is not None:
                self._backend(records)
        except Lost as error:
            raise Lost(str(error), error.count + spoilt) from error
        if spoilt:
            raise Lost(failures[-1], spoilt)


def is_failure(error: BaseException | None) -> bool:
    """Return whether what ends a block is more than an orderly exit."""
    orderly = isinstance(error, SystemExit) and error.code in (None, 0)
    return error is not None and not orderly


def close_all(sinks: Sequence[Sink], timeout: float, *, failed: bool = False) -> None:
    """Close sinks together: all of them end within one timeout, in seconds."""
    for sink in sinks:
        sink._failed |= failed
    workers = [sink._worker for sink in sinks if sink._worker is not None]
    _worker.close_all(workers, timeout)
