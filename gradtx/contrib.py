"""Optimizers under the name that optax files its younger ones under."""

from gradtx.matrix import (
    MuonDimensionNumbers as MuonDimensionNumbers,
    orthogonalize_via_newton_schulz as orthogonalize_via_newton_schulz,
)
from gradtx.optimizers import (
    GaLoreDimensionNumbers as GaLoreDimensionNumbers,
    GaLoreState as GaLoreState,
    MuonState as MuonState,
    ScaleByAdemamixState as ScaleByAdemamixState,
    ScaleBySimplifiedAdEMAMixState as ScaleBySimplifiedAdEMAMixState,
    acprop as acprop,
    ademamix as ademamix,
    adopt as adopt,
    dpsgd as dpsgd,
    galore as galore,
    muon as muon,
    scale_by_acprop as scale_by_acprop,
    scale_by_ademamix as scale_by_ademamix,
    scale_by_adopt as scale_by_adopt,
    scale_by_galore as scale_by_galore,
    scale_by_muon as scale_by_muon,
    scale_by_shape as scale_by_shape,
    scale_by_simplified_ademamix as scale_by_simplified_ademamix,
    simplified_ademamix as simplified_ademamix,
)
from gradtx.transforms import (
    DifferentiallyPrivateAggregateState as DifferentiallyPrivateAggregateState,
    differentially_private_aggregate as differentially_private_aggregate,
)
