"""Carry transformations and states between gradtx and other libraries."""

from gradtx.interop._checkpoints import (
    from_flax_bytes as from_flax_bytes,
    from_orbax as from_orbax,
)
from gradtx.interop._optax import (
    from_optax_state as from_optax_state,
    to_optax as to_optax,
    to_optax_state as to_optax_state,
)
from gradtx.interop._torch import (
    from_torch as from_torch,
)
