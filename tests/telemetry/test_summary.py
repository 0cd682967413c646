"""The table of a state says what will be allocated, and allocates nothing."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import gradtx
from gradtx import Role, testing
from gradtx.telemetry._summary import state_bytes, summary

CATALOGUE = testing.catalogue()
SHAPES = {"enc": {"w": (16, 8), "b": (8,)}, "wide": (8, 16, 8), "one": ()}


def _params(dtype=jnp.float32):
    made = jax.tree.map(jnp.ones, SHAPES, is_leaf=lambda x: isinstance(x, tuple))
    return jax.tree.map(lambda x: x.astype(dtype), made) | {"one": jnp.ones(())}


def _allocated(tree):
    return sum(x.nbytes for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_equals_what_init_allocates(name):
    tx, params = CATALOGUE[name], _params(jnp.bfloat16)
    table, state = summary(tx, params), tx.init(params)
    assert table.bytes == _allocated(state) == state_bytes(state)
    assert table.params.bytes == _allocated(params)
    assert sum(row.arrays for row in table.rows) == len(jax.tree.leaves(state))
    assert sum(row.elements for row in table.rows) == gradtx.core.size(state)


@pytest.mark.parametrize("name", ["adamw", "adafactor", "lbfgs", "muon", "add_noise"])
def test_equals_what_init_allocates_in_64_bits(name, x64):
    params = {"w": jnp.ones((4, 3), jnp.float64), "b": jnp.ones(3, jnp.float32)}
    tx = CATALOGUE[name]
    assert summary(tx, params).bytes == _allocated(tx.init(params))


def _sharded():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    specs = {
        "enc": {"w": P("data"), "b": P()},
        "wide": P(None, None, "data"),
        "one": P(),
    }
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    return jax.device_put(_params(), shardings)


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_equals_what_each_device_holds(name):
    tx, params = CATALOGUE[name], _sharded()
    state = tx.init(params)
    held = dict.fromkeys(jax.devices(), 0)
    for x in jax.tree.leaves(state):
        for shard in x.addressable_shards:
            held[shard.device] += shard.data.nbytes
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), params
    )
    for given in (params, abstract):
        table = summary(tx, given)
        assert table.devices == 8
        assert {table.bytes_per_device} == set(held.values())
        assert table.bytes == _allocated(state)
    assert {state_bytes(state, per_device=True)} == set(held.values())
    assert table.params.bytes_per_device == (128 / 8 + 8 + 1024 / 8 + 1) * 4


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_allocates_nothing(name):
    shapes = {"w": (10**6, 10**6), "b": (10**6,)}
    params = {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in shapes.items()}
    before = len(jax.live_arrays())
    table = summary(CATALOGUE[name], params)
    assert len(jax.live_arrays()) <= before + 8  # numbers of the optimizer itself
    assert table.params.elements == 10**12 + 10**6


def test_a_row_says_what_a_field_is():
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.adamw(1e-3, mu_dtype=jnp.bfloat16))
    table = summary(tx, {"w": jnp.ones((10, 10)), "b": jnp.ones(100)})
    rows = {row.path: row for row in table.rows}
    assert list(rows) == [
        "adamw.scale_by_adam.count",
        "adamw.scale_by_adam.mu",
        "adamw.scale_by_adam.nu",
        "adamw.scale_by_learning_rate.count",
        "adamw.scale_by_learning_rate.step_size",
    ]
    mu = rows["adamw.scale_by_adam.mu"]
    assert (mu.link, mu.state, mu.role) == (
        "scale_by_adam",
        "ScaleByAdamState",
        Role.PER_PARAM.value,
    )
    assert (mu.dtypes, mu.arrays, mu.elements, mu.bytes) == (("bfloat16",), 2, 200, 400)
    assert mu.bytes_per_param == 2.0
    assert table.bytes_per_param == (400 + 800 + 12) / 200
    assert table.optimizer == repr(tx)


def test_mixed_dtypes_are_named_by_size():
    params = {"a": jnp.ones(2), "b": jnp.ones(100, jnp.bfloat16), "i": jnp.arange(5)}
    table = summary(gradtx.trace(0.9), params)
    assert table.params.dtypes == ("bfloat16", "int32", "float32")
    assert (table.params.arrays, table.gradients.arrays) == (3, 2)
    assert table.gradients.bytes == 208


def test_prints_an_aligned_table():
    shown = str(summary(gradtx.adam(1e-3), _params()))
    head, blank, *lines = shown.splitlines()
    assert (head, blank) == ("adam(0.001)", "")
    headings = [line for line in lines if line.endswith(")")]
    assert headings == [
        "scale_by_adam (ScaleByAdamState)",
        "scale_by_learning_rate (ScaleByScheduleState)",
    ]
    ends = {len(line) for line in lines if line not in headings}
    assert ends == {len(lines[1])}, "the last column is aligned to the right"
    assert "per device" not in lines[0]
    assert [line.split()[0] for line in lines[2:-4]] == [
        "scale_by_adam",
        "count",
        "mu",
        "nu",
        "scale_by_learning_rate",
        "count",
        "step_size",
    ]
    assert [line.split()[0] for line in lines[-3:]] == [
        "state",
        "parameters",
        "gradients",
    ]
    assert "per device" in str(summary(gradtx.adam(1e-3), _sharded()))


def test_deep_states_fit_a_terminal():
    schedule = gradtx.warmup_cosine_decay_schedule(0.0, 1e-2, 5, 50)
    tx = gradtx.chain(
        gradtx.clip_by_global_norm(0.5),
        gradtx.partition(
            {
                "train": gradtx.inject_hyperparams(gradtx.adamw)(
                    schedule, mask=gradtx.ndim_at_least(2)
                ),
                "still": gradtx.set_to_zero(),
            },
            gradtx.label_paths({"^one": "still"}, default="train"),
        ),
    )
    table = summary(gradtx.observe(tx), _params())
    lines = str(table).splitlines()
    # the path of a field is its heading's, then a dot, then its own name
    found, above = [], ""
    for line in lines[lines.index("") + 3 :]:
        if line.startswith("  "):
            found.append(".".join(filter(None, (above, line.split()[0]))))
        elif line.endswith(")"):
            above = line.split()[0]
        elif line == "ObserveState":
            above = ""
    assert found == [row.path for row in table.rows]
    assert max(len(line) for line in lines if not line.endswith(")")) <= 88


def test_gradients_are_of_one_of_two_sets():
    pair = gradtx.LookaheadParams.init_synced(_sharded())
    table = summary(gradtx.lookahead(gradtx.sgd(0.1), 5, 0.5), pair)
    assert table.gradients.bytes == table.params.bytes / 2
    assert table.gradients.bytes_per_device == table.params.bytes_per_device / 2


def test_html_escapes_what_it_shows():
    shown = summary(gradtx.stateless(lambda g, p: g), {"w": jnp.ones(1)})._repr_html_()
    assert "<table>" in shown
    assert "&lt;lambda&gt;" in shown
    assert "<lambda>" not in shown


def test_is_plain_data():
    table = summary(gradtx.adam(1e-3), _params())
    data = json.loads(json.dumps(table.to_dict()))
    assert data["bytes"] == table.bytes
    assert data["rows"][1]["path"] == "scale_by_adam.mu"
    assert data["params"]["bytes"] == table.params.bytes


def test_packed_parameters():
    packed = gradtx.pack({"w": jnp.ones((3, 5)), "b": jnp.ones(7)})
    tx = gradtx.adam(1e-3)
    table = summary(tx, packed)
    assert table.bytes == _allocated(tx.init(packed))
    assert table.params.elements == sum(x.size for x in packed.arrays.values())


def test_optax_state_has_no_roles(lenient):
    table = summary(optax.adam(1e-3), _params())
    assert table.bytes == _allocated(optax.adam(1e-3).init(_params()))
    assert [row.path for row in table.rows] == ["[0].count", "[0].mu", "[0].nu"]
    assert {row.role for row in table.rows} == {""}


def test_numbers_and_empty_trees():
    assert summary(gradtx.trace(0.9), {"w": np.ones(3, np.float32)}).bytes == 12
    empty = summary(gradtx.adam(1e-3), {})
    assert (empty.params.bytes, empty.bytes) == (0, 12)
    assert "adam" in str(empty)
    assert str(summary(gradtx.clip(1.0), {"w": jnp.ones(1)}))


def test_bytes_of_traced_state():
    seen = []
    params = {"w": jnp.ones(3)}
    jax.jit(lambda p: seen.append(state_bytes(gradtx.adam(1.0).init(p))))(params)
    assert seen == [24 + 12]
