"""Append what was measured to a file, one JSON object or one row of a table a step."""

from __future__ import annotations

import csv as rows
import io
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradtx.core import ArgumentError
from gradtx.telemetry._histogram import Histogram
from gradtx.telemetry._metrics import METRICS, parse
from gradtx.telemetry._programs import writes_here
from gradtx.telemetry._record import Record, Value, occupied, octaves
from gradtx.telemetry._sink import Sink

#: Seconds between writes to a file; what a crash of the machine can cost.
_INTERVAL = 0.1
#: Bytes of a file that are looked at in one go for its last line.
_BLOCK = 1 << 16
#: How strict JSON spells what it has no number for.
_SPELLED = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
#: Names of a record's own; a metric of that name is called `metric/step`.
_OWN = ("step", "time")
#: The column of a CSV for what has no column.
_MORE = "more"


def jsonl(
    path: str | os.PathLike[str], *, capacity: int = 1024, every_process: bool = False
) -> Sink:
    """Append each write to a file as one line of JSON.

    A line is an object with `step`, `time` (seconds since 1970) and the metrics by name.
    JSON has no number for NaN and infinities: they are the texts `"NaN"`, `"Infinity"`
    and `"-Infinity"`, and `read_jsonl` makes them numbers again. A histogram is an
    object of `counts` and `edges`, by octaves and without the empty bins at its ends.

    A file that is there is appended to; a last line that a crash left torn is cut off. A
    batch of lines that does not fit on the disk is taken back whole, so that all lines
    of the file are good ones.

    Args:
      path: the file; folders on the way are made.
      capacity: writes that the buffer holds.
      every_process: whether processes other than the first write too; each needs a path
        of its own.

    Example:
      >>> import pathlib, tempfile
      >>> from gradtx.telemetry import jsonl, read_jsonl
      >>> path = pathlib.Path(tempfile.mkdtemp(), "run.jsonl")
      >>> with jsonl(path) as sink:
      ...     sink.write(1, {"loss": float("nan")}, time=0.0)
      >>> path.read_text(), read_jsonl(path)[0]["loss"]
      ('{"step": 1, "time": 0.0, "loss": "NaN"}\\n', nan)
    """
    if not writes_here(every_process):
        return Sink(None, name="jsonl")
    target = _prepare(path)
    _mend(target, whole=_is_json)

    def write(records: Sequence[Record]):
        lines = [json.dumps(_plain(_flat(r)), allow_nan=False) + "\n" for r in records]
        _append(target, "".join(lines).encode())

    return Sink(
        write, name="jsonl", capacity=capacity, interval=_INTERVAL, address=str(target)
    )


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the lines of a file of `jsonl` as dicts, numbers and histograms restored.

    A torn line, which a running or killed writer may have left, is left out.
    """
    text = pathlib.Path(path).read_bytes().decode(errors="replace")
    found = (_parsed(line) for line in text.split("\n"))
    return [
        {name: _restored(name, value) for name, value in line.items()}
        for line in found
        if isinstance(line, dict)
    ]


def csv(
    path: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    *,
    capacity: int = 1024,
    every_process: bool = False,
) -> Sink:
    """Append each write to a file as one row of comma-separated values.

    The columns are `step`, `time` (seconds since 1970), one for each metric, and last
    `more`: what has no column of its own, as a JSON object, so that nothing is lost.
    Numbers are written so that `float` gives them back exactly, with `nan`, `inf` and
    `-inf`; histograms as JSON; line breaks in texts and names as spaces. What was not
    measured leaves its cell empty.

    A file that is there is appended to, in its own columns; a last row that a crash left
    torn is cut off, and rows that do not fit on the disk are taken back.

    Args:
      path: the file; folders on the way are made.
      columns: names of metrics; by default those of the first write.
      capacity: writes that the buffer holds.
      every_process: whether processes other than the first write too; each needs a path
        of its own.

    Raises:
      ArgumentError: if the file is no table of this kind, or has other columns.
    """
    if not writes_here(every_process):
        return Sink(None, name="csv")
    target = _prepare(path)
    if columns is not None:
        columns = [_one_line(_column(name)) for name in columns]
    header = _header(target)
    if header is not None:
        if columns is not None and header != columns:
            raise ArgumentError(
                f"{target} has the columns {header}, got {columns}. Leave `columns` out "
                "to go on with the file, or write to another.",
                "csv",
            )
        columns = header
        _mend(target, whole=lambda line: False)
    chosen = columns

    def write(records: Sequence[Record]):
        nonlocal chosen
        tables = [{_one_line(k): v for k, v in _flat(r).items()} for r in records]
        names = [*tables[0]][2:] if chosen is None else chosen
        buffer = io.StringIO()
        table = rows.writer(buffer, lineterminator="\n")
        if not target.exists() or not target.stat().st_size:
            table.writerow([*_OWN, *names, _MORE])
        for flat in tables:
            row = [_cell(flat.pop(name, "")) for name in (*_OWN, *names)]
            table.writerow([*row, json.dumps(_plain(flat)) if flat else ""])
        _append(target, buffer.getvalue().encode())
        chosen = names

    return Sink(
        write, name="csv", capacity=capacity, interval=_INTERVAL, address=str(target)
    )


def _prepare(path: str | os.PathLike[str]) -> pathlib.Path:
    target = pathlib.Path(path).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("ab"):  # an error of the path is told now
        return target


def _append(target: pathlib.Path, data: bytes) -> None:
    """Append all of it or nothing, to whatever file is at the path now."""
    file = os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        start, done = os.fstat(file).st_size, 0
        try:
            while done < len(data):
                done += os.write(file, data[done:])
        except OSError:
            if done and os.fstat(file).st_size == start + done:
                os.ftruncate(file, start)
            raise
    finally:
        os.close(file)


def _mend(target: pathlib.Path, whole: Any) -> None:
    """End the last line of a file, or cut it off where it is not whole."""
    if not target.is_file():
        return
    with target.open("rb") as file:
        kept = end = file.seek(0, os.SEEK_END)
        last = b""  # after the last line break; the file may be larger than the memory
        while kept and b"\n" not in last:
            kept = max(0, kept - _BLOCK)
            file.seek(kept)
            last = file.read(min(_BLOCK, end - len(last) - kept)) + last
    kept, last = kept + last.rfind(b"\n") + 1, last[last.rfind(b"\n") + 1 :]
    if last and whole(last.decode(errors="replace")):
        _append(target, b"\n")
    elif last:
        os.truncate(target, kept)


def _header(target: pathlib.Path) -> list[str] | None:
    """Return the columns of a table that is there, without those that all have."""
    if not target.is_file() or not target.stat().st_size:
        return None
    with target.open(newline="", errors="replace") as file:
        line = file.readline()
    names = next(rows.reader([line]))
    if not line.endswith("\n") or (*names[:2], names[-1]) != (*_OWN, _MORE):
        raise ArgumentError(
            f"expected a table of gradtx at {target}, got the header {line[:80]!r}. "
            "Write to another file.",
            "csv",
        )
    return names[2:-1]


def _column(name: str) -> str:
    return f"metric/{name}" if name in (*_OWN, _MORE) else name


def _flat(record: Record) -> dict[str, Value]:
    values = {_column(name): value for name, value in record.values.items()}
    return {"step": record.step, "time": record.time, **values}


def _plain(value: Any) -> Any:
    """Return a value as what strict JSON can carry."""
    if isinstance(value, Histogram):
        counts, edges = occupied(octaves(value))
        return {"counts": _plain(counts.tolist()), "edges": _plain(edges.tolist())}
    if isinstance(value, Mapping):
        return {name: _plain(inside) for name, inside in value.items()}
    if isinstance(value, list):
        return [_plain(inside) for inside in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _cell(value: Value) -> Value:
    if isinstance(value, Histogram):
        return json.dumps(_plain(value))
    return _one_line(value) if isinstance(value, str) else value


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _is_json(line: str) -> bool:
    return isinstance(_parsed(line), dict)


def _restored(name: str, value: Any) -> Any:
    metric = METRICS.get(parse(name).metric)
    if isinstance(value, str) and not (metric and metric.kind == "text"):
        return _SPELLED.get(value, value)
    if isinstance(value, dict) and {*value} == {"counts", "edges"}:
        edges = [
            _SPELLED.get(e, e) if isinstance(e, str) else e for e in value["edges"]
        ]
        return Histogram(np.asarray(value["counts"]), np.asarray(edges, float))
    return value
