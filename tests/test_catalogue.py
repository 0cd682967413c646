"""What holds of every transformation, checked over all of them.

`python -m tests.test_catalogue` writes the golden files anew: a changed default then
shows in the diff, and wants a line in the CHANGELOG.
"""

import inspect
import json
import pathlib
import pickle
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import GradientTransformation, Role
from gradtx.core import _call
from tests import catalogue

GOLDEN = pathlib.Path(__file__).parent / "golden"
EVERY = pytest.mark.parametrize("name", sorted(catalogue.TRANSFORMATIONS))
PLAIN = pytest.mark.parametrize(
    "name", sorted(set(catalogue.TRANSFORMATIONS) - catalogue.APART)
)
FLOATS = ["float16", "bfloat16", "float32"]


def _params(dtype="float32"):
    return {
        "dense": {"kernel": jnp.ones((3, 2), dtype), "bias": jnp.full(2, 0.5, dtype)},
        "scale": jnp.ones((), dtype),
        "absent": None,
        "empty": {},
        "void": jnp.ones((0, 3), dtype),
    }


def _update(name):
    """Return the `update` of a transformation, with the extra arguments it needs."""
    return catalogue.with_extra(name, catalogue.TRANSFORMATIONS[name].update)


def _types(tree):
    return jax.tree.map(jax.typeof, tree)


def test_every_factory_is_in_the_catalogue():
    made = {
        name.removeprefix("gradtx.")
        for name, factory in _call.registered().items()
        if name.startswith("gradtx.")
        and hasattr(sys.modules[factory.__module__], factory.__name__)  # no doctest's
        and inspect.signature(factory).return_annotation is GradientTransformation
    }
    assert made - catalogue.OPAQUE == set(catalogue.TRANSFORMATIONS)


@EVERY
def test_prints_pickles_and_describes_itself(name):
    tx = catalogue.TRANSFORMATIONS[name]
    assert tx.name == name
    assert eval(repr(tx), dict(vars(gradtx))) == tx
    assert pickle.loads(pickle.dumps(tx)) == tx
    assert gradtx.build(json.loads(json.dumps(gradtx.describe(tx)))) == tx
    assert hash(tx) == hash(gradtx.build(gradtx.describe(tx)))


@EVERY
def test_defaults_are_those_of_the_golden_file(name):
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    assert gradtx.describe(catalogue.TRANSFORMATIONS[name]) == golden


def test_no_golden_file_is_left_over():
    assert {p.stem for p in GOLDEN.glob("*.json")} == set(catalogue.TRANSFORMATIONS)


@EVERY
def test_init_is_abstract_pure_and_owns_its_buffers(name):
    tx, params = catalogue.TRANSFORMATIONS[name], _params()
    abstract = jax.eval_shape(tx.init, jax.eval_shape(lambda: params))
    state = tx.init(params)
    assert _types(state) == jax.tree.map(jax.typeof, tx.init(params))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(
        lambda x: (x.shape, x.dtype), abstract
    )
    arrays = jax.tree.leaves((params, state))
    owned = [x.unsafe_buffer_pointer() for x in arrays if x.size]
    assert len(set(owned)) == len(owned)


@PLAIN
@pytest.mark.parametrize("grad", FLOATS)
@pytest.mark.parametrize("param", FLOATS)
def test_types_are_a_fixed_point(name, param, grad):
    tx, params = catalogue.TRANSFORMATIONS[name], _params(param)
    grads = _params(grad)
    state = tx.init(params)
    updates, after = jax.eval_shape(_update(name), grads, state, params)
    abstract = jax.eval_shape(lambda: (grads, state))
    assert (_types(updates), _types(after)) == _types(abstract)
    moved = jax.eval_shape(gradtx.apply_updates, params, updates)
    assert _types(moved) == _types(jax.eval_shape(lambda: params))


@PLAIN
def test_types_are_a_fixed_point_in_64_bits(name, x64):
    tx = catalogue.TRANSFORMATIONS[name]
    params = _params("float64")
    state = tx.init(params)
    for dtype in ("float64", "float32"):
        before = (_params(dtype), state)
        after = jax.eval_shape(_update(name), *before, params)
        assert _types(after) == _types(jax.eval_shape(lambda it: it, before))


@PLAIN
def test_scan_donation_and_integer_leaves(name):
    tx = catalogue.TRANSFORMATIONS[name]
    params = _params() | {"steps": jnp.arange(3)}
    grads = _params() | {"steps": np.zeros(3, jax.dtypes.float0)}

    def step(carry, _):
        params, state = carry
        updates, state = _update(name)(grads, state, params, unused=1)
        return (gradtx.apply_updates(params, updates), state), None

    run = jax.jit(
        lambda carry: jax.lax.scan(step, carry, length=3)[0], donate_argnums=0
    )
    out, _ = run((params, tx.init(params)))
    np.testing.assert_array_equal(out["steps"], [0, 1, 2])
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(out))


@PLAIN
def test_counters_saturate(name):
    tx, params = catalogue.TRANSFORMATIONS[name], _params()
    top = jnp.iinfo(jnp.int32).max
    state = jax.tree.map(
        lambda x: jnp.full_like(x, top) if x.dtype == jnp.int32 else x, tx.init(params)
    )
    updates, after = _update(name)(params, state, params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(updates))
    assert all(x >= 0 for x in jax.tree.leaves(after) if x.dtype == jnp.int32)


@PLAIN
@pytest.mark.parametrize("value", [1e20, 1e-30, 0.0])
def test_extreme_gradients_leave_everything_finite(name, value):
    tx, params = catalogue.TRANSFORMATIONS[name], {"w": jnp.ones((4, 3))}
    grads = {"w": jnp.full((4, 3), value)}
    state = tx.init(params)
    for _ in range(2):
        updates, state = _update(name)(grads, state, params)
        looked_at = updates if name in catalogue.SEARCHES else (updates, state)
        for leaf in jax.tree.leaves(looked_at):
            if jnp.issubdtype(leaf.dtype, jnp.inexact):
                assert np.isfinite(leaf).all()


def _keeps_leaves(state) -> bool:
    """Say whether a state holds something for every leaf of the parameters."""
    kinds = gradtx.roles(state)
    if {Role.PER_PARAM, Role.FACTORED} & set(kinds.values()):
        return True
    inner = [getattr(state, f) for f, role in kinds.items() if role is Role.INNER]
    states = [x for i in inner for x in (i.values() if isinstance(i, dict) else [i])]
    return any(map(_keeps_leaves, states))


@pytest.mark.parametrize(
    "name",
    [
        n
        for n, tx in catalogue.TRANSFORMATIONS.items()
        if n not in catalogue.APART and _keeps_leaves(tx.init(_params()))
    ],
)
def test_wrong_gradients_are_named(name):
    tx, params = catalogue.TRANSFORMATIONS[name], {"kernel": jnp.ones((3, 2))}
    state = tx.init(params)
    pattern = r"^\w+: updates\['(kernel|bias)'\] is (missing|unexpected)"
    with pytest.raises(gradtx.TreeMismatchError, match=pattern):
        _update(name)({"bias": jnp.ones(2)}, state, params)
    if name != "zero_nans":  # its states are one flag per leaf
        with pytest.raises(gradtx.ShapeError, match=r"updates\['kernel'\]: expected"):
            _update(name)({"kernel": jnp.ones((2, 3))}, state, params)


def test_fresh_state_lies_beside_sharded_parameters():
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    rows = jax.sharding.NamedSharding(mesh, jax.P("data"))
    everywhere = jax.sharding.NamedSharding(mesh, jax.P())
    params = {"w": jax.device_put(jnp.ones((16, 2)), rows)}
    for name, tx in catalogue.TRANSFORMATIONS.items():
        for leaf in jax.tree.leaves(tx.init(params)):
            expected = rows if leaf.shape == (16, 2) else everywhere
            assert leaf.sharding.is_equivalent_to(expected, leaf.ndim), name


def _write() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for path in GOLDEN.glob("*.json"):
        path.unlink()
    for name, tx in catalogue.TRANSFORMATIONS.items():
        text = json.dumps(gradtx.describe(tx), indent=1, ensure_ascii=False)
        (GOLDEN / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    _write()
