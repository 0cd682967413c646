"""Small bugs, one at a time: what to write where, and who must notice.

Each is `(file, what stands there, what the bug puts there, transformations whose
properties are checked, tests that run if all of these hold)`.
"""

from __future__ import annotations

from typing import NamedTuple


class Bug(NamedTuple):
    """One planted bug.

    Attributes:
      file: below `gradtx/`.
      old: what stands there exactly once, or first.
      new: what the bug puts there.
      kit: names in the catalogue whose properties are checked, separated by spaces.
      tests: arguments for pytest, where the properties do not notice.
    """

    file: str
    old: str
    new: str
    kit: str = ""
    tests: str = ""


_A = "tests/optimizers/test_more_rules.py"
_O = "tests/optimizers"
_T = "tests/transforms"
_C = "tests/combinators"
_M = "tests/telemetry"
_G = "tests/guard"
_P = "tests/precision"
_K = "tests/checkpoint"

BUGS = [
    Bug(
        "core/_numerics.py",
        "    count = jnp.asarray(count, scalar_dtype())\n",
        "    count = jnp.asarray(count, scalar_dtype())\n"
        "    if not isinstance(count, jax.core.Tracer):\n        count = count + 1\n",
        "adam",
    ),
    # core: types, one place for all
    Bug("core/_map.py", "    return cast(new, dtype)\n", "    return new\n", "adam"),
    Bug(
        "core/_map.py",
        "map(_stored, returned, row[:outputs])",
        "map(_stored, returned, row[:1] * outputs)",
        "adam",
    ),
    Bug("core/_map.py", "if dtype_of(g) != jax.dtypes.float0", "if True", "sgd"),
    Bug(
        "core/_map.py",
        "inputs = [working(x, precise) for x in row]",
        "inputs = [jnp.asarray(x) for x in row]",
        "adam",
    ),
    Bug(
        "core/_map.py",
        "return any(bits(x) == 64 for x in row)",
        "return False",
        "trace",
    ),
    Bug(
        "core/_map.py",
        "if not jnp.issubdtype(dtype_of(gradients[i]), jnp.inexact):",
        "if False:",
        "scale",
    ),
    Bug(
        "core/_map.py",
        '            check_shapes(tree, updates, "updates")',
        "            pass",
        "adam",
        "tests/core/test_map.py",
    ),
    Bug("core/_map.py", "else [()] * outputs", "else [()]", "adam"),
    Bug(
        "core/_numerics.py",
        "x = jnp.where(jnp.isfinite(x), jnp.clip(x, -largest, largest), x)",
        "pass",
        "adagrad madgrad dadapt_adamw",
        "tests/core/test_numerics.py",
    ),
    Bug(
        "core/_numerics.py",
        "return jnp.where(jnp.isfinite(x), jnp.minimum(squares, largest), squares)",
        "return squares",
        "adam",
    ),
    Bug(
        "core/_numerics.py",
        "largest = jnp.finfo(squares.dtype).max / 2",
        "largest = jnp.finfo(squares.dtype).max",
        "adabelief",
    ),
    Bug(
        "core/_numerics.py",
        "return jnp.sqrt(jnp.maximum(x, jnp.finfo(x.dtype).tiny))",
        "return jnp.sqrt(x)",
        "adam",
    ),
    Bug(
        "core/_numerics.py",
        "return jnp.where(count < top, count + one, top)",
        "return count + one",
        "adam",
    ),
    Bug(
        "core/_numerics.py",
        "return -jnp.expm1(count * log)",
        "return 1 - jnp.asarray(decay, scalar_dtype()) ** count",
        "adam",
        "tests/core/test_numerics.py",
    ),
    Bug(
        "core/_numerics.py",
        "return -jnp.expm1(count * log)",
        "return -jnp.expm1((count - 1) * log)",
        "adam",
    ),
    Bug(
        "core/_numerics.py",
        "return jnp.float64 if double else jnp.float32",
        "return jnp.float32",
        tests="tests/core/test_numerics.py",
    ),
    Bug(
        "core/_tree.py",
        "dtype or widened(real_dtype(own)))",
        "dtype or real_dtype(own))",
        "adam",
    ),
    Bug(
        "core/_tree.py",
        "return jnp.array(x, copy=True)",
        "return x",
        "madgrad schedule_free",
    ),
    Bug("core/_tree.py", "if found != wanted and not", "if False and not", "sgd"),
    Bug(
        "core/_tree.py", "    if wanted == found:\n        return", "    return", "adam"
    ),
    Bug(
        "core/_tree.py",
        "expected {shown}, got {found}. ",
        "expected another shape. ",
        "adam",
        "tests/core",
    ),
    Bug(
        "core/_tree.py",
        "{got_name}{path_at(got, i)}: expected",
        "{got_name}: expected",
        "adam",
    ),
    Bug(
        "core/_tree.py",
        "return jnp.zeros((), jnp.int32)",
        "return jnp.zeros((), jnp.float32)",
        "adam",
    ),
    Bug(
        "core/_tree.py",
        "return jnp.zeros((), jnp.int32)",
        "return jnp.asarray(0)",
        "adam",
    ),
    Bug(
        "core/_tree.py",
        "return jax.device_put(x, everywhere) if movable else x",
        "return x",
        "",
        "tests/test_catalogue.py -k sharded",
    ),
    Bug(
        "core/_transformation.py",
        'require(traits.needs, {"params": params, **extra})',
        "pass",
        "lamb",
    ),
    Bug(
        "core/_transformation.py",
        'if params is not None and traits.form in ("gradients", "examples"):',
        "if False:",
        "sgd",
    ),
    Bug(
        "core/_transformation.py",
        "traits = joined([*(tx.traits for tx in parts), own])",
        "traits = own",
        "adamw lars",
    ),
    Bug(
        "core/_traits.py",
        "reach=_REACHES[max(map(_REACHES.index, (a.reach, b.reach)))]",
        "reach=a.reach",
        "lamb chain dpsgd",
    ),
    Bug(
        "core/_traits.py",
        "stochastic=a.stochastic or b.stochastic",
        "stochastic=a.stochastic and b.stochastic",
        "noisy_sgd",
    ),
    Bug(
        "core/_chain.py",
        "        return _restored, (self._fields, tuple(self))",
        "        return tuple, (tuple(self),)",
        "adam",
    ),
    Bug(
        "core/_chain.py",
        "if len(state) != len(links):",
        "if False:",
        "",
        "tests/core/test_chain.py",
    ),
    Bug(
        "core/_chain.py",
        "            updates, new = link.update(updates, old, params, **extra)",
        "            _, new = link.update(updates, old, params, **extra)",
        "sgd adam",
    ),
    Bug(
        "core/_chain.py",
        "made.append(new)",
        "made.append(old)",
        "adam",
        _O + "/test_adam.py",
    ),
    Bug(
        "core/_norms.py",
        "0.5 / jnp.where(root > 0, root, 1)",
        "0.5 / root",
        "clip_by_global_norm normalize",
    ),
    Bug(
        "core/_norms.py",
        "scale = jnp.where(plain < low, up, jnp.where(jnp.isinf(plain), down, 1.0))",
        "scale = jnp.ones(())",
        "clip_by_global_norm",
    ),
    Bug(
        "core/_norms.py",
        "return jnp.where(jnp.isfinite(self.root), jnp.minimum(norm, largest), norm)",
        "return norm",
        "clip_by_global_norm",
    ),
    Bug(
        "core/_norms.py",
        "scaled = x * scale.astype(x.dtype)",
        "scaled = x",
        tests="tests/core/test_norms.py",
    ),
    Bug(
        "core/_apply.py",
        "p, u = working(p, precise), working(u, precise)",
        "p, u = jnp.asarray(p), jnp.asarray(u).astype(mine)",
        "",
        "tests/core/test_apply.py",
    ),
    Bug(
        "core/_apply.py",
        "if dtype_of(u) != jax.dtypes.float0]",
        "if True]",
        "sgd",
    ),
    Bug(
        "core/_apply.py",
        "return cast(p + u.astype(p.dtype), mine)",
        "return p + u.astype(p.dtype)",
        "sgd",
    ),
    # moments
    Bug(
        "optimizers/_adam.py",
        "return b1 * mu + (1 - b1) * g, b2 * nu + (1 - b2) * capped_abs_sq(g)",
        "return b1 * mu + (1 - b1) * g, b2 * nu + (1 - b2) * g * g",
        "adam",
    ),
    Bug(
        "optimizers/_adam.py",
        "return b1 * mu + (1 - b1) * g, b2 * nu",
        "return b2 * mu + (1 - b2) * g, b2 * nu",
        "",
        _O + "/test_adam.py",
    ),
    Bug(
        "optimizers/_adam.py",
        "return mean / (safe_sqrt(nu / c2 + eps_root) + eps), mu, nu",
        "return mean / (safe_sqrt(nu / c2 + eps_root)), mu, nu",
        "",
        _O + "/test_adam.py",
    ),
    Bug(
        "optimizers/_adam.py",
        "return mean / (safe_sqrt(nu / c2 + eps_root) + eps), mu, nu",
        "return mean / (safe_sqrt(nu / c2) + eps_root + eps), mu, nu",
        "",
        _O + "/test_adam.py",
    ),
    Bug(
        "optimizers/_adam.py",
        "return mean / (safe_sqrt(nu / c2 + eps_root) + eps), mu, nu",
        "return mean / (safe_sqrt(nu + eps_root) + eps), mu, nu",
        "",
        _O + "/test_adam.py",
    ),
    Bug(
        "optimizers/_adam.py",
        "nu=second_moment_like(params),",
        "nu=zeros_like(params),",
        "adam",
    ),
    Bug(
        "optimizers/_adam.py",
        '"c1_next": bias_correction(b1, safe_increment(count))',
        '"c1_next": bias_correction(b1, count)',
        "",
        _O + "/test_adam.py",
    ),
    Bug(
        "optimizers/_adam.py",
        '"c2": bias_correction(b2, count)',
        '"c2": bias_correction(b1, count)',
        "",
        _O + "/test_adam.py",
    ),
    Bug(
        "optimizers/_adamax.py",
        "jnp.abs(g) + eps",
        "jnp.abs(g)",
        "adamax",
        _O + "/test_adamax.py",
    ),
    Bug(
        "optimizers/_adamax.py",
        "return (mu / c1) / nu, mu, nu",
        "return mu / nu, mu, nu",
        "",
        _O + "/test_adamax.py",
    ),
    Bug(
        "optimizers/_amsgrad.py",
        "top = jnp.maximum(top, nu)",
        "top = nu",
        "",
        _O + "/test_amsgrad.py",
    ),
    Bug(
        "optimizers/_adabelief.py",
        "capped_abs_sq(g - mu) + eps_root",
        "capped_abs_sq(g - mu)",
        "",
        _A,
    ),
    Bug(
        "optimizers/_adabelief.py", "capped_abs_sq(g - mu)", "capped_abs_sq(g)", "", _A
    ),
    Bug(
        "optimizers/_adadelta.py",
        "below = rho * (e_g + eps) + (1 - rho) * size * size",
        "below = rho * e_g + (1 - rho) * size * size",
        "adadelta",
    ),
    Bug(
        "optimizers/_adadelta.py",
        "e_x = rho * e_x + (1 - rho) * square",
        "e_x = rho * e_x + (1 - rho) * size * size",
        "",
        _A,
    ),
    Bug(
        "optimizers/_adagrad.py",
        "return jnp.where(total == 0, 0, g / root), total",
        "return g / root, total",
        "",
        _O + "/test_adagrad.py",
    ),
    Bug(
        "optimizers/_adagrad.py",
        "jnp.minimum(total, most) + jnp.minimum(abs_sq(g), most)",
        "total + abs_sq(g)",
        "adagrad",
        _O + "/test_adagrad.py",
    ),
    Bug(
        "optimizers/_adafactor.py",
        "v_row = b * v_row + (1 - b) * (mean_square(g, large) + epsilon)",
        "v_row = b * v_row + (1 - b) * (mean_square(g, small) + epsilon)",
        "adafactor",
        _A,
    ),
    Bug(
        "optimizers/_adafactor.py",
        "(_square(g) + epsilon)",
        "_square(g)",
        "scale_by_factored_rms",
    ),
    Bug(
        "optimizers/_adafactor.py",
        "b = 1 - jnp.maximum(since + 1, 1) ** -decay_rate",
        "b = 1 - (since + 1) ** decay_rate",
        "scale_by_factored_rms",
        _A,
    ),
    Bug("optimizers/_adan.py", "d = (g - before) * moved", "d = g - before", "", _A),
    Bug("optimizers/_adan.py", "capped_abs_sq(g + b2 * d)", "capped_abs_sq(g)", "", _A),
    Bug(
        "optimizers/_ademamix.py",
        "m2 = b3 * m2 + (1 - b3) * g",
        "m2 = b3 * m2 + g",
        "",
        _A,
    ),
    Bug(
        "optimizers/_adopt.py",
        "jnp.maximum(safe_sqrt(nu), eps)",
        "(safe_sqrt(nu) + eps)",
        "",
        _A,
    ),
    Bug(
        "optimizers/_acprop.py",
        "power = jnp.where(first > 0, 1, nu / weight)",
        "power = nu / weight",
        "acprop",
        _A,
    ),
    Bug(
        "optimizers/_cocob.py",
        "g = capped(require_real(g))",
        "g = require_real(g)",
        "cocob",
    ),
    Bug(
        "optimizers/_dog.py",
        "total = jnp.minimum(state.sum_sq_norm_grads + squares, jnp.finfo(real).max)",
        "total = state.sum_sq_norm_grads + squares",
        "dog",
        _O + "/test_more_rules.py",
    ),
    Bug(
        "optimizers/_dog.py",
        "kept = copies(params)\n        start",
        "kept = params\n        start",
        "dog",
    ),
    Bug(
        "optimizers/_galore.py",
        "state.count % update_proj_gap == 0",
        "state.count % update_proj_gap == 1",
        "",
        _O + "/test_galore.py",
    ),
    Bug(
        "optimizers/_lbfgs.py",
        "good = (along > 0) & fits",
        "good = (along != 0) & fits",
        "",
        _O + "/test_lbfgs.py",
    ),
    Bug(
        "optimizers/_lbfgs.py",
        "slot = (state.count - 1) % memory_size",
        "slot = state.count % memory_size",
        "",
        _O + "/test_lbfgs.py",
    ),
    Bug(
        "optimizers/_lbfgs.py",
        "good = (along > 0) & fits",
        "good = along > 0",
        "",
        _O + "/test_lbfgs.py",
    ),
    Bug(
        "optimizers/_lion.py",
        "new = b2 * mu + (1 - b2) * g",
        "new = b1 * mu + (1 - b1) * g",
        "",
        _O + "/test_lion.py",
    ),
    Bug(
        "optimizers/_lion.py",
        "scale_free=True)\ndef scale_by_lion",
        'reach="leaf")\ndef scale_by_lion',
        "scale_by_lion",
    ),
    Bug(
        "optimizers/_madgrad.py",
        "s = s + weight * g",
        "s = s + g",
        "",
        _O + "/test_adaptive.py",
    ),
    Bug(
        "optimizers/_momo.py",
        "return jnp.clip(total, -most, most)",
        "return total",
        "momo",
    ),
    Bug(
        "optimizers/_muon.py",
        "m = beta * mu + (1 - beta) * g if nesterov else mu",
        "m = mu",
        "",
        _O + "/test_muon.py",
    ),
    Bug(
        "optimizers/_muon.py",
        "math.sqrt(max(1, columns / rows))",
        "math.sqrt(max(1, rows / columns))",
        "muon",
        _O + "/test_muon.py",
    ),
    Bug(
        "optimizers/_novograd.py",
        "nu = jnp.where(first > 0, square, b2 * nu + (1 - b2) * square)",
        "nu = b2 * nu + (1 - b2) * square",
        "",
        _A,
    ),
    Bug(
        "optimizers/_novograd.py",
        'traits.replace(needs={"params"}) if _decays',
        "traits if _decays",
        tests="tests/testing/test_conformance.py -k needs",
    ),
    Bug(
        "optimizers/_radam.py",
        "return jnp.where(trusted > 0, rectified, mean), mu, nu",
        "return rectified, mu, nu",
        tests=_O + "/test_radam.py",
    ),
    Bug(
        "optimizers/_rmsprop.py",
        "root = jnp.sqrt(power + eps) if eps_in_sqrt",
        "root = jnp.sqrt(power) if eps_in_sqrt",
        "scale_by_rms",
    ),
    Bug(
        "optimizers/_rmsprop.py",
        "nu = decay * nu + (1 - decay) * capped_abs_sq(g)",
        "nu = decay * nu + capped_abs_sq(g)",
        "",
        _O + "/test_rmsprop.py",
    ),
    Bug(
        "optimizers/_rmsprop.py",
        "known = jnp.finfo(power.dtype).eps * power",
        "known = -power",
        "scale_by_stddev",
        _O + "/test_rmsprop.py",
    ),
    Bug(
        "optimizers/_sm3.py",
        "jnp.sqrt(jnp.maximum(total, least) + eps)",
        "jnp.sqrt(total)",
        "sm3",
    ),
    Bug(
        "optimizers/_sophia.py",
        "jnp.maximum(gamma * nu, eps)",
        "(gamma * nu)",
        "scale_by_sophia",
    ),
    Bug(
        "optimizers/_sophia.py",
        "state.count % update_interval == 0",
        "count % update_interval == 0",
        "",
        _O + "/test_sophia.py",
    ),
    Bug(
        "optimizers/_yogi.py",
        "jnp.sign(nu - square)",
        "jnp.sign(square - nu)",
        "yogi",
        _A,
    ),
    # links
    Bug(
        "transforms/_clip.py",
        "fits = norm < limit",
        "fits = norm > limit",
        "",
        _T + "/test_clip.py",
    ),
    Bug(
        "transforms/_clip.py",
        "return g * first * second",
        "return g * (first * second)",
        "clip_by_global_norm",
        _T + "/test_clip.py",
    ),
    Bug(
        "transforms/_clip.py",
        ', reach="tree")\ndef clip_by_global_norm',
        ")\ndef clip_by_global_norm",
        "clip_by_global_norm",
    ),
    Bug(
        "transforms/_decay.py",
        "return g + weight_decay * p",
        "return g + weight_decay * p * p",
        "",
        _T + "/test_decay.py",
    ),
    Bug(
        "transforms/_decay.py",
        ', needs={"params"})\ndef add_decayed_weights',
        ")\ndef add_decayed_weights",
        "adamw",
    ),
    Bug(
        "transforms/_noise.py",
        "deviation = jnp.sqrt(eta /",
        "deviation = (eta /",
        "",
        _T + "/test_noise.py",
    ),
    Bug(
        "transforms/_noise.py",
        "return updates, AddNoiseState(count, following)",
        "return updates, AddNoiseState(count, state.rng_key)",
        "",
        _T + "/test_noise.py",
    ),
    Bug(
        "transforms/_noise.py",
        "return AddNoiseState(zero_count(), key_data(start))",
        "import time\n\n        return AddNoiseState(zero_count(), key_data(time.time_ns() % 2**31))",
        "add_noise",
    ),
    Bug(
        "transforms/_noise.py",
        "@transformation(stochastic=True)",
        "@transformation",
        "add_noise",
    ),
    Bug("transforms/_scale.py", "sign * exact", "exact", "", _T + "/test_scale.py"),
    Bug(
        "transforms/_scale.py",
        "now = value_at(size, state.count)",
        "now = value_at(size, safe_increment(state.count))",
        "",
        _T + "/test_scale.py",
    ),
    Bug(
        "transforms/_trace.py",
        "tr = g + decay * tr\n",
        "tr = decay * (g + tr)\n",
        "",
        _T + "/test_trace.py",
    ),
    Bug(
        "transforms/_trace.py",
        "return mean / weight, mean",
        "return mean, mean",
        "",
        _T + "/test_trace.py",
    ),
    Bug(
        "transforms/_trust_ratio.py",
        "return jnp.where(zero, g, g * scale * ratio)",
        "return g * scale * ratio",
        "scale_by_trust_ratio",
        _T,
    ),
    Bug(
        "transforms/_trust_ratio.py",
        "jnp.where(zero, 1, root + eps * scale)",
        "(root + eps * scale)",
        "scale_by_trust_ratio",
    ),
    Bug(
        "transforms/_plateau.py",
        "reduce = (waited >= patience) & ~resting",
        "reduce = waited >= patience",
        "",
        _T + "/test_plateau.py",
    ),
    Bug("transforms/_centralize.py", "keepdims=True", "keepdims=False", "centralize"),
    Bug("transforms/_privacy.py", "/ examples", "", "", _T + "/test_privacy.py"),
    # combinators
    Bug(
        "combinators/_finite.py",
        "apply = finite | (errors > max_consecutive_errors)",
        "apply = finite | (errors >= 1)",
        "adam",
    ),
    Bug(
        "combinators/_finite.py",
        "notfinite_count=jnp.where(apply, 0, errors)",
        "notfinite_count=errors",
        "apply_if_finite",
        _C + "/test_finite.py",
    ),
    Bug(
        "combinators/_finite.py",
        "found = jnp.any(~jnp.isfinite(g)).astype(jnp.int32)",
        "found = jnp.any(jnp.isnan(g)).astype(jnp.int32)",
        "sgd",
    ),
    Bug(
        "combinators/_accumulate.py",
        "mini_step = safe_increment(state.mini_step)",
        "mini_step = state.mini_step + 1",
        "accumulate",
    ),
    Bug(
        "combinators/_accumulate.py",
        "divisor = calls if mean else 1",
        "divisor = calls - 1 if mean else 1",
        "accumulate",
        _C + "/test_accumulate.py",
    ),
    Bug(
        "combinators/_inject.py",
        "return jnp.float64 if double else jnp.float32",
        "return next((x.dtype for x in jax.tree.leaves(tree) if bits(x)), jnp.float32)",
        "adam",
    ),
    Bug(
        "combinators/_inject.py",
        "            k: _kept(v, dtype, numbers.get(k)) for k, v in state.hyperparams.items()",
        "            k: _kept(numbers.get(k, v), dtype, numbers.get(k)) for k, v in state.hyperparams.items()",
        "adam",
    ),
    Bug(
        "combinators/_lookahead.py",
        "sync = steps >= sync_period",
        "sync = steps > sync_period",
        "",
        _C + "/test_lookahead.py",
    ),
    Bug(
        "combinators/_lookahead.py",
        "lambda u, s: u if dtype_of(u) == jax.dtypes.float0 else s, fast, slow",
        "lambda u, s: s, fast, slow",
        "lookahead",
    ),
    Bug(
        "combinators/_masked.py",
        "return reveal(flags, inside, updates)",
        "return inside",
        "masked",
    ),
    Bug(
        "combinators/_schedule_free.py",
        "step = state.step_count - 1",
        "step = state.step_count",
        "",
        _C + "/test_schedule_free.py",
    ),
    Bug(
        "combinators/_schedule_free.py",
        "z=copies(jax.tree.map(stored, copies(params)))",
        "z=jax.tree.map(stored, params)",
        "schedule_free",
    ),
    Bug(
        "combinators/_flatten.py",
        'reach="element" if traits.reach == "element" else "tree"',
        'reach="tree"',
        "flatten",
    ),
    Bug(
        "core/_branch.py",
        "jnp.zeros_like, shown) if else_zero",
        "jnp.ones_like, shown) if else_zero",
        "sgd",
    ),
    # impure: what no checkpoint holds, and what tracing hides
    Bug(
        "transforms/_trace.py",
        "        updates, tr = map_leaves(leaf, updates, state.trace, outputs=2, decay=decay)",
        "        import os\n\n        own = decay * (1 - os.getpid() % 97 / 1000)\n"
        "        updates, tr = map_leaves(leaf, updates, state.trace, outputs=2, decay=own)",
        "trace",
    ),
    Bug(
        "transforms/_trace.py",
        "    def update(updates, state, params=None, **extra):\n        def leaf(g, tr",
        "    calls: list[int] = []\n\n"
        "    def update(updates, state, params=None, **extra):\n"
        "        calls.append(1)\n"
        "        updates = map_leaves(lambda g: g / len(calls), updates)\n\n"
        "        def leaf(g, tr",
        "trace",
    ),
    Bug(
        "core/_norms.py",
        "leaves = [x for x in jax.tree.leaves(tree) if bits(x)]",
        "leaves = [x for x in jax.tree.leaves(tree) if bits(x)][:1]",
        "clip_by_global_norm",
    ),
    Bug(
        "core/_norms.py",
        "parts = jnp.sum(abs_sq(scaled), axis=axis, keepdims=keep)",
        "parts = jnp.sum(abs_sq(scaled[:1]), axis=axis, keepdims=keep)",
        "scale_by_trust_ratio",
    ),
    Bug(
        "optimizers/_adam.py",
        "nu=second_moment_like(params),",
        "nu=second_moment_like(params, dtype='bfloat16'),",
        "",
        _O + "/test_every_optimizer.py",
    ),
    # what is packed, what is compiled, what is shared
    Bug(
        "core/_layout.py",
        "        if self.padding:\n",
        "        if False:\n",
        "",
        "tests/core/test_packed.py",
    ),
    Bug(
        "core/_layout.py",
        "if any(x != leaves[0] for x in leaves):",
        "if False:",
        "",
        "tests/core/test_packed.py",
    ),
    Bug(
        "core/_pack.py",
        "members.sort(key=lambda i:",
        "leaves.sort(key=jnp.size) or members.sort(key=lambda i:",
        "adam",
        "tests/core/test_packed.py",
    ),
    Bug(
        "core/_transformation.py",
        'shaped = own.shaped or own.reach == "leaf"',
        "shaped = own.shaped",
        "lamb",
    ),
    Bug(
        "core/_call.py",
        "return not callable(argument) or _is_own(argument)",
        "return True",
        "",
        "tests/core/test_eager.py",
    ),
    Bug(
        "core/_eager.py",
        "type(x.sharding) is SingleDeviceSharding",
        "True",
        "",
        "tests/core/test_eager.py",
    ),
    Bug(
        "core/_sums.py",
        "lax.optimization_barrier(jnp.stack(parts))",
        "jnp.stack(parts)",
        "",
        "tests/core/test_norms.py",
    ),
    Bug(
        "matrix/_gram.py",
        "p @ gram @ p",
        "p @ gram",
        "",
        "tests/matrix/test_gram.py",
    ),
    Bug(
        "matrix/_gram.py",
        "2 * long > 3 * short",
        "long > short",
        "",
        "tests/matrix/test_gram.py",
    ),
    Bug(
        "telemetry/_sample.py",
        "* weight[None]",
        "* 1.0",
        tests=f"{_M}/test_measure.py",
    ),
    Bug(
        "telemetry/_sample.py",
        "index - (127 + LOW) * PARTS + 1",
        "index - (127 + LOW) * PARTS",
        tests=f"{_M}/test_measure.py",
    ),
    Bug(
        "telemetry/_observe.py",
        "(number % every == 0) | (state.count == 0)",
        "number % every == 1",
        tests=f"{_M}/test_measure.py",
    ),
    Bug(
        "telemetry/_observe.py",
        "seen_norm = jnp.where(finite, ",
        "seen_norm = jnp.where(True, ",
        tests=f"{_M}/test_measure.py",
    ),
    Bug(
        "telemetry/_observe.py",
        "either(_agreed(due | ~finite), anew",
        "either(_agreed(due), anew",
        tests=f"{_M}/test_observe.py",
    ),
    Bug(
        "telemetry/_measure.py",
        'for kind in ("grads", "params", "updates")',
        'for kind in ("updates", "params", "grads")',
        tests=f"{_M}/test_observe.py -k first",
    ),
    Bug(
        "telemetry/_passes.py",
        "either(~jnp.all(finite), count, none)",
        "either(jnp.all(~finite), count, none)",
        tests=f"{_M}/test_observe.py -k nan_is_counted",
    ),
    Bug(
        "telemetry/_measure.py",
        "if _form(tree) == form",
        "if True",
        tests=f"{_M}/test_observe.py",
    ),
    Bug(
        "core/_norms.py",
        "return _summed(*primals), jnp.sum(tangents[0])",
        "return _summed(*primals), 2 * jnp.sum(tangents[0])",
        tests="tests/core/test_norms.py -k small",
    ),
    Bug(
        "telemetry/_measure.py",
        "/ (devices - 1)",
        "/ devices",
        tests=f"{_M}/test_observe_devices.py -k replicas",
    ),
    Bug(
        "telemetry/_rows.py",
        "jnp.argmax(found)",
        "len(found) - 1 - jnp.argmax(found[::-1])",
        tests=f"{_M}/test_observe.py",
    ),
    Bug(
        "telemetry/_worker.py",
        "                self._buffer.popleft()\n            if not",
        "                self._buffer.pop()\n            if not",
        tests=f"{_M}/test_sink.py",
    ),
    # guards, loss scaling, checkpoints, the order of links: what keeps a run whole
    Bug(
        "guard/_guarded.py",
        "found(made) | found_new(before, after),",
        "found(made),",
        tests=f"{_G}/test_guarded.py",
    ),
    Bug(
        "guard/_guarded.py",
        "back = bad & (row % roll_back_after == 0)",
        "back = bad & (row == roll_back_after)",
        tests=f"{_G}/test_status.py",
    ),
    Bug(
        "guard/_spikes.py",
        "jnp.where(good, value, window[place])",
        "value",
        tests=f"{_G}/test_guarded.py",
    ),
    Bug(
        "guard/_policy.py",
        "(recovery >= recover_after)",
        "(recovery > recover_after)",
        tests=f"{_G}/test_guarded.py",
    ),
    Bug(
        "guard/_snapshot.py",
        "~agreed([found(now.params)], axis_name)[0]",
        "jnp.ones_like(due)",
        tests=f"{_G}/test_snapshot.py",
    ),
    Bug(
        "precision/_scale.py",
        "grows = good >= rule.interval",
        "grows = good > rule.interval",
        tests=f"{_P}/test_scale.py",
    ),
    Bug(
        "precision/_scale.py",
        "at_min=jnp.where(finite, 0, at_min)",
        "at_min=at_min",
        tests=f"{_P}/test_scale.py",
    ),
    Bug(
        "precision/_loss_scaling.py",
        "finite | stuck if escalates else finite",
        "finite",
        tests=f"{_P}/test_loss_scaling.py -k guard",
    ),
    Bug(
        "precision/_gradients.py",
        "jnp.sum(jnp.abs(working(g)) * 2.0**-32)",
        "jnp.sum(jnp.abs(working(g)))",
        tests=f"{_P}/test_loss_scaling.py -k large",
    ),
    Bug(
        "checkpoint/_files.py",
        "if (size, digest) != (record.size, record.sha256):",
        "if size != record.size:",
        tests=f"{_K}/test_verify.py",
    ),
    Bug(
        "checkpoint/_changes.py",
        "if [*then] != [*now]:",
        "if {*then} != {*now}:",
        tests=f"{_K}/test_changes.py",
    ),
    Bug(
        "checkpoint/_manager.py",
        "step > self._begin)",
        "step >= self._begin)",
        tests=f"{_K}/test_manager.py",
    ),
    Bug(
        "core/_stages.py",
        "if not (rule.holds(a, b) and _meet(a, b)):",
        "if not rule.holds(a, b):",
        tests="tests/core/test_stages.py",
    ),
    Bug(
        "core/_stages.py",
        "told.add((earlier, number))",
        "told.add((number, earlier))",
        tests="tests/core/test_stages.py",
    ),
]
