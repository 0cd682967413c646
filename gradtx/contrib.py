"""Optimizers under the name that optax files its younger ones under."""

from gradtx.optimizers import (
    ScaleByAdemamixState as ScaleByAdemamixState,
    ScaleBySimplifiedAdEMAMixState as ScaleBySimplifiedAdEMAMixState,
    acprop as acprop,
    ademamix as ademamix,
    adopt as adopt,
    scale_by_acprop as scale_by_acprop,
    scale_by_ademamix as scale_by_ademamix,
    scale_by_adopt as scale_by_adopt,
    scale_by_simplified_ademamix as scale_by_simplified_ademamix,
    simplified_ademamix as simplified_ademamix,
)
