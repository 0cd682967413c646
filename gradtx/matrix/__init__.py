"""Functions of matrices: what optimizers do to a gradient beyond its elements."""

from gradtx.matrix._dimensions import (
    MuonDimensionNumbers as MuonDimensionNumbers,
)
from gradtx.matrix._newton_schulz import (
    orthogonalize_via_newton_schulz as orthogonalize_via_newton_schulz,
)
