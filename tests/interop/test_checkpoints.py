"""Checkpoints of optax that flax or Orbax wrote go on in gradtx, or say why not."""

import functools
import re
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax.training.train_state import TrainState

import gradtx
from gradtx import interop

pytestmark = pytest.mark.usefixtures("lenient", "x64")  # optax promotes

PARAMS = {
    "layer": {"kernel": np.linspace(-1.0, 1.0, 12).reshape(4, 3), "bias": np.ones(3)}
}
MASK = {"layer": {"kernel": True, "bias": False}}


def _cosine(library):
    return library.cosine_decay_schedule(0.1, 20)


def _multi_steps(library):
    if library is optax:
        steps = optax.MultiSteps(optax.adam(0.1), 3, accumulator_dtype=np.float64)
        return steps.gradient_transformation()
    return gradtx.accumulate(gradtx.adam(0.1), 3, accumulator_dtype=np.float64)


#: name: how to make it from either library
FORMS = {
    "sgd momentum": lambda o: o.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": lambda o: o.adam(0.1),
    "adamw schedule": lambda o: o.adamw(_cosine(o), mask=MASK),
    "chain": lambda o: o.chain(o.clip_by_global_norm(1.0), o.adamw(0.1)),
    "multi steps": _multi_steps,
    "masked": lambda o: o.masked(o.adam(0.1), MASK),
    "injected": lambda o: o.inject_hyperparams(o.adamw)(_cosine(o), weight_decay=0.1),
    "lamb": lambda o: o.lamb(0.1),
}
ADAM = gradtx.adam(0.1)


def _walk(tx, params, state, steps):
    """Return parameters and states before each step, and the last parameters."""

    def one(carry, step):
        params, state = carry
        grads = jax.tree.map(lambda p: p + jnp.sin(step + 5 * p), params)
        updates, new = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), new), (params, state)

    start = jax.tree.map(jnp.asarray, (params, state))
    return jax.jit(lambda: jax.lax.scan(one, start, jnp.asarray(steps)))()


@functools.cache
def _optax(name):
    """Return parameters and state after four steps, and the parameters after six."""
    tx = FORMS[name](optax)
    (last, _), before = _walk(tx, PARAMS, tx.init(PARAMS), np.arange(6.0))
    return *jax.tree.map(lambda x: x[4], before), last


def _went_on(name, state, middle):
    """Return the parameters two steps later."""
    return _walk(FORMS[name](gradtx), middle, state, np.arange(4.0, 6.0))[0][0]


def _same(got, expected):
    # two steps of some thirty roundings of 2^-53
    close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-14)
    jax.tree.map(close, got, expected)


def _saved(path, tree, kind: Any = ocp.StandardCheckpointer):
    with kind() as checkpointer:
        checkpointer.save(path, tree)
        if hasattr(checkpointer, "wait_until_finished"):
            checkpointer.wait_until_finished()
    return path


@pytest.mark.parametrize("name", FORMS)
def test_a_run_goes_on_from_both_formats(name, tmp_path):
    middle, old, expected = _optax(name)
    tx, data = FORMS[name](gradtx), flax.serialization.to_bytes(old)
    state = interop.from_flax_bytes(tx, data, middle)
    fresh = jax.eval_shape(tx.init, PARAMS)
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert shapes(state) == shapes(fresh)
    _same(_went_on(name, state, middle), expected)
    kind = ocp.StandardCheckpointer if len(name) % 2 else ocp.PyTreeCheckpointer
    _saved(tmp_path / "old", old, kind)
    again = interop.from_orbax(tx, tmp_path / "old", jax.eval_shape(lambda: middle))
    jax.tree.map(np.testing.assert_array_equal, again, state)


def _train_state(tx, params):
    return TrainState.create(apply_fn=None, params=params, tx=tx)


def test_a_whole_train_state_goes_on(tmp_path):
    middle, state, expected = _optax("adamw schedule")
    old = _train_state(FORMS["adamw schedule"](optax), middle)
    old = old.replace(step=4, opt_state=state)
    tx = FORMS["adamw schedule"](gradtx)
    fresh = _train_state(tx, jax.tree.map(np.zeros_like, PARAMS))
    _saved(tmp_path / "run" / "4" / "default", old)
    for new in (
        interop.from_flax_bytes(tx, flax.serialization.to_bytes(old), fresh),
        interop.from_orbax(tx, tmp_path / "run" / "4", fresh),
    ):
        assert (new.step, type(new.step)) == (4, int)
        jax.tree.map(np.testing.assert_array_equal, new.params, middle)
        assert jax.tree.structure(new) == jax.tree.structure(fresh)
        _same(_went_on("adamw schedule", new.opt_state, new.params), expected)
    counted = fresh.replace(step=jnp.zeros((), jnp.int32))
    new = interop.from_orbax(tx, tmp_path / "run" / "4", counted)
    assert (new.step.item(), new.step.dtype) == (4, jnp.int32)
    with pytest.raises(gradtx.MismatchError, match="whole TrainState"):
        interop.from_flax_bytes(tx, flax.serialization.to_bytes(old), middle)


def test_an_item_of_a_manager_is_found_or_named(tmp_path):
    _, old, _ = _optax("adam")
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(7, args=ocp.args.Composite(opt_state=ocp.args.StandardSave(old)))
    state = interop.from_orbax(ADAM, tmp_path / "7" / "opt_state", PARAMS)
    assert int(state.scale_by_adam.count) == 4
    for path, below in ((tmp_path, "7/opt_state"), (tmp_path / "7", "opt_state")):
        with pytest.raises(gradtx.NoCheckpointError, match=f"there are {below}: give"):
            interop.from_orbax(ADAM, path, PARAMS)
    with pytest.raises(gradtx.NoCheckpointError, match="no such directory"):
        interop.from_orbax(ADAM, tmp_path / "8", PARAMS)


def test_every_cut_of_the_bytes_is_told():
    _, old, _ = _optax("adam")
    data = flax.serialization.to_bytes(old)
    for length in range(0, len(data), 7):
        with pytest.raises(gradtx.DamagedError, match=f"{length} bytes that flax"):
            interop.from_flax_bytes(ADAM, data[:length], PARAMS)
    with pytest.raises(gradtx.DamagedError, match="flax cannot read"):
        interop.from_flax_bytes(ADAM, data + b"x", PARAMS)


def test_any_bytes_are_read_or_refused_in_our_words():
    _, old, _ = _optax("adam")
    data = bytearray(flax.serialization.to_bytes(old))
    rng = np.random.default_rng(0)
    for _ in range(150):
        changed = bytearray(data)
        for place in rng.integers(len(data), size=rng.integers(1, 5)):
            changed[place] ^= 1 << rng.integers(8)
        try:
            state = interop.from_flax_bytes(ADAM, bytes(changed), PARAMS)
        except gradtx.CheckpointError:
            continue
        assert state.scale_by_adam.mu["layer"]["kernel"].shape == (4, 3)


def test_files_of_orbax_that_are_cut_or_gone_are_told(tmp_path):
    _, old, _ = _optax("adam")
    _saved(tmp_path / "old", old)
    files = [p for p in (tmp_path / "old").rglob("*") if p.is_file()]
    largest = max(files, key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-100])
    with pytest.raises(gradtx.DamagedError, match="old: Orbax cannot read it"):
        interop.from_orbax(ADAM, tmp_path / "old", PARAMS)
    (tmp_path / "old" / "_METADATA").write_bytes(b"{")
    with pytest.raises(gradtx.DamagedError, match="old: Orbax cannot read it"):
        interop.from_orbax(ADAM, tmp_path / "old", PARAMS)


WRONG = {
    "sgd of adam": (gradtx.sgd(0.1, momentum=0.9), PARAMS, "opt_state"),
    "adamw of adam": (
        gradtx.chain(gradtx.clip(1.0), ADAM),
        PARAMS,
        r"opt_state\[0\] has count, mu, nu, and optax's EmptyState has nothing",
    ),
    "a schedule": (gradtx.adam(_cosine(gradtx)), PARAMS, r"opt_state\[1\] has nothing"),
    "other shapes": (
        ADAM,
        {"layer": {"kernel": np.zeros((3, 4)), "bias": np.zeros(3)}},
        r"opt_state\[0\].mu\['layer'\]\['kernel'\] is float64\[4, 3\], and float64\[3, 4\]",
    ),
    "a parameter more": (
        ADAM,
        PARAMS | {"head": np.zeros(2)},
        r"opt_state\[0\].mu has layer, and optax's dict has head, layer",
    ),
    "a parameter less": (
        ADAM,
        {"layer": {"kernel": PARAMS["layer"]["kernel"]}},
        r"opt_state\[0\].mu\['layer'\] has bias, kernel, and optax's dict has kernel",
    ),
    "another dtype": (
        gradtx.adam(0.1, mu_dtype="bfloat16"),
        PARAMS,
        r"mu\['layer'\]\['bias'\] is float64\[3\], and bfloat16\[3\] is expected",
    ),
    "a leaf for a tree": (
        ADAM,
        {"layer": np.zeros(3)},
        r"mu\['layer'\] must be an array, got bias, kernel",
    ),
}


@pytest.fixture
def adam_on_disk(tmp_path_factory, x64, lenient):
    path = tmp_path_factory.getbasetemp() / "adam_of_orbax"
    return path if path.exists() else _saved(path, _optax("adam")[1])


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_named(name, adam_on_disk):
    tx, params, words = WRONG[name]
    data = flax.serialization.to_bytes(_optax("adam")[1])
    with pytest.raises(gradtx.MismatchError, match=f"the bytes: .*{words}"):
        interop.from_flax_bytes(tx, data, params)
    with pytest.raises(
        gradtx.MismatchError, match=f"{re.escape(str(adam_on_disk))}: .*{words}"
    ):
        interop.from_orbax(tx, adam_on_disk, params)


def test_what_optax_does_not_have_is_named():
    tx = gradtx.guarded(ADAM)
    with pytest.raises(gradtx.ArgumentError, match="optax has no guarded"):
        interop.from_flax_bytes(
            tx, flax.serialization.to_bytes(_optax("adam")[1]), PARAMS
        )
