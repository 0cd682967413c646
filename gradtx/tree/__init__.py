"""Work on whole pytrees: arithmetic, norms, dtypes, moments, and access to states."""

from gradtx.core import (
    full_like as full_like,
    size as size,
    zeros_like as zeros_like,
)
from gradtx.tree._casting import (
    cast as cast,
    cast_like as cast_like,
    dtype as dtype,
)
from gradtx.tree._map_params import (
    map_params as map_params,
)
from gradtx.tree._math import (
    add as add,
    add_scale as add_scale,
    allclose as allclose,
    batch_shape as batch_shape,
    clip as clip,
    conj as conj,
    div as div,
    mul as mul,
    ones_like as ones_like,
    real as real,
    scale as scale,
    sub as sub,
    where as where,
)
from gradtx.tree._moments import (
    bias_correction as bias_correction,
    update_infinity_moment as update_infinity_moment,
    update_moment as update_moment,
    update_moment_per_elem_norm as update_moment_per_elem_norm,
)
from gradtx.tree._random import (
    random_like as random_like,
    split_key_like as split_key_like,
    unwrap_random_key_data as unwrap_random_key_data,
)
from gradtx.tree._reduce import (
    max as max,
    min as min,
    norm as norm,
    sum as sum,
    vdot as vdot,
)
from gradtx.tree._search import (
    NamedTupleKey as NamedTupleKey,
    get as get,
    get_all_with_path as get_all_with_path,
    learning_rate as learning_rate,
    learning_rates as learning_rates,
    set as set,
)
