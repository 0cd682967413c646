"""Functions of matrices: orthogonal and inverse ones, eigenvalues, least squares."""

from gradtx.matrix._diagonals import (
    set_diags as set_diags,
    tile_second_to_last_dim as tile_second_to_last_dim,
)
from gradtx.matrix._dimensions import (
    MuonDimensionNumbers as MuonDimensionNumbers,
)
from gradtx.matrix._inverse_root import (
    matrix_inverse_pth_root as matrix_inverse_pth_root,
)
from gradtx.matrix._newton_schulz import (
    orthogonalize_via_newton_schulz as orthogonalize_via_newton_schulz,
)
from gradtx.matrix._nnls import nnls as nnls
from gradtx.matrix._power_iteration import power_iteration as power_iteration
