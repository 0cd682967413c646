"""Matrices: the largest eigenvalue, inverse roots, non-negative least squares."""

from gradtx.matrix._inverse_root import (
    matrix_inverse_pth_root as matrix_inverse_pth_root,
)
from gradtx.matrix._nnls import nnls as nnls
from gradtx.matrix._power_iteration import power_iteration as power_iteration
