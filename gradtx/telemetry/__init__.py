"""See inside an optimizer: measure in its state, read by name, write to sinks.

```
 observe(tx) ─► state ─► read(state) ─► {name: value} ─► Recorder ─► sinks, dashboards, plots
   inside jit     data       on the host                   off the training loop's path
```
"""

from gradtx.telemetry._cost import (
    Cost as Cost,
    cost as cost,
)
from gradtx.telemetry._dashboards import dashboards as dashboards
from gradtx.telemetry._explain import (
    ExplainedLeaf as ExplainedLeaf,
    Explanation as Explanation,
    explain as explain,
)
from gradtx.telemetry._heat_map import heat_map as heat_map
from gradtx.telemetry._histogram import (
    Histogram as Histogram,
    bin_edges as bin_edges,
)
from gradtx.telemetry._jsonl import (
    csv as csv,
    jsonl as jsonl,
    read_jsonl as read_jsonl,
)
from gradtx.telemetry._live import (
    live as live,
    live_plot as live_plot,
)
from gradtx.telemetry._metrics import (
    METRICS as METRICS,
    Metric as Metric,
    Name as Name,
    parse as parse,
)
from gradtx.telemetry._mlflow import mlflow as mlflow
from gradtx.telemetry._observe import (
    ObserveState as ObserveState,
    observe as observe,
)
from gradtx.telemetry._plot import plot as plot
from gradtx.telemetry._prometheus import prometheus as prometheus
from gradtx.telemetry._read import (
    collect as collect,
    named as named,
    names as names,
    read as read,
)
from gradtx.telemetry._record import Record as Record
from gradtx.telemetry._recorder import Recorder as Recorder
from gradtx.telemetry._sink import Sink as Sink
from gradtx.telemetry._summary import (
    Summary as Summary,
    SummaryRow as SummaryRow,
    state_bytes as state_bytes,
    summary as summary,
)
from gradtx.telemetry._tensorboard import tensorboard as tensorboard
from gradtx.telemetry._wandb import wandb as wandb
