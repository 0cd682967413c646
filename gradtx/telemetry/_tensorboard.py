"""Write what was measured to event files for TensorBoard."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from gradtx.core import imported
from gradtx.telemetry._histogram import Histogram
from gradtx.telemetry._programs import writes_here
from gradtx.telemetry._record import Record, Value, middles, occupied
from gradtx.telemetry._sink import Sink

#: Tells the files apart that one process opens within one second.
_NUMBER = itertools.count()


def tensorboard(
    logdir: str | os.PathLike[str],
    *,
    interval: float = 1.0,
    capacity: int = 1024,
    every_process: bool = False,
) -> Sink:
    """Write to event files for TensorBoard: scalars, histograms and texts by name.

    A histogram is of magnitudes, and its sum and sum of squares are those of the middles
    of its bins. After a failure, as of a full disk, it goes on in a new file: readers
    give up a file whose last record is torn. A file that was removed is made anew. An
    empty text is not written. Steps that come again after a restart are kept twice.

    Args:
      logdir: the folder of the run; made where it is missing.
      interval: least time between writes to the disk, in seconds.
      capacity: writes that the buffer holds.
      every_process: whether processes other than the first write too.

    Raises:
      ImportError: if tensorboardX is not installed.
    """
    if not writes_here(every_process):
        return Sink(None, name="tensorboard")
    # The writers above this one hand events to a thread of their own, which dies of the
    # first error: then `add_scalar` hangs, and so does Python at its end.
    files = imported("tensorboardX.event_file_writer", "telemetry")
    protos = imported("tensorboardX.proto.event_pb2", "telemetry")
    folder = pathlib.Path(logdir).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    file, path = None, folder

    def write(records: Sequence[Record]):
        nonlocal file, path
        try:
            if not path.exists():  # what is written to a file without a name is lost
                close()
            if file is None:
                suffix = f".{os.getpid()}.{next(_NUMBER)}"
                file = files.EventsWriter(str(folder / "events"), suffix)
                (path,) = folder.glob(f"events.*{suffix}")
            for record in records:
                summaries = (_summary(*item) for item in record.values.items())
                values = [value for s in summaries if s for value in s.value]
                event = protos.Event(wall_time=record.time, step=record.step)
                event.summary.value.extend(values)
                file.write_event(event)
            file.flush()
        except BaseException:
            close()
            raise

    def close():
        nonlocal file
        if file is not None:
            old, file = file, None
            with contextlib.suppress(OSError):
                old.close()

    return Sink(
        write,
        close=close,
        name="tensorboard",
        capacity=capacity,
        interval=interval,
        address=str(folder),
    )


def _summary(name: str, value: Value) -> Any:
    """Return the protocol buffer of a value; None for an empty text."""
    summaries = imported("tensorboardX.summary", "telemetry")
    if isinstance(value, Histogram):
        inside = occupied(value)
        middle, counts = middles(inside), inside.counts
        summary = summaries.histogram_raw(
            name,
            min=float(inside.edges[0]),
            max=float(inside.edges[-1]),
            num=float(counts.sum()),
            sum=float(counts @ middle),
            sum_squares=float(counts @ middle**2),
            bucket_limits=inside.edges[1:].tolist(),
            bucket_counts=counts.tolist(),
        )
    elif isinstance(value, str):
        return summaries.text(name, value) if value else None
    else:
        # TensorBoard takes any name, not only clean ones, and NaN without a warning
        kind = imported("tensorboardX.proto.summary_pb2", "telemetry").Summary
        summary = kind(value=[kind.Value(tag=name, simple_value=value)])
    return summary
