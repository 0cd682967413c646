"""Muon against NumPy in float64, optax and torch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import gradtx

KELLER = (3.4445, -4.7750, 2.0315)


def _problem():
    rng = np.random.default_rng(0)
    start = {k: 0.1 * rng.normal(size=s) for k, s in SHAPES.items()}
    noise = {k: rng.normal(size=(200, *s)) for k, s in SHAPES.items()}
    return start, noise


SHAPES = {"a": (4, 6), "b": (6, 4), "c": (4, 6), "bias": (6,)}


def _walk(tx, apply_updates, start, noise):
    def step(carry, g):
        params, state = carry
        grads = jax.tree.map(lambda p, n: p + n, params, g)
        updates, state = tx.update(grads, state, params)
        params = apply_updates(params, updates)
        return (params, state), params

    run = jax.jit(lambda p, n: jax.lax.scan(step, (p, tx.init(p)), n)[1])
    path = run(*(jax.tree.map(jnp.asarray, tree) for tree in (start, noise)))
    return jax.tree.map(np.asarray, path)


def _orthogonal(u):
    x = u if u.shape[0] <= u.shape[1] else u.T
    x = x / (np.linalg.norm(x) + 1e-8)
    a, b, c = KELLER
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if u.shape[0] <= u.shape[1] else x.T


def _numpy(start, noise, rate, decay, b=0.95):
    paths = {}
    for k in "abc":
        p, m, path = start[k], 0, []
        for n in noise[k]:
            g = p + n
            m = b * m + (1 - b) * g
            u = (1 - b) * g + b * m
            s = np.sqrt(max(1, p.shape[1] / p.shape[0]))
            p = p - rate * (s * _orthogonal(u) + decay * p)
            path.append(p)
        paths[k] = np.stack(path)
    return paths


def _error(ours, theirs, start):
    return max(
        np.abs(ours[k] - theirs[k]).max() / np.abs(theirs[k] - start[k]).max()
        for k in theirs
    )


def test_is_the_rule_of_the_authors(x64):
    start, noise = _problem()
    tx = gradtx.muon(0.02, weight_decay=0.1)
    ours = _walk(tx, gradtx.apply_updates, start, noise)
    # eps meets a mean that is corrected here and not there: 1e-8 of the norm, and the
    # map's slope of 485 on the smallest singular values
    assert _error(ours, _numpy(start, noise, 0.02, 0.1), start) < 1e-5


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"ns_coeffs": "dion", "weight_decay": 0.1, "consistent_rms": 0.2},
        {"adaptive": True, "beta": 0.8, "adam_learning_rate": 0.1},
        {"preconditioning": "spectral", "ns_steps": 3},
    ],
)
def test_equals_optax_without_nesterov(arguments, x64):
    start, noise = _problem()
    tx = gradtx.muon(0.02, nesterov=False, **arguments)
    ours = _walk(tx, gradtx.apply_updates, start, noise)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs = optax.contrib.muon(0.02, nesterov=False, **arguments)
        theirs = _walk(theirs, optax.apply_updates, start, noise)
    # rounding of 1e-16, times 485 at each of 200 steps of a contraction
    assert _error(ours, theirs, start) < 1e-11


def test_nesterov_comes_near_torch():
    torch = pytest.importorskip("torch")
    start, noise = _problem()
    p = torch.nn.Parameter(torch.tensor(start["a"].T, dtype=torch.float32))
    theirs = torch.optim.Muon([p], lr=0.02, weight_decay=0.0)
    for n in noise["a"]:
        p.grad = torch.tensor(n.T, dtype=torch.float32)
        theirs.step()
    tx = gradtx.muon(0.02)
    params = {"a": jnp.asarray(start["a"], jnp.float32)}
    state = tx.init(params)
    step = jax.jit(tx.update)
    for n in noise["a"]:
        updates, state = step({"a": jnp.asarray(n, jnp.float32)}, state, params)
        params = gradtx.apply_updates(params, updates)
    # torch runs Newton–Schulz in bfloat16, of 8 bits
    travelled = np.abs(params["a"] - start["a"]).max()
    assert np.abs(params["a"] - p.detach().numpy().T).max() < 0.03 * travelled


def test_matrices_of_one_shape_are_one_batch():
    params = {k: jnp.ones((4, 6)) for k in "abcdefgh"}
    tx = gradtx.scale_by_muon()
    text = str(jax.make_jaxpr(tx.update)(params, tx.init(params)))
    few = {"a": params["a"]}
    assert text.count("dot_general") == str(
        jax.make_jaxpr(tx.update)(few, tx.init(few))
    ).count("dot_general")


def _gpt2(layers, d=768):
    sides = {"c_attn": 3 * d, "attn_proj": d, "c_fc": 4 * d}
    layer = {k: (d, n) for k, n in sides.items()} | {"mlp_proj": (4 * d, d)}
    layer |= {k + "_bias": (shape[1],) for k, shape in layer.items()}
    layer |= dict.fromkeys(("ln_1", "ln_1_bias", "ln_2", "ln_2_bias"), (d,))
    leaves = {k: jax.ShapeDtypeStruct(v, jnp.float32) for k, v in layer.items()}
    return {str(i): leaves for i in range(layers)}


@pytest.mark.parametrize("layers", [2, 12])
def test_a_step_needs_little_memory_beside_its_arguments(layers):
    params = _gpt2(layers)
    tx = gradtx.muon(0.02)

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state

    compiled = (
        jax.jit(step, donate_argnums=(0, 1))
        .lower(params, jax.eval_shape(tx.init, params), params)
        .compile()
    )
    size = sum(x.size for x in jax.tree.leaves(params))
    needed = compiled.memory_analysis().temp_size_in_bytes / size  # pyright: ignore
    # 4 bytes for the momenta of one shape side by side, the rest for one matrix;
    # optax needs 28
    assert needed <= 8


def test_dimension_numbers_choose_the_matrices():
    dims = gradtx.MuonDimensionNumbers(1, 2)
    params = {"heads": jnp.ones((2, 3, 4)), "embed": jnp.ones((3, 4))}
    tx = gradtx.muon(1e-2, muon_weight_dimension_numbers={"heads": dims, "embed": None})
    _, state = tx.update(params, tx.init(params), params)
    mu = state.inner_states["muon"].inner_state[0].mu
    assert mu["heads"].shape == (2, 3, 4)
    assert mu["embed"] == gradtx.MaskedNode()


def test_zero_gradient_gives_zero_update():
    params = {"w": jnp.ones((3, 4))}
    tx = gradtx.scale_by_muon()
    zeros = gradtx.tree.zeros_like(params)
    updates, _ = tx.update(zeros, tx.init(params))
    assert not updates["w"].any()


def test_shape_factors():
    g = {"w": jnp.ones((2, 8)), "t": jnp.ones((8, 2)), "b": jnp.ones(3)}
    u, _ = gradtx.scale_by_shape().update(g, gradtx.EmptyState())
    assert (u["w"][0, 0], u["t"][0, 0], u["b"][0]) == (2, 1, 1)
    u, _ = gradtx.scale_by_shape(consistent_rms=0.5).update(g, gradtx.EmptyState())
    np.testing.assert_allclose(u["t"], 0.5 * np.sqrt(8), rtol=1e-6)


def test_wrong_arguments_are_named():
    with pytest.raises(gradtx.ArgumentError, match="ns_coeffs must be one of"):
        gradtx.muon(0.1, ns_coeffs="keller")
    with pytest.raises(gradtx.ArgumentError, match="fewer than ns_steps"):
        gradtx.muon(0.1, ns_coeffs="dion", ns_steps=6)
    with pytest.raises(gradtx.ArgumentError, match="dimension numbers must have"):
        gradtx.muon(0.1, muon_weight_dimension_numbers={"x": None}).init(
            {"w": jnp.ones((2, 2))}
        )
