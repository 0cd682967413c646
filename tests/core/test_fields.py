"""Every field of every state inside a state is listed once, with its role."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import Role, testing
from gradtx.core import fields, is_chain_state

PARAMS = {"enc": {"w": jnp.ones((4, 3)), "b": jnp.ones(3)}, "head": jnp.ones((3, 2))}
CATALOGUE = testing.catalogue()


def _paths(tx, params=PARAMS):
    return [field.path for field in fields(tx.init(params))]


def _follow(state, path):
    """Read what lies at a path, the way a person would."""
    for part in filter(None, path.replace("[", ".[").split(".")):
        if part.startswith("["):
            state = tuple.__getitem__(state, int(part.strip("[]")))
        elif hasattr(state, "_fields"):
            state = getattr(state, part)
        else:
            state = {str(key): value for key, value in state.items()}[part]
    return state


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_each_leaf_is_in_one_field_and_its_path_leads_to_it(name):
    state = jax.eval_shape(CATALOGUE[name].init, PARAMS)
    found = fields(state)
    inside = [id(x) for field in found for x in jax.tree.leaves(field.value)]
    assert sorted(inside) == sorted(id(x) for x in jax.tree.leaves(state))
    assert len({field.path for field in found}) == len(found)
    for field in found:
        assert _follow(state, field.path) is field.value, field.path
        assert field.role not in (None, Role.INNER), field.path
        assert not is_chain_state(field.value)


def test_links_go_by_their_names():
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3))
    found = {field.path: field for field in fields(tx.init(PARAMS))}
    mu = found["adamw.scale_by_adam.mu"]
    assert mu[1:5] == (Role.PER_PARAM, "scale_by_adam", "ScaleByAdamState", "mu")
    norm = found["clip_by_global_norm.norm"]
    assert (norm.link, norm.role) == ("clip_by_global_norm", Role.SCALAR)


def test_state_outside_a_chain_has_no_link():
    first = fields(gradtx.scale_by_adam().init(PARAMS))[0]
    assert (first.path, first.link, first.state) == ("count", "", "ScaleByAdamState")


def test_labels_and_wrappers_are_in_the_path():
    label = gradtx.label_paths({"head": "fast"}, default="slow/er")
    parts = {"fast": gradtx.trace(0.9), "slow/er": gradtx.adam(1.0)}
    assert _paths(gradtx.accumulate(gradtx.partition(parts, label), 2))[2:5] == [
        "inner_opt_state.inner_states.fast.inner_state.trace",
        "inner_opt_state.inner_states.slow_er.inner_state.scale_by_adam.count",
        "inner_opt_state.inner_states.slow_er.inner_state.scale_by_adam.mu",
    ]


def test_what_is_per_parameter_is_not_entered():
    class Params(NamedTuple):
        count: jax.Array
        mu: jax.Array

    params = Params(jnp.ones(2), jnp.ones(3))
    assert _paths(gradtx.trace(0.9), params) == ["trace"]


def test_states_without_roles_are_entered(lenient):
    tx = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.multi_transform(
            {"a": optax.adam(0.1), "b": optax.sgd(0.1)},
            {"enc": "a", "head": "b"},
        ),
    )
    found = fields(tx.init(PARAMS))
    adam = "[1].inner_states.a.inner_state[0]"
    names = optax.ScaleByAdamState._fields
    assert [field.path for field in found] == [f"{adam}.{x}" for x in names]
    assert {field.role for field in found} == {None}
    assert isinstance(found[1].value["head"], optax.MaskedNode)


def test_optax_link_in_a_chain_has_its_name(lenient):
    tx = gradtx.chain(optax.adam(0.1), gradtx.scale(1.0))
    state = tx.init(PARAMS)
    (link,) = {field.link for field in fields(state)}
    assert link == type(state)._fields[0]


def test_bare_leaves_containers_and_nothing():
    state = ({"a": np.ones(2)}, [jnp.ones(1), None], ())
    assert [(f.path, f.name) for f in fields(state)] == [("[0].a", ""), ("[1][0]", "")]
    assert fields(jnp.ones(3))[0][:5] == ("", None, "", "", "")
    assert fields(None) == [] == fields(gradtx.EmptyState())


def test_packed_stays_packed():
    state = gradtx.adam(0.1).init(gradtx.pack(PARAMS))
    mu = next(field for field in fields(state) if field.name == "mu")
    assert isinstance(mu.value, gradtx.Packed)


def test_reads_traced_states():
    tx = gradtx.adam(0.1)

    @jax.jit
    def total(state):
        moments = [f.value for f in fields(state) if f.role is Role.PER_PARAM]
        return sum(jnp.sum(x) for x in jax.tree.leaves(moments))

    assert float(total(tx.init(PARAMS))) == 0.0
