"""Batches in pieces give what whole batches give."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import AccumulationType

KINDS = list(AccumulationType)


def _batch(*shape, seed=0, dtype=None):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def _results(w, x, y):
    return {
        "rows": x * y + w,
        "sum": jnp.sum(x + 2 * y, axis=0),
        "means": (jnp.mean(x * w), {"y": jnp.mean(y, axis=0)}),
        "none": None,
    }


WAYS = {
    "rows": AccumulationType.CONCAT,
    "sum": AccumulationType.SUM,
    "means": (AccumulationType.MEAN, AccumulationType.RUNNING_MEAN),
    "none": None,
}


@pytest.mark.parametrize("size", [1, 2, 3, 6, 12])
def test_gathers_what_the_whole_batch_gives(size, x64):
    w, x, y = jnp.array(2.0), _batch(12, 3), _batch(12, 3, seed=1)
    pieces = gradtx.microbatch(_results, (1, 2), size, WAYS)
    expected = _results(w, x, y)
    for run in (pieces, jax.jit(pieces)):
        made = run(w, x, y)
        assert jax.tree.structure(made) == jax.tree.structure(expected)
        for a, b in zip(jax.tree.leaves(made), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13)  # float64, other orders


def _stripped(kind, lib):
    return getattr(lib.microbatching.AccumulationType, kind.name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("real", [None, 0, 2, 4])
def test_numbers_equal_optax(kind, real, lenient, x64):
    x = _batch(8, 3)

    def run(lib):
        return lib.microbatching.microbatch(
            lambda x: {"a": x[:, 0] * 2, "b": x @ jnp.ones(3)},
            0,
            2,
            _stripped(kind, lib),
            num_real_microbatches=real,
        )(x)

    for a, b in zip(
        *(jax.tree.leaves(run(lib)) for lib in (gradtx, optax)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_axes_of_arguments_and_names(kind):
    a, b = _batch(6, 2, 4), jnp.moveaxis(_batch(6, 3, 4, seed=1), 0, 1)

    def fun(a, b):  # (b, i, k), (j, b, k)
        return jnp.einsum("bik,jbk->ij", a, b)

    run = functools.partial(gradtx.microbatch, fun, microbatch_size=2, accumulator=kind)
    made = [
        run(argnums=(0, 1), in_axes=(0, 1))(a, b),
        run(argnums=(1, 0), in_axes=(1, 0))(a, b),
        run(argnums=0, argnames="b", in_axes=(0, 1))(a, b=b),
        run(argnums=(), argnames=("b", "a"), in_axes=(-2, -3))(a=a, b=b),
    ]
    for other in made[1:]:
        np.testing.assert_array_equal(made[0], other)


def test_gradients_of_microbatches_accumulate():
    w, x, y = jnp.ones(3), _batch(8, 3), _batch(8, seed=1)
    loss = lambda w, x, y: jnp.mean((x @ w - y) ** 2)
    grad = jax.value_and_grad(loss)
    pieces = gradtx.microbatch(grad, (1, 2), 2, AccumulationType.MEAN)
    for a, b in zip(
        jax.tree.leaves(jax.jit(pieces)(w, x, y)),
        jax.tree.leaves(grad(w, x, y)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6)  # float32 means of 8 numbers


def test_a_sum_over_microbatches_can_be_differentiated():
    loss = gradtx.microbatch(lambda w, x: jnp.sum((x @ w) ** 2), 1, 2)
    w, x = jnp.ones(3), _batch(8, 3)
    expected = 2 * x.T @ (x @ w)
    # float32 sums of 8 numbers
    np.testing.assert_allclose(jax.grad(loss)(w, x), expected, rtol=1e-5)


def test_low_precision_is_summed_in_32_bits_and_rounded_once():
    x = jnp.full((1000, 1), 0.1, jnp.bfloat16)
    total = gradtx.microbatch(lambda x: x[0], 0, 1)(x)
    assert total.dtype == jnp.bfloat16
    # 0.1 is 0.10009765625 in bfloat16; summed in bfloat16 it would stand still at 32
    assert total.item() == jnp.bfloat16(100.09765625).item()


def test_integers_and_flags_keep_their_dtypes():
    fun = lambda x: {"sum": jnp.sum(x), "rows": x > 2}
    kinds = {"sum": AccumulationType.SUM, "rows": AccumulationType.CONCAT}
    made = gradtx.microbatch(fun, 0, 2, kinds)(jnp.arange(4, dtype=jnp.int8))
    assert made["sum"].item() == 6
    assert made["rows"].tolist() == [False, False, False, True]


def test_number_of_microbatches_may_be_traced():
    traced = []

    @jax.jit
    def run(x, real):
        traced.append(1)
        return gradtx.microbatch(
            lambda x: {"sum": jnp.sum(x), "mean": jnp.mean(x)},
            0,
            4,
            {"sum": AccumulationType.SUM, "mean": AccumulationType.RUNNING_MEAN},
            num_real_microbatches=real,
        )(x)

    x = jnp.arange(32.0)
    for real in (1, 5, 8, 9):
        made, seen = run(x, real), x.reshape(4, 8)[:, :real]
        np.testing.assert_allclose(made["sum"], jnp.sum(seen), rtol=1e-6)
        np.testing.assert_allclose(made["mean"], jnp.mean(seen), rtol=1e-6)
    assert len(traced) == 1


def test_accumulators_of_your_own():
    largest = gradtx.Accumulator(
        init=lambda tree: jax.tree.map(lambda x: jnp.full_like(x, -jnp.inf), tree),
        update=lambda carry, tree, index: jax.tree.map(jnp.maximum, carry, tree),
        finalize=lambda carry: carry,
        aggregate=lambda tree: jax.tree.map(lambda x: jnp.max(x, axis=0), tree),
    )
    x = _batch(8, 3)
    made = gradtx.microbatch(lambda x: {"m": jnp.max(x)}, 0, 2, largest)(x)
    assert made["m"] == jnp.max(x)
    rows = gradtx.micro_vmap(jnp.max, microbatch_size=2, accumulator=largest)
    assert rows(x) == jnp.max(x)


def test_without_a_size_it_is_the_function_itself():
    assert gradtx.microbatch(jnp.sum, 0, None) is jnp.sum


def test_sharded_rows_stay_where_they_are():
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    rows = jax.sharding.NamedSharding(mesh, jax.P("data"))
    x = jax.device_put(_batch(32, 3), rows)
    split = jax.jit(lambda x: gradtx.reshape_batch_axis(x, 8))(x)
    assert split.sharding.is_equivalent_to(
        jax.sharding.NamedSharding(mesh, jax.P(None, "data")), 3
    )
    run = jax.jit(gradtx.microbatch(lambda x: x * 2, 0, 8, AccumulationType.CONCAT))
    np.testing.assert_array_equal(run(x), x * 2)
    text = run.lower(x).compile().as_text() or ""
    assert not any(word in text for word in ("all-gather", "all-to-all", "permute"))


def test_explicit_sharding_is_kept_in_the_types():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        x = jax.reshard(_batch(32, 3), jax.P("data"))
        split = gradtx.reshape_batch_axis(x, 8)
        assert jax.typeof(split).sharding.spec == jax.P(None, "data", None)
        run = gradtx.microbatch(lambda x: x * 2, 0, 8, AccumulationType.CONCAT)
        made = jax.jit(run)(x)
        assert jax.typeof(made).sharding.spec == jax.P("data", None)
        np.testing.assert_array_equal(made, x * 2)
        with pytest.raises(gradtx.ShapeError, match="by the 8 devices"):
            gradtx.reshape_batch_axis(x, 4)


def test_reshape_strides_and_equals_optax():
    x: Any = {"a": jnp.arange(24).reshape(2, 6, 2), "b": jnp.arange(12).reshape(2, 6)}
    ours = gradtx.reshape_batch_axis(x, 3, axis=1)
    theirs = optax.microbatching.reshape_batch_axis(x, 3, axis=1)
    for name in x:
        np.testing.assert_array_equal(ours[name], theirs[name])
    last = gradtx.reshape_batch_axis(x["b"], 3, axis=-1)
    np.testing.assert_array_equal(last, ours["b"])


def test_mistakes_are_named():
    with pytest.raises(gradtx.ShapeError, match="of size 10, must be divisible"):
        gradtx.microbatch(jnp.sum, 0, 3)(jnp.ones(10))
    with pytest.raises(gradtx.ShapeError, match="one size, got 4 in argument 0, 6 in"):
        gradtx.microbatch(jnp.add, (0, 1), 2)(jnp.ones(4), jnp.ones(6))
    with pytest.raises(gradtx.ShapeError, match="no axis 1"):
        gradtx.microbatch(jnp.sum, 0, 2, in_axes=1)(jnp.ones(4))
    with pytest.raises(gradtx.ArgumentError, match="one axis for each"):
        gradtx.microbatch(jnp.sum, 0, 2, in_axes=(0, 1))
    with pytest.raises(gradtx.ArgumentError, match="microbatch_size must be an int"):
        gradtx.microbatch(jnp.sum, 0, 0)
    with pytest.raises(gradtx.ArgumentError, match="argument with a batch axis"):
        gradtx.microbatch(jnp.sum, (), 2)(jnp.ones(4))
    with pytest.raises(gradtx.ArgumentError, match="must be an AccumulationType"):
        gradtx.microbatch(jnp.sum, 0, 2, "sum")(jnp.ones(4))
    means = gradtx.microbatch(jnp.sum, 0, 2, AccumulationType.MEAN)
    with pytest.raises(gradtx.ArgumentError, match="floating results, got int32"):
        means(jnp.arange(4))


@pytest.mark.parametrize("kind", KINDS)
def test_runs_on_each_device_of_a_shard_map(kind):
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    x = _batch(32, 3)
    run = gradtx.microbatch(lambda x: jnp.cumsum(x, axis=0), 0, 2, kind)
    mapped = jax.shard_map(
        run, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data")
    )
    made = jax.jit(mapped)(x)
    alone = jnp.concatenate([run(part) for part in jnp.split(x, 8)])
    np.testing.assert_allclose(made, alone, rtol=1e-6)
