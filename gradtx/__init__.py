"""Composable gradient transformations for JAX.

```
 grads ─► reduce ─► clip ─► precondition ─► decay ─► learning rate ─► updates
          └── each link: update(updates, state, params) -> (updates, state) ──┘
```

An optimizer is a chain of links; `init(params)` makes its state, `update` turns
gradients into updates, and `apply_updates` adds them to the parameters:

    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3))
    state = tx.init(params)
    updates, state = tx.update(grads, state, params)
    params = gradtx.apply_updates(params, updates)

The names below are shortcuts to the rooms in which they live: all names of most rooms,
and those of `core` and `tree` that can stand alone.
"""

import gc as _gc
import typing as _typing

# a collection here would go over all objects of JAX: a quarter of the time of the import
_collecting = _gc.isenabled()
_gc.disable()

from gradtx import (
    assignment as assignment,
    checkpoint as checkpoint,
    combinators as combinators,
    contrib as contrib,
    core as core,
    distributed as distributed,
    experimental as experimental,
    guard as guard,
    interop as interop,
    losses as losses,
    matrix as matrix,
    microbatching as microbatching,
    optimizers as optimizers,
    perturbations as perturbations,
    precision as precision,
    projections as projections,
    schedules as schedules,
    second_order as second_order,
    telemetry as telemetry,
    transforms as transforms,
    tree as tree,
    tree_utils as tree_utils,
)

if _typing.TYPE_CHECKING:
    from gradtx import testing as testing
from gradtx._version import __version__ as __version__

# combinators: which leaves, and when
from gradtx.combinators import *

# core: the value, composition, description, roles, selectors, errors
from gradtx.core import (
    ArgumentError as ArgumentError,
    ArrayTree as ArrayTree,
    AxisNameError as AxisNameError,
    CheckpointError as CheckpointError,
    Count as Count,
    DamagedError as DamagedError,
    DescriptionError as DescriptionError,
    DivergedError as DivergedError,
    DtypeError as DtypeError,
    EmptyState as EmptyState,
    Factored as Factored,
    Flag as Flag,
    GradientTransformation as GradientTransformation,
    GradientTransformationExtraArgs as GradientTransformationExtraArgs,
    GradtxError as GradtxError,
    Inner as Inner,
    Key as Key,
    MaskedNode as MaskedNode,
    MaskOrFn as MaskOrFn,
    Measured as Measured,
    MismatchError as MismatchError,
    MissingArgumentError as MissingArgumentError,
    NoCheckpointError as NoCheckpointError,
    OptState as OptState,
    OrderWarning as OrderWarning,
    Packed as Packed,
    Params as Params,
    PerParam as PerParam,
    PRNGKey as PRNGKey,
    Reading as Reading,
    Role as Role,
    Saved as Saved,
    Scalar as Scalar,
    ScalarOrSchedule as ScalarOrSchedule,
    Schedule as Schedule,
    Selector as Selector,
    Shape as Shape,
    ShapeError as ShapeError,
    Traits as Traits,
    TransformInitFn as TransformInitFn,
    TransformUpdateExtraArgsFn as TransformUpdateExtraArgsFn,
    TransformUpdateFn as TransformUpdateFn,
    TreeMismatchError as TreeMismatchError,
    Updates as Updates,
    all_of as all_of,
    any_of as any_of,
    any_shape as any_shape,
    apply_updates as apply_updates,
    build as build,
    chain as chain,
    compiled as compiled,
    describe as describe,
    global_norm as global_norm,
    hyperparameters as hyperparameters,
    identity as identity,
    incremental_update as incremental_update,
    init_empty_state as init_empty_state,
    label_paths as label_paths,
    map_leaves as map_leaves,
    named_chain as named_chain,
    ndim_at_least as ndim_at_least,
    none_of as none_of,
    pack as pack,
    path_matches as path_matches,
    periodic_update as periodic_update,
    roles as roles,
    safe_increment as safe_increment,
    safe_int32_increment as safe_int32_increment,
    schedule as schedule,
    selector as selector,
    set_to_zero as set_to_zero,
    stateless as stateless,
    stateless_with_tree_map as stateless_with_tree_map,
    transformation as transformation,
    unpack as unpack,
    with_extra_args_support as with_extra_args_support,
)

# distributed: links that communicate
from gradtx.distributed import *

# guard: bad steps left out, back-off, roll-back
from gradtx.guard import (
    GuardedState as GuardedState,
    guarded as guarded,
)

# losses: losses of predictions, element by element or example by example; nothing is averaged
from gradtx.losses import *

# matrix: orthogonal and inverse matrices, eigenvalues, least squares
from gradtx.matrix import *

# microbatching: large batches in pieces
from gradtx.microbatching import *

# optimizers: one algorithm a file
from gradtx.optimizers import *

# perturbations: distributions of noise
from gradtx.perturbations import multi_normal as multi_normal

# precision: training in few bits
from gradtx.precision import (
    LossScaleState as LossScaleState,
    dynamic_loss_scaling as dynamic_loss_scaling,
    static_loss_scaling as static_loss_scaling,
)

# projections: the nearest point of a set: boxes, simplices, balls, planes
from gradtx.projections import *

# schedules: step -> scalar
from gradtx.schedules import *

# telemetry: what there is to see of an optimizer, before and while it runs
from gradtx.telemetry import (
    ObserveState as ObserveState,
    explain as explain,
    observe as observe,
    summary as summary,
)

# transforms: reusable links
from gradtx.transforms import *

# tree: whole pytrees, and access to states
from gradtx.tree import (
    NamedTupleKey as NamedTupleKey,
    bias_correction as bias_correction,
    learning_rate as learning_rate,
    learning_rates as learning_rates,
    update_infinity_moment as update_infinity_moment,
    update_moment as update_moment,
    update_moment_per_elem_norm as update_moment_per_elem_norm,
)
from gradtx.tree_utils import tree_map_params as tree_map_params

if _collecting:
    _gc.enable()

del plot  # noqa: F821 (of schedules: what it plots, the room says)


def __getattr__(name: str) -> object:
    """Load what only tests need when it is first asked for."""
    if name == "testing":
        import importlib

        return importlib.import_module("gradtx.testing")
    raise AttributeError(f"module 'gradtx' has no attribute {name!r}")
