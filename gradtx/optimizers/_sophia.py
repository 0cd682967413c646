"""Sophia: momentum over a running estimate of the Hessian's diagonal, clipped."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import (
    Count,
    DTypeLike,
    Inner,
    Key,
    Link,
    MaskOrFn,
    Numeric,
    PerParam,
    ScalarOrSchedule,
    as_transformation,
    bias_correction,
    bits,
    cast,
    chain,
    check_count,
    check_decay,
    check_non_negative,
    check_positive,
    dtype_of,
    key_data,
    map_leaves,
    next_keys,
    require_real,
    safe_increment,
    size,
    sum_leaves,
    transformation,
    working,
    zero_count,
    zeros_like,
)
from gradtx.transforms import add_decayed_weights, scale_by_learning_rate


class HutchinsonState(NamedTuple):
    """The state of `hutchinson_estimator_diag_hessian`: the data of its next key."""

    key: Key


class SophiaState(NamedTuple):
    """The state of `scale_by_sophia`.

    Attributes:
      count: updates made so far.
      mu: running mean of the gradients.
      nu: running mean of the estimates of the Hessian's diagonal, float32 or wider.
      hessian_fn_state: the state of what estimates it.
    """

    count: Count
    mu: PerParam
    nu: PerParam
    hessian_fn_state: Inner


@transformation(needs={"params", "obj_fn"}, stochastic=True, complex=False)
def hutchinson_estimator_diag_hessian(random_seed: jax.Array | int | None = None):
    """Replace updates by an estimate of the diagonal of the objective's Hessian.

    `u ← z·(H z)`, z random signs

    `update` needs `obj_fn=`, the objective as a function of the parameters alone.

    Args:
      random_seed: a key of `jax.random`, or an integer; by default 0.

    Raises:
      MissingArgumentError: if `update` gets no parameters or no `obj_fn`.

    Source: Hutchinson 1989, "A stochastic estimator of the trace of the influence
    matrix"; Liu et al. 2023, arXiv:2305.14342, Algorithm 1.
    """
    seed = 0 if random_seed is None else random_seed

    def init(params):
        return HutchinsonState(key_data(seed))

    def update(updates, state, params=None, *, obj_fn, **extra):
        following, now = next_keys(state.key, seed)
        leaves, structure = jax.tree.flatten(params)
        moving = [i for i, x in enumerate(leaves) if bits(x)]

        def objective(numbers: list[Any]) -> Any:
            placed = dict(zip(moving, numbers, strict=True))
            filled = [placed.get(i, x) for i, x in enumerate(leaves)]
            return obj_fn(structure.unflatten(filled))

        at = [jnp.asarray(require_real(leaves[i])) for i in moving]
        keys = jax.random.split(now, max(len(at), 1))
        signs = [
            jax.random.rademacher(k, x.shape, x.dtype)
            for k, x in zip(keys, at, strict=False)
        ]
        curved = jax.jvp(jax.grad(objective), (at,), (signs,))[1]
        made = jax.tree.leaves(updates)
        for i, z, h in zip(moving, signs, curved, strict=True):
            made[i] = cast(working(z) * working(h), dtype_of(made[i]))
        return structure.unflatten(made), HutchinsonState(following)

    return init, update


_HUTCHINSON = hutchinson_estimator_diag_hessian()


@transformation(stage="precondition", needs={"params"}, complex=False)
def scale_by_sophia(
    b1: Numeric = 0.965,
    b2: Numeric = 0.99,
    eps: Numeric = 1e-8,
    gamma: Numeric = 0.01,
    clip_threshold: Numeric | None = 1.0,
    update_interval: int = 10,
    hessian_diagonal_fn: Link = _HUTCHINSON,
    mu_dtype: DTypeLike | None = None,
    verbose: bool = False,
    print_win_rate_every_n_steps: int = 0,
):
    """Divide a running mean of updates by one of the Hessian's diagonal, and clip.

    `mu ← b1·mu + (1 − b1)·g`;
    `u ← clip(mu/(1 − b1^t)/max(gamma·nu, eps), ±clip_threshold)`; then, at every
    `update_interval`-th update, the first included, `nu ← b2·nu + (1 − b2)·h`

    The extra arguments of `update` go to what estimates `h`.

    Args:
      b1, b2: the shares of the running means that one step keeps, in [0, 1).
      eps: the least denominator, above 0; where the curvature is negative, too.
      gamma: a factor of the curvature.
      clip_threshold: the largest magnitude of an update; `None` for no bound.
      update_interval: updates between two estimates, 1 or more.
      hessian_diagonal_fn: a transformation that turns gradients into an estimate of
        the diagonal, equal on all devices.
      mu_dtype: dtype of `mu`; by default the parameters'.
      verbose: whether to print the share of updates within the bound.
      print_win_rate_every_n_steps: updates between two prints; 0 for none.

    Raises:
      ArgumentError: if an argument is outside its range.
      DtypeError: if a parameter is complex.
      MissingArgumentError: if `update` gets no parameters.

    Source: Liu et al. 2023, arXiv:2305.14342, Algorithm 3 (Sophia-H).

    Differs from the paper: the mean is corrected for its start, the estimate is used
    from the next update on, and its signs are random rather than normal, as in optax.
    """
    check_decay(b1=b1, b2=b2)
    check_positive(eps=eps, clip_threshold=clip_threshold)
    check_non_negative(gamma=gamma)
    check_count(1, update_interval=update_interval)
    check_count(0, print_win_rate_every_n_steps=print_win_rate_every_n_steps)
    estimator = as_transformation(hessian_diagonal_fn)

    def init(params):
        return SophiaState(
            zero_count(),
            zeros_like(params, mu_dtype),
            zeros_like(params, wide=True),
            estimator.init(params),
        )

    def update(updates, state, params=None, **extra):
        count = safe_increment(state.count)

        def leaf(g, mu, nu, *, b1, c1, gamma, eps):
            require_real(g)
            mu = b1 * mu + (1 - b1) * g
            u = mu / c1 / jnp.maximum(gamma * nu, eps)
            if clip_threshold is not None:
                u = jnp.clip(u, -clip_threshold, clip_threshold)
            return u, mu

        def estimated():
            diagonal, after = estimator.update(
                updates, state.hessian_fn_state, params, **extra
            )

            def mean(h, nu, *, b2):
                return h, b2 * nu + (1 - b2) * h

            return map_leaves(mean, diagonal, state.nu, outputs=2, b2=b2)[1], after

        made, mu = map_leaves(
            leaf,
            updates,
            state.mu,
            state.nu,
            outputs=2,
            b1=b1,
            c1=bias_correction(b1, count),
            gamma=gamma,
            eps=eps,
        )
        if verbose and print_win_rate_every_n_steps and clip_threshold is not None:
            _report(made, clip_threshold, count, print_win_rate_every_n_steps)
        nu, inner = jax.lax.cond(
            state.count % update_interval == 0,
            estimated,
            lambda: (state.nu, state.hessian_fn_state),
        )
        return made, SophiaState(count, mu, nu, inner)

    return init, update


def _report(updates, bound, count, every):
    """Print the share of updates that the bound did not cut."""
    within = sum_leaves(lambda u: (abs(u) < bound).astype(u.dtype), updates)
    jax.lax.cond(
        count % every == 0,
        lambda: jax.debug.print(
            "Sophia: share within the bound {}", within / size(updates)
        ),
        lambda: None,
    )


@transformation
def sophia(
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.965,
    b2: Numeric = 0.99,
    eps: Numeric = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    weight_decay_mask: MaskOrFn | None = None,
    gamma: Numeric = 0.01,
    clip_threshold: Numeric | None = 1.0,
    update_interval: int = 10,
    hessian_diagonal_fn: Link = _HUTCHINSON,
    mu_dtype: DTypeLike | None = None,
    verbose: bool = False,
    print_win_rate_every_n_steps: int = 0,
):
    """Descend with Sophia's direction and decoupled weight decay.

    `p ← p − learning_rate·(u + weight_decay·p)`, with `u` of `scale_by_sophia`

    `update` needs `obj_fn=`, the objective as a function of the parameters alone.

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      b1, b2, eps, gamma, clip_threshold: as in `scale_by_sophia`.
      weight_decay: as in `add_decayed_weights`.
      weight_decay_mask: which leaves decay.
      update_interval, hessian_diagonal_fn, mu_dtype: as in `scale_by_sophia`.
      verbose, print_win_rate_every_n_steps: as in `scale_by_sophia`.

    Source: Liu et al. 2023, arXiv:2305.14342, Algorithm 3 (Sophia-H).
    """
    return chain(
        scale_by_sophia(
            b1,
            b2,
            eps,
            gamma,
            clip_threshold,
            update_interval,
            hessian_diagonal_fn,
            mu_dtype,
            verbose,
            print_win_rate_every_n_steps,
        ),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
