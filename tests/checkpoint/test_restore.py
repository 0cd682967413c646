"""What is restored has the same bits on other devices, and training goes on with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

import gradtx
from gradtx import checkpoint
from tests.checkpoint._sides import (
    SHAPES,
    Side,
    assert_same_bits,
    filled,
    key_data,
    side,
)

TX = gradtx.chain(gradtx.clip(1.0), gradtx.adamw(1e-2))
RNG = jax.random.key(3)
SPREAD = {"b": P("data"), "w": P("data", None)}


def mesh(shape, names=("data",)):
    return Mesh(np.array(jax.devices()[: int(np.prod(shape))]).reshape(shape), names)


def step(params, state, rng):
    rng, _ = jax.random.split(rng)
    grads = jax.tree.map(lambda p: p * p - 1, params)
    updates, state = TX.update(grads, state, params)
    return gradtx.apply_updates(params, updates), state, rng


compiled = jax.jit(step)


@pytest.fixture(scope="module")
def trained():
    """Parameters on 8 devices after three updates, their state, and a key."""
    eight = mesh((8,))
    params = {
        name: jax.device_put(
            jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape) / 9,
            NamedSharding(eight, SPREAD[name]),
        )
        for name, shape in {"b": (8,), "w": (8, 4)}.items()
    }
    state, rng = jax.jit(TX.init)(params), RNG
    for _ in range(3):
        params, state, rng = compiled(params, state, rng)
    return {"params": params, "opt_state": state, "rng": rng}


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    """Where that was saved."""
    path = tmp_path_factory.mktemp("run")
    checkpoint.save(path, 3, tx=TX, updates=3, record={"data": 41}, **trained)
    return path


def elsewhere(trained, where):
    """Return what to restore into: abstract, each leaf on its place of a mesh."""

    def leaf(path, x):
        name = path[-1].key if x.ndim else None
        spec = SPREAD[name] if name in SPREAD else P()
        return jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=NamedSharding(where, spec)
        )

    return jax.tree_util.tree_map_with_path(leaf, trained)


@pytest.mark.parametrize("devices", [8, 4, 2, 1])
def test_values_are_the_same_on_other_devices(devices, trained, run):
    there = mesh((devices,))
    back = checkpoint.restore(run, tx=TX, **elsewhere(trained, there))
    assert_same_bits(back.trees, trained)
    assert back["params"]["w"].sharding == NamedSharding(there, P("data", None))
    assert back["opt_state"].adamw.scale_by_adam.nu["w"].sharding.mesh == there
    assert back.changes == ()
    if devices < 8:  # the step of 8 devices is compiled already
        return
    wanted = compiled(**trained_args(trained))
    assert_same_bits(compiled(**trained_args(back.trees)), wanted)


def trained_args(trees):
    return {
        "params": trees["params"],
        "state": trees["opt_state"],
        "rng": trees["rng"],
    }


def test_another_mesh_takes_the_same_values(trained, run):
    there = mesh((2, 4), ("model", "data"))
    back = checkpoint.restore(run, tx=TX, **elsewhere(trained, there))
    assert_same_bits(back.trees, trained)
    assert dict(back["params"]["w"].sharding.mesh.shape) == {"model": 2, "data": 4}


def test_counters_that_were_never_put_anywhere_do_not_bind_the_next_step(trained, run):
    four = mesh((4,))
    params = jax.tree.map(
        lambda x: jax.device_put(jnp.zeros(x.shape), NamedSharding(four, P("data"))),
        trained["params"],
    )
    state = TX.init(params)
    count = state.adamw.scale_by_adam.count
    back = checkpoint.restore(run, tx=TX, params=params, opt_state=state, rng=RNG)
    assert_same_bits(back.trees, trained)
    restored = back["opt_state"].adamw.scale_by_adam.count
    assert restored.committed == count.committed
    assert not back["rng"].committed
    new, _, _ = compiled(**trained_args(back.trees))
    assert new["w"].sharding.mesh.size == 4


def test_without_shardings_arrays_go_to_the_default_device(trained, run):
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), trained)
    back = checkpoint.restore(run, tx=TX, **like)
    assert_same_bits(back.trees, trained)
    assert back["params"]["w"].devices() == {jax.devices()[0]}


def test_numpy_stays_numpy_and_packed_stays_packed(trained, run):
    plain = jax.tree.map(np.asarray, trained["params"])
    back = checkpoint.restore(run, params=plain)
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(back.trees))
    assert_same_bits(back["params"], trained["params"])
    packed = gradtx.pack(jax.tree.map(jnp.asarray, plain))
    state = TX.init(packed)
    back = checkpoint.restore(run, tx=TX, params=packed, opt_state=state)
    assert jax.tree.structure(back["opt_state"]) == jax.tree.structure(state)
    assert_same_bits(back["opt_state"], trained["opt_state"])


def test_a_packed_run_is_restored_plainly(trained, tmp_path):
    packed = gradtx.pack(
        jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), trained["params"])
    )
    state = TX.init(packed)
    checkpoint.save(tmp_path, 0, tx=TX, params=packed, opt_state=state)
    plain = gradtx.unpack(packed)
    back = checkpoint.restore(tmp_path, tx=TX, params=plain, opt_state=TX.init(plain))
    assert_same_bits(back["params"], trained["params"])


def test_what_is_told_beside_the_trees(run):
    back = checkpoint.restore(run, rng=RNG)
    assert (back.step, back.record, back.skipped) == (3, {"data": 41}, ())
    assert back.path == run / "step_00000003"
    assert back.counts["batches_consumed"] == back.counts["updates_applied"] == 3
    assert back.counts["states"]["opt_state.adamw.scale_by_adam.count"] == 3
    assert jax.random.key_impl(back["rng"]) == jax.random.key_impl(RNG)


def test_every_part_can_be_asked_for_alone(trained, run):
    for name, tree in trained.items():
        back = checkpoint.restore(run, tx=TX, **{name: tree})
        assert_same_bits(back.trees, {name: tree})


def test_a_slip_in_a_name_is_an_error(trained, run):
    for names in (["learning_rat"], "learning_rat"):
        with pytest.raises(gradtx.ArgumentError) as caught:
            checkpoint.restore(run, tx=TX, allow_hyperparameters=names, **trained)
        assert "'learning_rat'" in str(caught.value)
        assert "Did you mean" in str(caught.value)
        assert "learning_rate'?" in str(caught.value)
    kept = ["learning_rate", "adamw.b2", "clip.max_delta"]
    back = checkpoint.restore(run, tx=TX, allow_hyperparameters=kept, **trained)
    assert back.changes == ()


def test_a_schedule_is_allowed_by_its_own_name(tmp_path):
    old = gradtx.adam(gradtx.cosine_decay_schedule(1e-3, 100))
    new = gradtx.adam(gradtx.cosine_decay_schedule(1e-3, 50))
    trees = filled(side(old).trees)
    checkpoint.save(tmp_path, 7, tx=old, **trees)
    for name in ("learning_rate", "learning_rate.decay_steps", "decay_steps"):
        back = checkpoint.restore(tmp_path, tx=new, allow_hyperparameters=name, **trees)
        assert [c.path for c in back.changes] == ["learning_rate.decay_steps"]
    with pytest.raises(gradtx.MismatchError):
        checkpoint.restore(tmp_path, tx=new, allow_hyperparameters=["b1"], **trees)


def test_an_optimizer_that_was_not_recorded_goes_on_only_if_it_is_allowed(tmp_path):
    tx = gradtx.adam(1e-3)
    trees = filled(side(tx).trees)
    checkpoint.save(tmp_path, 7, **trees)
    back = checkpoint.restore(tmp_path, tx=tx, allow_opaque=True, **trees)
    assert_same_bits(back.trees, trees)
    assert [(c.kind, c.then) for c in back.changes] == [("opaque", "not recorded")]
    checkpoint.restore(tmp_path, tx=tx, params=trees["params"])
    checkpoint.restore(tmp_path, **trees)  # nobody asks


def test_the_order_of_equal_links_is_told(tmp_path):
    tx = gradtx.chain(gradtx.trace(0.9), gradtx.trace(0.5))
    other = gradtx.chain(gradtx.trace(0.5), gradtx.trace(0.9))
    trees = filled(side(tx).trees)
    checkpoint.save(tmp_path, 7, tx=tx, **trees)
    with pytest.raises(gradtx.MismatchError) as caught:
        checkpoint.restore(tmp_path, tx=other, **trees)
    assert "trace.decay: 0.9 -> 0.5" in str(caught.value)
    assert "trace_2.decay: 0.5 -> 0.9" in str(caught.value)


def test_64_bits_come_back_only_where_they_are_on(tmp_path):
    tx = gradtx.sgd(0.1, 0.9)
    with jax.enable_x64(True):
        wide = side(tx, dtype=jnp.float64)
        trees = filled(wide.trees)
        checkpoint.save(tmp_path, 7, tx=tx, **trees)
        back = checkpoint.restore(tmp_path, tx=tx, **wide.trees)
        assert_same_bits(back.trees, trees)
    with pytest.raises(
        gradtx.MismatchError, match=r"float64\[3, 2\] -> float32\[3, 2\]"
    ):
        checkpoint.restore(tmp_path, tx=tx, **side(tx).trees)
    with pytest.raises(gradtx.MismatchError, match="jax_enable_x64"):
        checkpoint.restore(tmp_path, tx=tx, **wide.trees)
    host = jax.tree.map(np.asarray, trees["params"])
    back = checkpoint.restore(tmp_path, params=host)
    assert back["params"]["out"].dtype == np.float64


def test_states_with_32_bits_mean_the_same_beside_64(tmp_path):
    tx = gradtx.adam(1e-3)
    then = Side(tx, filled(side(tx).trees))
    checkpoint.save(tmp_path, 7, tx=tx, **then.trees)
    with jax.enable_x64(True):
        back = checkpoint.restore(tmp_path, tx=tx, **side(tx).trees)
    assert_same_bits(back.trees, then.trees)


def test_numbers_none_and_empty_arrays_come_back(tmp_path):
    odd = {
        "none": None,
        "int": 3,
        "big": 2**62,
        "float": 0.1,
        "bool": True,
        "complex": 1 - 2j,
        "empty": jnp.zeros((0, 3)),
        "scalar": np.float32(2.5),
        "keys": jax.random.split(jax.random.key(0), 3),
        "half": jnp.ones(3, jnp.bfloat16),
        "eighth": jnp.ones(3, jnp.float8_e4m3fn),
        "nibbles": jnp.ones(3, jnp.int4),
        "nothing": {},
    }
    checkpoint.save(tmp_path, 0, odd=odd)
    back = checkpoint.restore(tmp_path, odd=odd)["odd"]
    assert_same_bits(back, odd)
    for name in ("int", "big", "float", "bool", "complex"):
        assert back[name] == odd[name]
        assert type(back[name]) is type(odd[name])
    assert (key_data(back["keys"]) == key_data(odd["keys"])).all()


def test_arguments_that_make_no_sense(run):
    params = side(None, SHAPES).trees["params"]
    bad = gradtx.ArgumentError
    with pytest.raises(bad, match="nothing to restore"):
        checkpoint.restore(run)
    with pytest.raises(bad, match="is a step; leave out step="):
        checkpoint.restore(run / "step_00000003", step=3, params=params)
    with pytest.raises(bad, match="16 bytes"):
        checkpoint.restore(run, key=b"short", params=params)
    with pytest.raises(gradtx.NoCheckpointError, match="step_00000004"):
        checkpoint.restore(run, step=4, params=params)
    with pytest.raises(gradtx.NoCheckpointError, match="No such file"):
        checkpoint.restore(run / "other", params=params)
