"""Try out what may still change: aggregation of per-example gradients."""

from gradtx.experimental import aggregating as aggregating
