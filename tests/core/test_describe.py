"""Transformations as plain data, and back."""

import json

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx import DescriptionError

CASES = [
    gradtx.chain(),
    gradtx.adamw(1e-3, mu_dtype=jnp.bfloat16, mask=~gradtx.path_matches("bias$")),
    gradtx.masked(gradtx.scale(float("inf")), {"a": [True, False], "b": (True,)}),
    gradtx.partition(
        {True: gradtx.sgd(0.1), False: gradtx.set_to_zero()}, [True, False]
    ),
    gradtx.partition({0: gradtx.sgd(0.1), 1: gradtx.sgd(0.2)}, {"w": 0, "b": 1}),
    gradtx.add_noise(0.1, 0.5, key=jax.random.key(7)),
    gradtx.scale(jnp.array(0.1, jnp.bfloat16)),
    gradtx.named_chain(("in", gradtx.clip(1.0)), ("out", gradtx.adam(1e-3))),
    gradtx.adaptive_grad_clip(0.01, axis=(0, 1)),
    gradtx.accumulate(gradtx.rmsprop(0.1, momentum=0.9, centered=True), every=3),
]


@pytest.mark.parametrize("tx", CASES, ids=repr)
def test_survives_json(tx):
    text = json.dumps(gradtx.describe(tx), allow_nan=False)
    assert gradtx.build(json.loads(text)) == tx
    assert gradtx.describe(gradtx.build(json.loads(text))) == gradtx.describe(tx)


def test_is_readable():
    assert gradtx.describe(gradtx.chain(gradtx.clip(1.0), gradtx.trace(0.9))) == {
        "call": "gradtx.chain",
        "arguments": {
            "links": [
                {"call": "gradtx.clip", "arguments": {"max_delta": 1.0}},
                {
                    "call": "gradtx.trace",
                    "arguments": {
                        "decay": 0.9,
                        "nesterov": False,
                        "accumulator_dtype": None,
                    },
                },
            ],
            "deliberate": False,
        },
    }


def test_floats_keep_every_bit():
    tx = gradtx.scale(0.1 + 2**-54)
    assert gradtx.build(json.loads(json.dumps(gradtx.describe(tx)))) == tx


def test_custom_factory_is_found_by_its_module():
    @gradtx.transformation
    def flip():
        return gradtx.scale(-1)

    described = gradtx.describe(flip())
    assert described["call"].startswith(f"{__name__}.")
    assert gradtx.build(described) == flip()


@pytest.mark.parametrize(
    ("make", "pattern"),
    [
        (
            lambda: gradtx.sgd(lambda step: 0.1),
            r"learning_rate cannot.*@gradtx\.schedule",
        ),
        (
            lambda: gradtx.chain(gradtx.masked(gradtx.scale(1.0), lambda p: p)),
            r"links\[0\]\.mask cannot be written.*@gradtx\.selector",
        ),
        (
            lambda: gradtx.chain((lambda p: (), lambda g, s, p: (g, s))),
            r"links\[0\]\[0\] cannot be written.*@gradtx\.transformation",
        ),
        (
            lambda: gradtx.identity,
            "expected a transformation, a schedule or a selector",
        ),
    ],
)
def test_what_data_cannot_carry_is_named(make, pattern):
    with pytest.raises(DescriptionError, match=pattern):
        gradtx.describe(make())


def test_traced_argument_is_refused():
    def inside(rate):
        with pytest.raises(DescriptionError, match="It is traced"):
            gradtx.describe(gradtx.sgd(rate))
        return rate

    jax.jit(inside)(0.1)


def _adam(**arguments):
    return {"call": "gradtx.adam", "arguments": arguments}


@pytest.mark.parametrize(
    ("data", "pattern"),
    [
        (
            {"call": "gradtx.adm", "arguments": {}},
            r"'gradtx\.adm'.*mean gradtx\.adam\?",
        ),
        ({"call": "os.system", "arguments": {}}, "no factory is known"),
        (_adam(learning_rat=1.0), "takes no argument 'learning_rat'; it takes learn"),
        (_adam(), "gradtx.adam: .*learning_rate"),
        ({"call": "gradtx.adam"}, 'expected the keys "call" and "arguments"'),
        (3, "expected a dict"),
        ({"a": 1}, "expected a dict with the keys"),
        (_adam(learning_rate={"$new": 1}), r"unknown mark '\$new'"),
        (_adam(learning_rate=object()), "expected JSON data, got object"),
        (_adam(learning_rate={"$array": {"data": "!"}}), "damaged array"),
    ],
)
def test_damaged_data_is_named(data, pattern):
    with pytest.raises(DescriptionError, match=pattern):
        gradtx.build(data)


def test_too_deep_data_is_refused():
    data = []
    for _ in range(100):
        data = [data]
    with pytest.raises(DescriptionError, match="deeper than 64"):
        gradtx.build(_adam(learning_rate=data))


def test_bad_value_in_data_raises_as_the_call_would():
    with pytest.raises(gradtx.ArgumentError, match=r"b1 must lie in \[0, 1\), got 2"):
        gradtx.build(_adam(learning_rate=0.1, b1=2))


def test_hyperparameters_go_by_path():
    tx = gradtx.chain(
        gradtx.clip(1.0),
        gradtx.trace(0.9),
        gradtx.trace(0.5),
        gradtx.accumulate(gradtx.sgd(0.1), every=2),
        gradtx.partition({"a": gradtx.scale(2.0)}, "a"),
        gradtx.named_chain(("mine", gradtx.ema(0.7))),
        deliberate=True,  # each kind of path once
    )
    found = gradtx.hyperparameters(tx)
    assert found["clip.max_delta"] == 1.0
    assert found["trace.decay"] == 0.9
    assert found["trace_2.decay"] == 0.5
    assert found["accumulate.inner.learning_rate"] == 0.1
    assert found["accumulate.every"] == 2
    assert found["partition.transforms.a.step_size"] == 2.0
    assert found["named_chain.mine.decay"] == 0.7


def test_hyperparameter_paths_start_like_state_paths():
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.trace(0.9), gradtx.trace(0.5))
    fields = tx.init({"w": jnp.ones(2)})._fields
    assert [
        path.split(".")[0] for path in gradtx.hyperparameters(tx) if "trace" in path
    ][::3] == list(fields[1:])
