"""See inside an optimizer: measure in the state, read, and hand on what was measured."""

from gradtx.telemetry._histogram import (
    Histogram as Histogram,
    bin_edges as bin_edges,
)
from gradtx.telemetry._metrics import (
    METRICS as METRICS,
    Metric as Metric,
    Name as Name,
    parse as parse,
)
from gradtx.telemetry._observe import (
    ObserveState as ObserveState,
    observe as observe,
)
from gradtx.telemetry._read import (
    collect as collect,
    named as named,
    names as names,
    read as read,
)
