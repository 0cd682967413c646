"""Adan: Adam with Nesterov's momentum written as the change between gradients."""

from __future__ import annotations

from typing import NamedTuple

from gradtx.core import (
    Count,
    MaskOrFn,
    Numeric,
    PerParam,
    ScalarOrSchedule,
    after,
    bias_correction,
    capped_abs_sq,
    chain,
    check_decay,
    check_non_negative,
    map_leaves,
    safe_increment,
    safe_sqrt,
    second_moment_like,
    transformation,
    zero_count,
    zeros_like,
)
from gradtx.transforms import add_decayed_weights, scale_by_learning_rate


class ScaleByAdanState(NamedTuple):
    """The state of `scale_by_adan`.

    Attributes:
      m: running mean of the gradients.
      v: running mean of their changes.
      n: running mean of the squares of the gradients looked ahead.
      g: the last gradient.
      t: updates made so far.
    """

    m: PerParam
    v: PerParam
    n: PerParam
    g: PerParam
    t: Count


@transformation(stage="precondition")
def scale_by_adan(
    b1: Numeric = 0.98,
    b2: Numeric = 0.92,
    b3: Numeric = 0.99,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
):
    """Divide a mean of gradients, looked ahead by that of their changes, by a root.

    `d ← g − g_before`, 0 at first; `m ← b1·m + (1 − b1)·g`; `v ← b2·v + (1 − b2)·d`;
    `n ← b3·n + (1 − b3)·|g + b2·d|²`;
    `u ← (m̂ + b2·v̂) / (√(n̂ + eps_root) + eps)`, hats divide by `1 − b^t`

    Args:
      b1: the share of `m` that one step keeps, in [0, 1).
      b2: the share of `v` that one step keeps, in [0, 1); also the look-ahead.
      b3: the share of `n` that one step keeps, in [0, 1).
      eps: added to the root.
      eps_root: added under the root.

    Raises:
      ArgumentError: if a decay lies outside [0, 1) or an eps is negative.

    Source: Xie et al. 2022, arXiv:2208.06677, Algorithm 1, whose betas are one minus
    these; the coefficients are those of the authors' code (sail-sg/Adan).

    Differs from optax: there the look-ahead is 1 − b2, so 0.08 in place of 0.92.
    """
    check_decay(b1=b1, b2=b2, b3=b3)
    check_non_negative(eps=eps, eps_root=eps_root)

    def init(params):
        return ScaleByAdanState(
            m=zeros_like(params),
            v=zeros_like(params),
            n=second_moment_like(params),
            g=zeros_like(params),
            t=zero_count(),
        )

    def update(updates, state, params=None, **extra):
        t = safe_increment(state.t)

        def leaf(g, m, v, n, before, *, b1, b2, b3, eps, eps_root, c1, c2, c3, moved):
            d = (g - before) * moved
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * d
            n = b3 * n + (1 - b3) * capped_abs_sq(g + b2 * d)
            u = (m / c1 + b2 * v / c2) / (safe_sqrt(n / c3 + eps_root) + eps)
            return u, m, v, n, after(g, v, n)

        updates, m, v, n, g = map_leaves(
            leaf,
            updates,
            state.m,
            state.v,
            state.n,
            state.g,
            outputs=5,
            b1=b1,
            b2=b2,
            b3=b3,
            eps=eps,
            eps_root=eps_root,
            c1=bias_correction(b1, t),
            c2=bias_correction(b2, t),
            c3=bias_correction(b3, t),
            moved=state.t > 0,
        )
        return updates, ScaleByAdanState(m, v, n, g, t)

    return init, update


@transformation
def adan(
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.98,
    b2: Numeric = 0.92,
    b3: Numeric = 0.99,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
):
    """Descend with Adan's direction and decoupled weight decay.

    `p ← p − learning_rate·(u + weight_decay·p)`, with `u` of `scale_by_adan`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      b1, b2, b3, eps, eps_root: as in `scale_by_adan`.
      weight_decay, mask: as in `add_decayed_weights`.

    Source: Xie et al. 2022, arXiv:2208.06677, Algorithm 1.

    Differs from the paper: the decay is subtracted; there the result is divided by
    `1 + learning_rate·weight_decay`. `eps_root` is 0 there.
    """
    return chain(
        scale_by_adan(b1, b2, b3, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
