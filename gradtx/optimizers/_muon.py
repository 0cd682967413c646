"""Muon: momentum whose matrices are made orthogonal."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.combinators import partition
from gradtx.core import (
    ArgumentError,
    Count,
    DTypeLike,
    MaskOrFn,
    Numeric,
    PerParam,
    Scalar,
    ScalarOrSchedule,
    any_shape,
    bias_correction,
    cast,
    chain,
    check_decay,
    check_non_negative,
    check_positive,
    dtype_of,
    init_empty_state,
    is_static,
    map_leaves,
    safe_increment,
    scalar_dtype,
    shape_of,
    transformation,
    working,
    zero_count,
    zeros_like,
)
from gradtx.matrix import MuonDimensionNumbers, orthogonalize_via_newton_schulz
from gradtx.optimizers._adam import adamw
from gradtx.optimizers._dimensions import dimensions_of
from gradtx.transforms import add_decayed_weights, scale_by_learning_rate

_STANDARD = (3.4445, -4.7750, 2.0315)
_PRESETS = {
    "standard": _STANDARD,
    "muon": _STANDARD,
    "dion": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
}
_LAST_TWO = MuonDimensionNumbers(-2, -1)


class MuonState(NamedTuple):
    """The state of `scale_by_muon`.

    Attributes:
      count: updates made so far.
      mu: running mean of the updates, not yet corrected for its start at 0.
      ns_coeffs: the coefficients of Newton–Schulz, of shape (3,) or (steps, 3).
    """

    count: Count
    mu: PerParam
    ns_coeffs: Scalar


@transformation(stage="precondition", reach="leaf", ulps=256)
def scale_by_muon(
    ns_coeffs: Any = _STANDARD,
    ns_steps: int = 5,
    beta: Numeric = 0.95,
    eps: Numeric = 1e-8,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Literal["frobenius", "spectral", "aol", "schatten"] = "frobenius",
    weight_dimension_numbers: Any = None,
):
    """Replace the momentum of each matrix by an orthogonal one.

    `mu ← beta·mu + (1 − beta)·g`; `m ← (beta·mu + (1 − beta)·g) / (1 − beta^(t+1))`, or
    without Nesterov `m ← mu / (1 − beta^t)`, t = 1, 2, …;
    `u ← orthogonalize_via_newton_schulz(m)`, and if adaptive `u ← ⟨m, u⟩·u`

    Matrices of one shape are made orthogonal together. Leaves that are no matrices get
    the momentum `m` itself.

    Args:
      ns_coeffs: `(a, b, c)`, a tuple of such triples, of which the last `ns_steps` are
        taken, or one of the names "standard" (also "muon") and "dion".
      ns_steps: how many steps Newton–Schulz takes, at least 1.
      beta: the share of the momentum that one step keeps, in [0, 1).
      eps: added to the norm of a matrix before Newton–Schulz.
      mu_dtype: dtype of the momentum; by default the parameters'.
      nesterov: whether the momentum looks one step ahead.
      adaptive: whether updates are as long as the nuclear norm of their momentum.
      preconditioning: as in `orthogonalize_via_newton_schulz`.
      weight_dimension_numbers: a `MuonDimensionNumbers` for each matrix and `None` for
        other leaves: a tree like the parameters or a prefix of it, or a function from
        the updates to one. By default leaves of two axes are matrices `(in, out)`.

    Raises:
      ArgumentError: if a number is out of range, coefficients come not in threes or are
        fewer than the steps, or the preconditioning is unknown.
      ShapeError: if a leaf lacks the axes of its dimension numbers.

    Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon and KellerJordan/Muon;
    adaptive: Lau, Long & Su 2025, arXiv:2505.21799.

    Differs from optax: Nesterov's mean is corrected as a whole, which keeps the
    direction of the authors' code, where optax corrects its two parts by different
    factors; Newton–Schulz runs in float32 for parameters of fewer bits; each matrix of
    a batch has its own `⟨m, u⟩`; leaves that are no matrices are no error.
    """
    check_decay(beta=beta)
    check_non_negative(eps=eps)
    check_positive(ns_steps=ns_steps)
    coefficients = _coefficients(ns_coeffs, ns_steps)
    orthogonalize_via_newton_schulz(  # checks its other arguments
        jnp.zeros((1, 1)), _STANDARD, 1, preconditioning
    )

    def init(params):
        held = jnp.array(coefficients, scalar_dtype())
        return MuonState(zero_count(), zeros_like(params, mu_dtype), held)

    def update(updates, state, params=None, **extra):
        def leaf(g, mu, *, beta, correction):  # g, mu: one leaf, same shape
            mu = beta * mu + (1 - beta) * g
            m = beta * mu + (1 - beta) * g if nesterov else mu
            return m / correction, mu

        def orthogonal(stacked):  # (batch, m, n)
            u = orthogonalize_via_newton_schulz(
                stacked, state.ns_coeffs, ns_steps, preconditioning, eps, _LAST_TWO
            )
            if adaptive:
                u = u * jnp.sum(jnp.conj(stacked) * u, axis=(-2, -1), keepdims=True)
            return u

        count = safe_increment(state.count)
        seen = safe_increment(count) if nesterov else count
        momentum, mu = map_leaves(
            leaf,
            jax.tree.map(working, updates),
            state.mu,
            outputs=2,
            beta=beta,
            correction=bias_correction(beta, seen),
        )
        leaves, structure = jax.tree.flatten(momentum)
        dims = dimensions_of(weight_dimension_numbers, updates)
        leaves = _together(orthogonal, leaves, dims)
        back = [
            cast(u, dtype_of(g)) if jnp.issubdtype(dtype_of(g), jnp.inexact) else u
            for u, g in zip(leaves, jax.tree.leaves(updates), strict=True)
        ]
        return structure.unflatten(back), MuonState(count, mu, state.ns_coeffs)

    return init, update


@transformation(
    shaped=True,
    exempt={"P15 split of a leaf": "the factor is that of the whole leaf's shape"},
)
def scale_by_shape(
    weight_dimension_numbers: Any = None, consistent_rms: Numeric | None = None
):
    """Multiply the update of each matrix by a factor that depends on its shape.

    `u ← g·√max(1, out/in)`, or `u ← g·consistent_rms·√max(in, out)`

    The first lets a learning rate keep its meaning as a network grows wider; the second
    gives an orthogonal update the root mean square `consistent_rms`.

    Args:
      weight_dimension_numbers: as in `scale_by_muon`; leaves that are no matrices pass.
      consistent_rms: the root mean square; 0.2 is about AdamW's.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_shape()
      >>> tx.update({"w": jnp.ones((1, 4))}, tx.init(None))[0]["w"].tolist()
      [[2.0, 2.0, 2.0, 2.0]]

    Source: KellerJordan/Muon; Liu et al. 2025, arXiv:2502.16982, section 2.2.
    """

    def update(updates, state, params=None, **extra):
        factors, made = [], {}
        for g, dims in zip(
            jax.tree.leaves(updates),
            dimensions_of(weight_dimension_numbers, updates),
            strict=True,
        ):
            sides = (0, 0) if dims is None else dims.sizes(shape_of(g))[1:]
            if sides not in made:
                made[sides] = _factor(*sides, consistent_rms)
            factors.append(made[sides])
        tree = jax.tree.structure(updates).unflatten(factors)
        return map_leaves(_multiplied, updates, any_shape(tree)), state

    return init_empty_state, update


@transformation
def muon(
    learning_rate: ScalarOrSchedule,
    ns_coeffs: Any = _STANDARD,
    ns_steps: int = 5,
    beta: Numeric = 0.95,
    eps: Numeric = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: MaskOrFn | None = None,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Literal["frobenius", "spectral", "aol", "schatten"] = "frobenius",
    adam_b1: Numeric = 0.9,
    adam_b2: Numeric = 0.999,
    adam_eps_root: Numeric = 0.0,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
    muon_weight_dimension_numbers: Any = None,
    consistent_rms: Numeric | None = None,
):
    """Descend with orthogonal momentum for matrices, and AdamW for everything else.

    `p ← p − learning_rate·(s·u + weight_decay·p)`, with `u` of `scale_by_muon` and `s`
    of `scale_by_shape`; other leaves as in `adamw`

    Embeddings and the output layer are matrices too, yet are best left to AdamW: give
    `muon_weight_dimension_numbers` with `None` for them.

    Args:
      learning_rate: a number, or a schedule of the number of updates made; 0.02 in the
        reference, or AdamW's with `consistent_rms=0.2`.
      ns_coeffs, ns_steps, beta, nesterov, adaptive, preconditioning: as in
        `scale_by_muon`.
      eps: as in `scale_by_muon`, and AdamW's.
      weight_decay, weight_decay_mask: as in `add_decayed_weights`, for matrices.
      mu_dtype: dtype of the momentum and of AdamW's first moment.
      adam_b1, adam_b2, adam_eps_root, adam_weight_decay: as in `adamw`.
      adam_learning_rate: AdamW's; by default that of the matrices.
      muon_weight_dimension_numbers: `weight_dimension_numbers` of `scale_by_muon`, from
        the parameters; `None` for the leaves that AdamW takes.
      consistent_rms: as in `scale_by_shape`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> params = {"kernel": jnp.ones((4, 4)), "bias": jnp.zeros(4)}
      >>> tx = gradtx.muon(0.02)
      >>> updates, state = tx.update(params, tx.init(params), params)
      >>> sorted(state.inner_states)
      ['adam', 'muon']

    Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon and KellerJordan/Muon;
    Liu et al. 2025, arXiv:2502.16982.

    Differs from optax: as `scale_by_muon` does.
    """

    def labels(tree):
        dims = dimensions_of(muon_weight_dimension_numbers, tree)
        named = ["adam" if d is None else "muon" for d in dims]
        return jax.tree.structure(tree).unflatten(named)

    matrices = chain(
        scale_by_muon(
            ns_coeffs,
            ns_steps,
            beta,
            eps,
            mu_dtype,
            nesterov=nesterov,
            adaptive=adaptive,
            preconditioning=preconditioning,
            weight_dimension_numbers=muon_weight_dimension_numbers,
        ),
        scale_by_shape(muon_weight_dimension_numbers, consistent_rms),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    others = adamw(
        learning_rate if adam_learning_rate is None else adam_learning_rate,
        b1=adam_b1,
        b2=adam_b2,
        eps=eps,
        eps_root=adam_eps_root,
        mu_dtype=mu_dtype,
        weight_decay=adam_weight_decay,
        nesterov=nesterov,
    )
    return partition({"muon": matrices, "adam": others}, labels)


def _coefficients(ns_coeffs: Any, ns_steps: Numeric) -> Any:
    """Return three coefficients, or three for each step."""
    if isinstance(ns_coeffs, str):
        if ns_coeffs not in _PRESETS:
            raise ArgumentError(
                f"ns_coeffs must be one of {list(_PRESETS)}, or numbers, got "
                f"{ns_coeffs!r}."
            )
        ns_coeffs = _PRESETS[ns_coeffs]
    shape = jnp.shape(jnp.asarray(ns_coeffs))
    if len(shape) not in (1, 2) or shape[-1] != 3:
        raise ArgumentError(f"ns_coeffs must have shape (3,) or (n, 3), got {shape}.")
    if len(shape) == 1 or not is_static(ns_steps):
        return ns_coeffs
    if shape[0] < ns_steps:
        raise ArgumentError(
            f"ns_coeffs has the coefficients of {shape[0]} steps, fewer than "
            f"ns_steps={ns_steps}."
        )
    return ns_coeffs[-int(ns_steps) :]


def _factor(rows: int, columns: int, rms: Numeric | None) -> jax.Array:
    """Return the factor of `scale_by_shape`; 1 where there are no rows."""
    if not rows:
        return jnp.ones((), scalar_dtype())
    if rms is None:
        factor = math.sqrt(max(1, columns / rows))
        return jnp.array(factor, scalar_dtype())
    return jnp.asarray(rms).astype(scalar_dtype()) * math.sqrt(max(rows, columns))


def _together(function: Any, leaves: list[Any], dims: list[Any]) -> list[Any]:
    """Apply a function of matrices to all leaves, once for each shape of matrix.

    Args:
      function: maps `(batch, m, n)` to the same shape.
      leaves: arrays; those without dimension numbers pass.
      dims: dimension numbers, or `None`, of each leaf.
    """
    groups: dict[Any, list[int]] = {}
    folded = {}
    for i, (x, axes) in enumerate(zip(leaves, dims, strict=True)):
        if axes is None or dtype_of(x) == jax.dtypes.float0 or x.size == 0:
            continue
        folded[i] = axes.fold(x)
        key = (*folded[i].shape[1:], x.dtype)
        groups.setdefault(key, []).append(i)
    done = list(leaves)
    for members in groups.values():
        stacked = function(jnp.concatenate([folded[i] for i in members]))
        start = 0
        for i in members:
            stop = start + len(folded[i])
            done[i] = dims[i].unfold(stacked[start:stop], leaves[i].shape)
            start = stop
    return done


def _multiplied(g, factor):  # g: one leaf; factor ()
    return g * factor
