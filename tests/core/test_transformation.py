"""The value that a transformation is."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import ArgumentError, GradientTransformation

PARAMS = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}


def _init(params):
    return ()


def _double(updates, state, params=None):
    return jax.tree.map(lambda g: 2 * g, updates), state


def test_prints_as_the_call_that_made_it():
    assert repr(gradtx.adam(1e-3)) == "adam(0.001)"
    assert repr(gradtx.add_decayed_weights(0.1)) == "add_decayed_weights(0.1)"
    assert repr(gradtx.centralize(kept_axis=-1)) == "centralize(kept_axis=-1)"
    assert repr(gradtx.adam(1e-3, b2=0.95)) == "adam(0.001, b2=0.95)"
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.sgd(0.1, momentum=0.9, nesterov=True))
    assert repr(tx) == "chain(clip(1.0), sgd(0.1, momentum=0.9, nesterov=True))"


def test_printed_form_evaluates_to_an_equal_value():
    tx = gradtx.chain(
        gradtx.clip_by_global_norm(1.0),
        gradtx.partition(
            {
                "a": gradtx.adamw(1e-3, mask=gradtx.ndim_at_least(2)),
                "b": gradtx.lion(1),
            },
            gradtx.label_paths({"w": "a"}, default="b"),
        ),
        gradtx.named_chain(("first", gradtx.ema(0.9)), ("second", gradtx.trace(0.5))),
    )
    assert eval(repr(tx), dict(vars(gradtx))) == tx


def test_equal_calls_are_equal_values():
    assert gradtx.adam(1e-3) == gradtx.adam(learning_rate=1e-3, b1=0.9)
    assert hash(gradtx.adam(1e-3)) == hash(gradtx.adam(1e-3, 0.9))
    assert gradtx.adam(1e-3) != gradtx.adam(1e-4)
    assert gradtx.adam(1e-3) != gradtx.adamw(1e-3, weight_decay=0.0)
    assert gradtx.adam(1e-3) != gradtx.nadam(1e-3, nesterov=False)


def test_numpy_scalars_and_dtype_spellings_make_equal_values():
    assert gradtx.adam(np.float64(0.5)) == gradtx.adam(0.5)
    spellings = [jnp.bfloat16, "bfloat16", jnp.dtype("bfloat16")]
    assert len({gradtx.adam(0.5, mu_dtype=d) for d in spellings}) == 1


def test_arrays_compare_by_content_and_mutable_arguments_are_copied():
    assert gradtx.scale(jnp.ones(())) == gradtx.scale(jnp.ones(()))
    assert gradtx.scale(jnp.ones(())) != gradtx.scale(jnp.zeros(()))
    mask = {"w": True, "b": False}
    tx = gradtx.masked(gradtx.scale(2.0), mask)
    mask["w"] = False
    assert tx == gradtx.masked(gradtx.scale(2.0), {"w": True, "b": False})


def test_signed_zero_and_nan_have_a_value():
    assert gradtx.scale(0.0) != gradtx.scale(-0.0)
    assert gradtx.scale(float("nan")) == gradtx.scale(float("nan"))


def test_functions_compare_by_identity():
    f, g = (lambda step: 0.1), (lambda step: 0.1)
    assert gradtx.sgd(f) == gradtx.sgd(f)
    assert gradtx.sgd(f) != gradtx.sgd(g)


def test_unpacks_into_init_and_update():
    tx = gradtx.sgd(0.1)
    init, update = tx
    assert (init, update) == (tx.init, tx.update) == (tx[0], tx[1])
    assert len(tx) == 2


@pytest.mark.parametrize(
    "tx",
    [
        gradtx.adamw(1e-3, mask=gradtx.path_matches("w")),
        gradtx.add_noise(0.1, 0.5, key=jax.random.key(3)),
        gradtx.add_noise(0.1, 0.5, key=jax.random.PRNGKey(3)),
        gradtx.chain(gradtx.trace(0.9), gradtx.accumulate(gradtx.sgd(0.1), 4)),
        GradientTransformation(_init, _double),
    ],
    ids=repr,
)
def test_pickles_by_name_and_copies_are_itself(tx):
    assert pickle.loads(pickle.dumps(tx)) == tx
    assert copy.copy(tx) is tx
    assert copy.deepcopy({"tx": tx})["tx"] is tx


def test_is_frozen_and_no_pytree():
    tx = gradtx.adam(1e-3, b2=0.999)
    with pytest.raises(AttributeError):
        tx.init = None  # type: ignore[misc]
    assert jax.tree.leaves(tx) == [tx]


def test_equal_value_as_static_argument_does_not_retrace():
    traces = []

    @jax.jit
    def bump(x):
        return x + 1

    def step(tx, grads, state):
        traces.append(tx)
        return tx.update(grads, state, grads)

    jitted = jax.jit(step, static_argnums=0)
    for rate in (1e-3, 1e-3, 1e-2):
        tx = gradtx.adamw(rate, mask={"w": True, "b": False})
        jitted(tx, PARAMS, tx.init(PARAMS))
    assert [gradtx.hyperparameters(t)["learning_rate"] for t in traces] == [1e-3, 1e-2]


def test_raw_pair_is_opaque_but_works():
    tx = GradientTransformation(_init, _double)
    assert tx == GradientTransformation(_init, _double)
    assert repr(tx) == "GradientTransformation(_init, _double)"
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=3.0)
    np.testing.assert_array_equal(updates["w"], 2.0)
    assert gradtx.hyperparameters(tx) == {}


def test_extra_arguments_reach_only_updates_that_name_them():
    seen = {}

    @gradtx.transformation
    def listening():
        def update(updates, state, params=None, *, value):
            seen["value"] = value
            return updates, state

        return _init, update

    tx = gradtx.chain(gradtx.scale(1.0), (_init, _double), listening())
    tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=7, other=8)
    assert seen == {"value": 7}


def test_pairs_and_optax_transformations_are_links(lenient):
    tx = gradtx.chain((_init, _double), optax.scale(3.0), gradtx.scale(0.5))
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates["w"], 3.0)


@pytest.mark.parametrize(
    ("link", "pattern"),
    [
        (3.0, r"expected a transformation.*got 3\.0"),
        (gradtx.adam, r"Did you forget to call it: adam\(\.\.\.\)\?"),
        ((1, 2), r"got \(1, 2\)"),
    ],
)
def test_what_is_no_transformation_is_named(link, pattern):
    with pytest.raises(ArgumentError, match=r"^chain: .*" + pattern):
        gradtx.chain(gradtx.clip(1.0), link)


def test_factory_that_returns_no_pair_is_named():
    @gradtx.transformation
    def broken():
        return 1

    with pytest.raises(ArgumentError, match=r"broken: .*\(init, update\).*got int"):
        broken()


def test_wrong_arguments_raise_like_any_python_call():
    with pytest.raises(TypeError, match="unexpected keyword argument 'beta'"):
        gradtx.adam(1e-3, beta=0.9)  # type: ignore[call-arg]


def test_traced_hyperparameters_are_accepted():
    def first_update(rate):
        tx = gradtx.adam(rate)
        assert tx == tx
        assert tx != gradtx.adam(rate + 1)
        return tx.update(PARAMS, tx.init(PARAMS))[0]["w"][0, 0]

    rates = jnp.array([0.1, 0.2])
    np.testing.assert_allclose(jax.vmap(first_update)(rates), -rates, rtol=1e-6)


def test_errors_carry_the_innermost_link_once():
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.add_decayed_weights(0.1))
    with pytest.raises(gradtx.MissingArgumentError) as caught:
        tx.update(PARAMS, tx.init(PARAMS))
    assert str(caught.value).startswith("add_decayed_weights: update needs the current")


def test_each_link_runs_in_its_named_scope():
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.scale_by_adam())
    lowered = jax.jit(tx.update).lower(PARAMS, tx.init(PARAMS))
    text = lowered.as_text(debug_info=True)
    assert "gradtx/clip/" in text
    assert "gradtx/scale_by_adam/" in text


def test_works_without_jit():
    tx = gradtx.adamw(0.1)
    jitted = jax.jit(tx.update)(PARAMS, tx.init(PARAMS), PARAMS)
    with jax.disable_jit():
        eager = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), jitted, eager
    )


def test_rerun_definition_is_another_factory():
    def define(factor):
        @gradtx.transformation
        def scaled():
            return gradtx.scale(factor)

        return scaled

    first, second = define(1.0)(), define(2.0)()
    assert first != second, "a cell that is run again must not reuse old traces"


def test_update_may_take_params_by_name_or_not_at_all():
    def by_name(updates, state, *, params=None):
        return params, state

    def without(updates, state, **extra):
        return extra["params"], state

    def bare(updates, state):
        return updates, state

    init = lambda params: ()
    for update, expected in ((by_name, 2.0), (without, 2.0), (bare, 1.0)):
        tx = gradtx.GradientTransformation(init, update)
        assert tx.update(1.0, (), 2.0)[0] == expected
