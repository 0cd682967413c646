"""Second derivatives of a loss: products with the Hessian, and diagonals."""

from gradtx.second_order._diagonals import (
    fisher_diag as fisher_diag,
    hessian_diag as hessian_diag,
)
from gradtx.second_order._hvp import hvp as hvp
