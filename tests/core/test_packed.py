"""Trees held in a few arrays: the same numbers, the same views, the same states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

import gradtx

KEYS = [jax.random.key(i) for i in range(8)]
PARAMS = {
    "a": jax.random.normal(KEYS[0], (4, 3)),
    "b": jax.random.normal(KEYS[1], (3,)),
    "c": {"k": jax.random.normal(KEYS[2], (4, 3)), "s": jnp.float32(0.5)},
    "d": (jax.random.normal(KEYS[3], (2, 2)), None, jnp.zeros((0, 3))),
}
GRADS = jax.tree.map(lambda p: jnp.cos(3 * p), PARAMS)


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for x, y in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def test_unpack_undoes_pack():
    packed = gradtx.pack(PARAMS)
    assert [x.shape for x in packed.arrays.values()] == [(64,)]
    assert_same(packed.unpack(), PARAMS)
    assert_same(packed["c"], PARAMS["c"])
    assert_same(gradtx.unpack({"inside": [packed, 1.0]})["inside"][0], PARAMS)
    assert "6 leaves in float32: float32[64]" in repr(packed)


def test_dtypes_and_labels_lie_apart():
    tree = {"w": jnp.ones((2, 2), jnp.bfloat16), "n": jnp.arange(3), "b": jnp.ones(2)}
    assert sorted(gradtx.pack(tree).arrays) == ["bfloat16", "float32", "int32"]
    by = gradtx.label_paths({"a|k": "slow"}, default="fast")
    packed = gradtx.pack(PARAMS, by=by)
    assert sorted(packed.arrays) == ["fast: float32", "slow: float32"]
    assert packed.arrays["slow: float32"].shape == (64,)
    assert_same(
        gradtx.pack(PARAMS, by={"a": 1, "b": 2, "c": 1, "d": 2}).unpack(), PARAMS
    )


def test_gradients_arrive_packed():
    packed = gradtx.pack(PARAMS)

    def loss(tree):
        return jnp.sum(tree["a"] @ tree["c"]["k"].T) * tree["c"]["s"]

    made = jax.jit(jax.grad(lambda p: loss(p.unpack())))(packed)
    assert isinstance(made, gradtx.Packed)
    assert_same(made.unpack(), jax.grad(loss)(PARAMS))
    per_example = jax.vmap(
        jax.grad(lambda p, x: x * loss(p.unpack())), in_axes=(None, 0)
    )(packed, jnp.arange(2.0))
    assert per_example["a"].shape == (2, 4, 3)
    assert_same(gradtx.pack(per_example.unpack(), like=packed), per_example)


def test_like_packs_states_and_refuses_others():
    packed = gradtx.pack(PARAMS)
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.adam(1e-3))
    fresh = tx.init(packed)
    plain = gradtx.unpack(fresh)
    assert_same(plain, tx.init(PARAMS))
    assert_same(gradtx.pack(plain, like=fresh), fresh)
    with pytest.raises(gradtx.ShapeError, match=r"\['a'\]: expected \(4, 3\)"):
        gradtx.pack(PARAMS | {"a": jnp.ones((3, 4))}, like=packed)
    with pytest.raises(gradtx.TreeMismatchError, match="structure"):
        gradtx.pack({"a": PARAMS["a"]}, like=packed)
    with pytest.raises(gradtx.ArgumentError, match="exclude one another"):
        gradtx.pack(PARAMS, by=True, like=packed)
    with pytest.raises(gradtx.ArgumentError, match="by must have the structure"):
        gradtx.pack(PARAMS, by={"a": True})
    with pytest.raises(gradtx.TreeMismatchError, match="only params are packed"):
        tx.update(GRADS, fresh, packed)


@pytest.mark.parametrize("by", [None, gradtx.ndim_at_least(2)], ids=["one", "by"])
def test_masks_and_groups_work_whether_arrays_follow_them_or_not(by):
    packed = gradtx.pack(PARAMS, by=by)
    grads = gradtx.pack(GRADS, like=packed)
    tx = gradtx.partition(
        {
            True: gradtx.adamw(1e-2, mask=gradtx.ndim_at_least(2)),
            False: gradtx.sgd(0.1, momentum=0.9),
        },
        gradtx.ndim_at_least(2),
    )
    updates, state = tx.update(grads, tx.init(packed), packed)
    expected = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    assert_close(gradtx.unpack((updates, state)), expected)
    is_split = by is not None
    assert any(map(is_packed, leaves_of(state))) == is_split
    moved = gradtx.apply_updates(packed, updates)
    assert_close(moved.unpack(), gradtx.apply_updates(PARAMS, expected[0]))


def is_packed(x):
    return isinstance(x, gradtx.Packed)


def leaves_of(state):
    return jax.tree.leaves(state, is_leaf=is_packed)


def assert_close(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for x, y in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        # two programs: sums in another order, products fused or not
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-7)


def test_optax_links_see_leaves_as_they_are(lenient):
    optax = pytest.importorskip("optax")
    packed = gradtx.pack(PARAMS)
    tx = gradtx.chain(optax.scale_by_trust_ratio(), gradtx.scale(-1.0))
    got, _ = tx.update(gradtx.pack(GRADS, like=packed), tx.init(packed), packed)
    want, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    assert_close(got.unpack(), want)


def test_float0_gradients_and_integer_leaves():
    params = {"w": jnp.ones(3), "n": jnp.arange(2), "m": jnp.arange(3)}
    packed = gradtx.pack(params)
    grads = jax.grad(lambda p: jnp.sum(p.unpack()["w"] ** 2), allow_int=True)(packed)
    tx = gradtx.adamw(0.1)
    updates, _ = tx.update(grads, tx.init(packed), packed)
    moved = gradtx.apply_updates(packed, updates).unpack()
    np.testing.assert_array_equal(moved["m"], params["m"])
    assert (moved["w"] < 1).all()
    assert updates["n"].dtype == jax.dtypes.float0
    again = gradtx.pack(grads.unpack(), like=packed)
    assert [x.shape for x in jax.tree.leaves(again)] == [(64,)] * 2


def test_sharded_leaves_keep_their_sharding():
    mesh = Mesh(np.array(jax.devices()[:4]), ("x",))
    place = lambda x, *spec: jax.device_put(x, NamedSharding(mesh, P(*spec)))
    params = {
        "a": place(jnp.ones((8, 2)), "x"),
        "b": place(2 * jnp.ones((8, 2)), "x"),
        "c": place(jnp.ones((2, 4)), None, "x"),
        "d": place(jnp.ones(3)),
        "e": place(jnp.ones(5)),
    }
    packed = gradtx.pack(params)
    shapes = {n: (x.shape, x.sharding.spec) for n, x in packed.arrays.items()}
    assert set(map(str, shapes.values())) == {
        str(((2, 8, 2), P(None, "x"))),
        str(((1, 2, 4), P(None, None, "x"))),
        str(((64,), P())),
    }
    tx = gradtx.adam(0.1)
    state = jax.jit(tx.init)(packed)
    step = jax.jit(lambda p, s: tx.update(p, s, p))
    updates, _ = step(packed, state)
    plain, _ = jax.jit(lambda p, s: tx.update(p, s, p))(params, tx.init(params))
    assert_close(updates.unpack(), plain)


def test_shapes_alone_are_packed_too():
    abstract = jax.eval_shape(lambda: PARAMS)
    packed = gradtx.pack(abstract)
    assert packed.arrays["float32"].shape == (64,)
    tx = gradtx.adam(1e-3)
    state = jax.eval_shape(tx.init, packed)
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(gradtx.pack(PARAMS)))
    assert packed.unpack()["a"].shape == (4, 3)


def test_names_in_a_state_show_the_tree():
    tx = gradtx.adam(1e-3)
    state = tx.init(gradtx.pack(PARAMS))
    assert_same(gradtx.tree.get(state, "mu"), tx.init(PARAMS)[0].mu)
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    changed = gradtx.tree.set(state, mu=ones)
    assert jax.tree.structure(changed) == jax.tree.structure(state)
    assert_same(gradtx.tree.get(changed, "mu"), ones)


def test_what_asks_a_tree_asks_a_packed_one():
    packed = gradtx.pack(PARAMS)
    assert "a" in packed
    assert "z" not in packed
    assert list(packed) == list(PARAMS)
    assert [x.shape for x in gradtx.pack([jnp.ones(2), jnp.ones(3)])] == [(2,), (3,)]


def test_gradients_of_each_example_are_clipped_alike():
    grads = jax.tree.map(lambda p: jnp.stack([3 * p, 0.1 * p]), PARAMS)
    packed = gradtx.pack(PARAMS)
    tx = gradtx.differentially_private_aggregate(1.0, 0.0, key=0)
    got, _ = tx.update(gradtx.pack(grads, like=packed), tx.init(packed), packed)
    want, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    assert_close(got.unpack(), want)
