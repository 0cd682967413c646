"""Functions from the step to a scalar, one curve a file."""

from gradtx.schedules._constant import (
    constant_schedule as constant_schedule,
)
from gradtx.schedules._linear import (
    linear_schedule as linear_schedule,
    polynomial_schedule as polynomial_schedule,
)
