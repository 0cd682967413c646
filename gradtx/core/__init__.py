"""What a transformation is: the value, its state's roles, composition, numerics.

This room knows no algorithm and imports only jax and numpy.
"""

from gradtx.core._apply import (
    apply_updates as apply_updates,
    incremental_update as incremental_update,
    periodic_update as periodic_update,
)
from gradtx.core._basic import (
    compiled as compiled,
    identity as identity,
    init_empty_state as init_empty_state,
    set_to_zero as set_to_zero,
    stateless as stateless,
    stateless_with_tree_map as stateless_with_tree_map,
)
from gradtx.core._branch import (
    typed_like as typed_like,
    update_if as update_if,
)
from gradtx.core._call import (
    Call as Call,
    dtype_of as dtype_of,
)
from gradtx.core._chain import (
    chain as chain,
    is_chain_state as is_chain_state,
    link_names as link_names,
    links_of as links_of,
    named_chain as named_chain,
)
from gradtx.core._checks import (
    check_count as check_count,
    check_decay as check_decay,
    check_non_negative as check_non_negative,
    check_positive as check_positive,
    is_static as is_static,
    require_real as require_real,
)
from gradtx.core._collectives import (
    all_max as all_max,
    all_sum as all_sum,
    axes_of as axes_of,
    check_axes as check_axes,
    shards as shards,
    tracks_variance as tracks_variance,
    varies_over as varies_over,
    varying as varying,
    varying_axes as varying_axes,
    varying_like as varying_like,
)
from gradtx.core._deferred import (
    Curried as Curried,
    Deferred as Deferred,
    deferred as deferred,
    deferred_in as deferred_in,
    deferring as deferring,
    is_registered as is_registered,
)
from gradtx.core._describe import (
    build as build,
    describe as describe,
    hyperparameters as hyperparameters,
    is_described_link as is_described_link,
)
from gradtx.core._drawing import (
    COLORS as COLORS,
    LineEnd as LineEnd,
    label_ends as label_ends,
    new_figure as new_figure,
)
from gradtx.core._elsewhere import (
    shown_here as shown_here,
)
from gradtx.core._errors import (
    ArgumentError as ArgumentError,
    AxisNameError as AxisNameError,
    CheckpointError as CheckpointError,
    DamagedError as DamagedError,
    DescriptionError as DescriptionError,
    DivergedError as DivergedError,
    DtypeError as DtypeError,
    GradtxError as GradtxError,
    MismatchError as MismatchError,
    MissingArgumentError as MissingArgumentError,
    NoCheckpointError as NoCheckpointError,
    OrderWarning as OrderWarning,
    ShapeError as ShapeError,
    TreeMismatchError as TreeMismatchError,
)
from gradtx.core._fields import (
    Field as Field,
    fields as fields,
)
from gradtx.core._keys import (
    as_key as as_key,
    key_data as key_data,
    keys_like as keys_like,
    next_keys as next_keys,
)
from gradtx.core._map import (
    any_shape as any_shape,
    map_leaves as map_leaves,
)
from gradtx.core._masking import (
    MaskedNode as MaskedNode,
    hide as hide,
    hide_like as hide_like,
    reveal as reveal,
)
from gradtx.core._norms import (
    ScaledNorm as ScaledNorm,
    global_norm as global_norm,
    leaf_nonfinite as leaf_nonfinite,
    leaf_norm as leaf_norm,
    leaf_sums as leaf_sums,
    mean_square as mean_square,
    scaled_norm as scaled_norm,
    zero_norm as zero_norm,
)
from gradtx.core._numerics import (
    abs_sq as abs_sq,
    bias_correction as bias_correction,
    bits as bits,
    canonicalize_dtype as canonicalize_dtype,
    capped as capped,
    capped_abs_sq as capped_abs_sq,
    cast as cast,
    real_dtype as real_dtype,
    safe_increment as safe_increment,
    safe_int32_increment as safe_int32_increment,
    safe_sqrt as safe_sqrt,
    scalar_dtype as scalar_dtype,
    widened as widened,
    working as working,
)
from gradtx.core._order import after as after
from gradtx.core._outside import imported as imported
from gradtx.core._pack import pack as pack
from gradtx.core._packed import (
    Packed as Packed,
    as_shapes as as_shapes,
    has_packed as has_packed,
    repack as repack,
    unpack as unpack,
)
from gradtx.core._roles import (
    Count as Count,
    EmptyState as EmptyState,
    Factored as Factored,
    Flag as Flag,
    Inner as Inner,
    Key as Key,
    Measured as Measured,
    PerParam as PerParam,
    Reading as Reading,
    Role as Role,
    Saved as Saved,
    Scalar as Scalar,
    readings as readings,
    roles as roles,
)
from gradtx.core._schedule import (
    Schedule as Schedule,
    schedule as schedule,
    value_at as value_at,
)
from gradtx.core._selector import (
    Selector as Selector,
    all_of as all_of,
    any_of as any_of,
    label_paths as label_paths,
    ndim_at_least as ndim_at_least,
    none_of as none_of,
    path_matches as path_matches,
    resolve_mask as resolve_mask,
    selector as selector,
    slashed as slashed,
    spread_prefix as spread_prefix,
)
from gradtx.core._stages import unchecked as unchecked
from gradtx.core._sums import (
    scalar_like as scalar_like,
    sum_leaves as sum_leaves,
    sum_of_squares as sum_of_squares,
)
from gradtx.core._traits import (
    Form as Form,
    Reach as Reach,
    Stage as Stage,
    Traits as Traits,
)
from gradtx.core._transformation import (
    GradientTransformation as GradientTransformation,
    GradientTransformationExtraArgs as GradientTransformationExtraArgs,
    as_transformation as as_transformation,
    transformation as transformation,
    with_extra_args_support as with_extra_args_support,
)
from gradtx.core._tree import (
    EveryParam as EveryParam,
    check_shapes as check_shapes,
    check_structure as check_structure,
    copies as copies,
    full_like as full_like,
    path_of as path_of,
    placed_beside as placed_beside,
    second_moment_like as second_moment_like,
    shape_of as shape_of,
    size as size,
    zero_count as zero_count,
    zeros_like as zeros_like,
)
from gradtx.core._types import (
    ArrayTree as ArrayTree,
    AxisName as AxisName,
    DTypeLike as DTypeLike,
    InitUpdate as InitUpdate,
    Link as Link,
    MaskOrFn as MaskOrFn,
    Numeric as Numeric,
    OptState as OptState,
    Params as Params,
    PRNGKey as PRNGKey,
    ScalarOrSchedule as ScalarOrSchedule,
    Shape as Shape,
    TransformInitFn as TransformInitFn,
    TransformUpdateExtraArgsFn as TransformUpdateExtraArgsFn,
    TransformUpdateFn as TransformUpdateFn,
    Updates as Updates,
)
