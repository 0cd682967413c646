"""GaLore: an optimizer inside the subspace of a gradient's largest singular values."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core import (
    ArgumentError,
    Count,
    Factored,
    Link,
    MaskOrFn,
    Numeric,
    ScalarOrSchedule,
    as_transformation,
    cast,
    chain,
    check_count,
    check_shapes,
    check_structure,
    dtype_of,
    safe_increment,
    shape_of,
    transformation,
    widened,
    working,
    zero_count,
    zeros_like,
)
from gradtx.matrix import MuonDimensionNumbers
from gradtx.optimizers._adam import scale_by_adam
from gradtx.optimizers._dimensions import dimensions_of
from gradtx.transforms import add_decayed_weights, scale_by_learning_rate

#: The dimension numbers of `galore`, the same as Muon's.
GaLoreDimensionNumbers = MuonDimensionNumbers


class GaLoreState(NamedTuple):
    """The state of `scale_by_galore`.

    Attributes:
      count: updates made so far.
      base_optimizer_state: the state of the inner optimizer, for projected gradients:
        its leaves have not the shapes of parameters.
      projector: an orthogonal basis `(short side, rank)` for each matrix, of shape
        (0, 0) for other leaves; float32 or wider.
    """

    count: Count
    base_optimizer_state: Factored
    projector: Factored


@transformation(stage="precondition", reach="leaf", differentiable=False)
def scale_by_galore(
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: Numeric = 1.0,
    base_optimizer: Link | None = None,
    weight_dimension_numbers: Any = None,
):
    """Run an optimizer on gradients that are projected to a few dimensions.

    `P ←` the `rank` main singular vectors of `g` along its shorter side, every
    `update_proj_gap` updates; `u ← scale·base(g·P)·Pᵀ`, or `scale·P·base(Pᵀ·g)` where
    columns are more than rows

    The moments of a matrix (m, n) take `max(m, n)·rank` numbers. Leaves that are no
    matrices go through the inner optimizer as they are.

    Args:
      rank: dimensions of the subspace, at least 1; at most the shorter side is used.
      update_proj_gap: period of a new basis, in updates, at least 1. The moments are
        not rotated into it.
      scale: factor on the updates of matrices.
      base_optimizer: a link that needs no parameters; by default `scale_by_adam()`.
      weight_dimension_numbers: as in `scale_by_muon`, of matrices without a batch; a
        single one goes for all leaves of two axes or more.

    Raises:
      ArgumentError: if `rank` or `update_proj_gap` is no integer of 1 or more, or the
        dimension numbers leave axes out.
      MissingArgumentError: if the inner optimizer needs parameters.

    Source: Zhao et al. 2024, arXiv:2403.03507, Algorithm 2; jiaweizzhao/GaLore.

    Differs from optax: the shorter side is projected, as in the paper and the authors'
    code, where optax projects the longer one; the basis is float32 for parameters of
    fewer bits, and its vectors have a sign that does not depend on the machine.
    """
    check_count(1, rank=rank, update_proj_gap=update_proj_gap)
    base = scale_by_adam() if base_optimizer is None else base_optimizer
    base = as_transformation(base)

    def dims_of(tree):
        given = weight_dimension_numbers
        if isinstance(given, MuonDimensionNumbers):
            long = [len(shape_of(x)) >= 2 for x in jax.tree.leaves(tree)]
            return [given if it else None for it in long]
        return dimensions_of(given, tree)

    def sizes(x, dims):
        """Return rows, columns and the rank of one leaf's matrix."""
        batch, rows, columns = dims.axes(shape_of(x))
        if batch:
            raise ArgumentError(
                f"all axes must be rows or columns, got rows {rows} and columns "
                f"{columns} for shape {shape_of(x)}."
            )
        _, m, n = dims.sizes(shape_of(x))
        return m, n, min(rank, m, n)

    def init(params):
        leaves, structure = jax.tree.flatten(params)
        bases, inside = [], []
        for p, dims in zip(leaves, dims_of(params), strict=True):
            wide = widened(dtype_of(p))
            if dims is None:
                bases.append(jnp.zeros((0, 0), wide))
                inside.append(zeros_like(p))
                continue
            m, n, r = sizes(p, dims)
            bases.append(jnp.zeros((min(m, n), r), wide))
            shape = (m, r) if m >= n else (r, n)
            whole = shape == shape_of(p)  # then the parameter's sharding fits
            zeros = zeros_like(p) if whole else jnp.zeros(shape, dtype_of(p))
            inside.append(zeros)
        state = base.init(structure.unflatten(inside))
        return GaLoreState(zero_count(), state, structure.unflatten(bases))

    def update(updates, state, params=None, **extra):
        check_structure(state.projector, updates, "state", "updates")
        leaves, structure = jax.tree.flatten(updates)
        old = jax.tree.leaves(state.projector)
        dims = [
            None if dtype_of(g) == jax.dtypes.float0 else d
            for g, d in zip(leaves, dims_of(updates), strict=True)
        ]
        axes = {i: d for i, d in enumerate(dims) if d is not None}
        wanted = list(old)
        for i, d in axes.items():
            m, n, r = sizes(leaves[i], d)
            wanted[i] = jax.ShapeDtypeStruct((min(m, n), r), old[i].dtype)
        check_shapes(structure.unflatten(wanted), state.projector, "state.projector")
        matrices = {i: d.fold(working(leaves[i]))[0] for i, d in axes.items()}

        def fresh():
            return [
                cast(_basis(matrices[i], sizes(leaves[i], axes[i])[2]), old[i].dtype)
                for i in axes
            ]

        found = lax.cond(
            state.count % update_proj_gap == 0, fresh, lambda: [old[i] for i in axes]
        )
        bases, inside = list(old), list(leaves)
        for i, basis in zip(axes, found, strict=True):
            bases[i] = basis
            inside[i] = _projected(matrices[i], cast(basis, matrices[i].dtype))
        inside, inner = base.update(
            structure.unflatten(inside), state.base_optimizer_state, None, **extra
        )
        out = jax.tree.leaves(inside)
        for i, d in axes.items():
            whole = _restored(working(out[i]), bases[i], matrices[i].shape)
            whole = whole * jnp.asarray(scale).astype(whole.dtype)
            whole = d.unfold(whole[None], leaves[i].shape)
            out[i] = cast(whole, leaves[i].dtype)
        new = structure.unflatten(bases)
        return structure.unflatten(out), GaLoreState(
            safe_increment(state.count), inner, new
        )

    return init, update


@transformation
def galore(
    learning_rate: ScalarOrSchedule,
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: Numeric = 1.0,
    base_optimizer: Link | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
    weight_dimension_numbers: Any = None,
):
    """Descend with Adam inside a subspace of each matrix, and decoupled weight decay.

    `p ← p − learning_rate·(u + weight_decay·p)`, with `u` of `scale_by_galore`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      rank, update_proj_gap, base_optimizer, weight_dimension_numbers: as in
        `scale_by_galore`.
      scale: likewise; 0.25 in the paper.
      weight_decay, mask: as in `add_decayed_weights`, at full rank.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> params = {"kernel": jnp.ones((64, 16))}
      >>> state = gradtx.galore(1e-3, rank=4).init(params)
      >>> state[0].base_optimizer_state.mu["kernel"].shape
      (64, 4)

    Source: Zhao et al. 2024, arXiv:2403.03507, Algorithm 2; jiaweizzhao/GaLore.

    Differs from optax: as `scale_by_galore` does.
    """
    return chain(
        scale_by_galore(
            rank, update_proj_gap, scale, base_optimizer, weight_dimension_numbers
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


def _basis(g, rank: int):  # g (m, n)
    """Return the main singular vectors of the shorter side, `(min(m, n), rank)`."""
    if g.size == 0:
        return jnp.zeros((min(g.shape), rank), g.dtype)
    # LAPACK never returns from an infinite matrix; the update shows it all the same
    g = jnp.where(jnp.isfinite(g), g, 0)
    u, _, vh = jnp.linalg.svd(g, full_matrices=False)
    basis = jnp.conj(vh.T) if g.shape[0] >= g.shape[1] else u
    # the largest entry becomes positive: moments then mean the same after a new basis
    largest = jnp.argmax(jnp.abs(basis), axis=0, keepdims=True)
    pivot = jnp.take_along_axis(basis, largest, axis=0)
    size = jnp.abs(pivot)
    phase = jnp.conj(pivot) / jnp.where(size > 0, size, 1).astype(basis.dtype)
    return (basis * phase)[:, :rank]


def _projected(g, basis):  # g (m, n); basis (min(m, n), r)
    tall = g.shape[0] >= g.shape[1]
    return g @ basis if tall else jnp.conj(basis.T) @ g


def _restored(inside, basis, shape):  # inside (m, r) or (r, n)
    basis = cast(basis, inside.dtype)
    return inside @ jnp.conj(basis.T) if shape[0] >= shape[1] else basis @ inside
