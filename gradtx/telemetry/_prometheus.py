"""Serve what was measured last to Prometheus, over HTTP."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gradtx.core import ArgumentError, check_count, imported
from gradtx.telemetry._histogram import Histogram
from gradtx.telemetry._metrics import METRICS, parse
from gradtx.telemetry._programs import renamer, writes_here
from gradtx.telemetry._record import Record, Value, middles, octaves
from gradtx.telemetry._sink import Sink
from gradtx.telemetry._worker import Lost

_LABELS = ("field", "group", "leaf")
#: Characters of a text that a label has at most: all of it goes over the wire each scrape.
_TEXT = 1000
#: What the client hangs on to the name of a family.
_SUFFIXES = ("", "_total", "_info", "_bucket", "_gcount", "_gsum", "_count", "_sum")


def prometheus(
    port: int = 9464,
    address: str = "127.0.0.1",
    registry: Any = None,
    *,
    max_series: int = 10_000,
    capacity: int = 1024,
    every_process: bool = False,
) -> Sink:
    """Serve the last value of each metric at `http://address:port/metrics`.

    A metric is called `gradtx_<metric>`, a counter `gradtx_<metric>_total`, with the
    labels `field`, `group` and `leaf` of its name, empty where it has none. Other names
    are gauges, `gradtx_` in front and what Prometheus does not take made `_`. A text is
    `gradtx_<metric>_info` with the text as the label `path` (`text` for other names), of
    which Prometheus keeps a series for each text that it ever saw: write few different
    ones. An empty one has no series. A histogram is one of the magnitudes now, by octave, a gauge
    histogram: `gradtx_<metric>_bucket`, with `_gcount` and `_gsum`, which is that of the
    middles of the bins. `gradtx_step` and `gradtx_last_write_timestamp_seconds` (since
    1970) tell how far the training is.

    Args:
      port: 0 picks a free one, which `sink.address` tells.
      address: where to listen; by default only this machine can connect. There is no
        password: listen elsewhere only in a network that you trust.
      registry: a `prometheus_client.CollectorRegistry` to join; by default a new one.
      max_series: how many series there may be, buckets of histograms counted; a write
        of a name beyond that counts as lost.
      capacity: writes that the buffer holds.
      every_process: whether processes other than the first write too, each on a port of
        its own.

    Raises:
      ImportError: if prometheus_client is not installed.
      ArgumentError: if the port is taken, or the address is none of this machine.
    """
    check_count(1, max_series=max_series)
    if not writes_here(every_process):
        return Sink(None, name="prometheus")
    client = imported("prometheus_client", "telemetry")
    registry = client.CollectorRegistry() if registry is None else registry
    board = _Board(max_series)
    try:
        server, thread = client.start_http_server(port, address, registry)
    except (OSError, OverflowError) as error:
        raise ArgumentError(
            f"expected a free port and an address of this machine, got {address}:{port} "
            f"({error}). port=0 picks a free one.",
            "prometheus",
        ) from error
    registry.register(board)

    def close():
        registry.unregister(board)
        server.shutdown()
        server.server_close()
        thread.join()

    host, bound = server.server_address[:2]
    host = f"[{host}]" if ":" in host else host
    return Sink(
        board.take,
        close=close,
        name="prometheus",
        capacity=capacity,
        address=f"http://{host}:{bound}/metrics",
    )


class _Board:
    """The last value of each series: what a scrape collects."""

    def __init__(self, max_series: int):
        self._lock = threading.Lock()
        self._max_series = max_series
        self._size = 0
        self._values: dict[str, Value] = {}
        self._families: dict[str, str] = {}  # of each name
        self._last: tuple[int, float] | None = None
        own = {*METRICS, "step", "last_write_timestamp_seconds"}
        taken = {name + suffix for name in own for suffix in _SUFFIXES}
        self._renamed = renamer(lambda n: re.sub(r"\W", "_", n, flags=re.A), taken)

    def take(self, records: Sequence[Record]) -> None:
        """Keep the values of records, as far as there may be more series."""
        lost, message = 0, ""
        for record in records:
            beyond = [n for n, v in record.values.items() if not self._keep(n, v)]
            if beyond:
                lost += 1
                message = (
                    f"{beyond[0]}: there are max_series={self._max_series} already"
                )
            self._last = record.step, record.time
        if lost:
            raise Lost(message, lost)

    def _keep(self, name: str, value: Value) -> bool:
        if isinstance(value, Histogram):
            value = octaves(value)
        with self._lock:
            size = self._size - _series(self._values.get(name, "")) + _series(value)
            if size > max(self._max_series, self._size):
                return False
            self._size, self._values[name] = size, value
            if name not in self._families:
                metric = parse(name).metric
                known = metric if metric in METRICS else self._renamed(name)
                self._families[name] = f"gradtx_{known}"
        return True

    def describe(self) -> list[Any]:
        """Name no family yet: a registry asks when it is joined."""
        return []

    def collect(self) -> Iterator[Any]:
        """Return the families, each with all its series."""
        core = imported("prometheus_client.core", "telemetry")
        with self._lock:
            values, keys, last = dict(self._values), self._families.copy(), self._last
        families: dict[str, Any] = {}
        for name, value in values.items():
            parts = parse(name)
            metric = METRICS.get(parts.metric)
            labels = {key: getattr(parts, key) for key in _LABELS}
            if isinstance(value, Histogram):
                kind, value = core.GaugeHistogramMetricFamily, _buckets(value)
            elif isinstance(value, str):
                kind = core.InfoMetricFamily
                shown = {"path" if metric else "text": value[:_TEXT]}
                value = (shown,) if value else None
            else:
                counts = metric is not None and metric.kind == "counter"
                kind = core.CounterMetricFamily if counts else core.GaugeMetricFamily
                value = (value,)
            key = keys[name]
            if key not in families:
                tells = metric.tells if metric else f"{name[:_TEXT]}, as given."
                families[key] = kind(key, tells, labels=_LABELS)
            if value is not None and type(families[key]) is kind:
                families[key].add_metric([*labels.values()], *value)
        yield from families.values()
        if last is not None:
            yield core.GaugeMetricFamily(
                "gradtx_step", "Step of the last write.", last[0]
            )
            yield core.GaugeMetricFamily(
                "gradtx_last_write_timestamp_seconds", "When that was.", last[1]
            )


def _series(value: Value) -> int:
    """Return how many series a value is: a histogram has two more than buckets."""
    if isinstance(value, Histogram):
        return value.counts.size + 2
    return 0 if value == "" else 1


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    """Return counts up to each bound, the last of which is infinity, and the sum."""
    bounds = [*map(float, histogram.edges[1:-1]), math.inf]
    below = np.cumsum(histogram.counts, dtype=np.float64)
    names = ["+Inf" if math.isinf(bound) else repr(bound) for bound in bounds]
    return [*zip(names, below.tolist())], float(histogram.counts @ middles(histogram))
