"""Functions from the step to a scalar, one curve a file.

From an array of steps each makes the array of its values, as a plot needs them.
"""

from gradtx.core import shown_here as _shown_here
from gradtx.schedules._constant import (
    constant_schedule as constant_schedule,
)
from gradtx.schedules._cosine import (
    cosine_decay_schedule as cosine_decay_schedule,
)
from gradtx.schedules._exponential import (
    exponential_decay as exponential_decay,
)
from gradtx.schedules._inverse_sqrt import (
    inverse_sqrt_schedule as inverse_sqrt_schedule,
)
from gradtx.schedules._join import (
    join_schedules as join_schedules,
)
from gradtx.schedules._linear import (
    linear_schedule as linear_schedule,
    polynomial_schedule as polynomial_schedule,
)
from gradtx.schedules._onecycle import (
    cosine_onecycle_schedule as cosine_onecycle_schedule,
    linear_onecycle_schedule as linear_onecycle_schedule,
)
from gradtx.schedules._piecewise import (
    piecewise_constant_schedule as piecewise_constant_schedule,
    piecewise_interpolate_schedule as piecewise_interpolate_schedule,
)
from gradtx.schedules._plot import (
    plot as plot,
)
from gradtx.schedules._sgdr import (
    sgdr_schedule as sgdr_schedule,
)
from gradtx.schedules._warmup import (
    warmup_constant_schedule as warmup_constant_schedule,
    warmup_cosine_decay_schedule as warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule as warmup_exponential_decay_schedule,
)
from gradtx.schedules._warmup_stable_decay import (
    warmup_stable_decay_schedule as warmup_stable_decay_schedule,
)

# they wrap transformations, and live with those that do
__getattr__ = _shown_here(
    __name__,
    "InjectHyperparamsState",
    "InjectStatefulHyperparamsState",
    "Schedule",
    "StatefulSchedule",
    "WrappedSchedule",
    "inject_hyperparams",
    "inject_stateful_hyperparams",
)
