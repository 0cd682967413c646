"""States go on in other optimizers by name, bit for bit, and what begins anew is told."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import checkpoint
from gradtx.checkpoint import _migrate
from tests.checkpoint._sides import Side, filled, numbers, side

MATRICES = gradtx.ndim_at_least(2)
ADAMW = gradtx.adamw(1e-3, weight_decay=0.01)
COSINE = gradtx.cosine_decay_schedule(1e-3, 100)
CLIPPED = gradtx.chain(gradtx.clip_by_global_norm(1.0), ADAMW)
LINKS = gradtx.named_chain(
    ("moments", gradtx.scale_by_adam()),
    ("decay", gradtx.add_decayed_weights(0.01)),
    ("rate", gradtx.scale_by_learning_rate(1e-3)),
)
THEN = {
    "adam": gradtx.adam(1e-3),
    "adamw": ADAMW,
    "clipped": CLIPPED,
    "accumulated": gradtx.accumulate(ADAMW, every=2),
    "traces": gradtx.chain(gradtx.trace(0.9), gradtx.trace(0.5), gradtx.scale(-0.1)),
    "groups": gradtx.partition({True: ADAMW, False: gradtx.adamw(0.1)}, MATRICES),
}
ALL = ""
TRUE, FALSE = ".inner_states[True].inner_state", ".inner_states[False].inner_state"


class Case(NamedTuple):
    """Another optimizer, and where what was saved lies in its state.

    Attributes:
      then: what was saved, by its name in `THEN`.
      tx: the optimizer that goes on.
      places: pairs of a place in its state and the place in the saved one that it
        continues; what is in none begins anew.
      allow: hyperparameters that change.
    """

    then: str
    tx: Any
    places: tuple[tuple[str, str], ...]
    allow: tuple[str, ...] = ()


CASES = {
    "clip in front": Case(
        "adamw", gradtx.chain(gradtx.clip(1.0), ADAMW), ((".adamw", ALL),)
    ),
    "decay": Case("adam", ADAMW, ((ALL, ALL),)),
    "average behind": Case(
        "adamw", gradtx.chain(ADAMW, gradtx.ema(0.9)), ((".adamw", ALL),)
    ),
    "schedule beside": Case(
        "adamw",
        gradtx.chain(ADAMW, gradtx.scale_by_schedule(COSINE)),
        ((".adamw", ALL),),
    ),
    "schedule in place of a number": Case(
        "adamw",
        gradtx.adamw(COSINE, weight_decay=0.01),
        ((ALL, ALL),),
        ("learning_rate",),
    ),
    "mask of the decay": Case(
        "adamw",
        gradtx.adamw(1e-3, weight_decay=0.01, mask=MATRICES),
        ((ALL, ALL),),
        ("mask",),
    ),
    "masked": Case("adamw", gradtx.masked(ADAMW, MATRICES), ((".inner_state", ALL),)),
    "accumulated": Case(
        "adamw", gradtx.accumulate(ADAMW, every=2), ((".inner_opt_state", ALL),)
    ),
    "accumulated no more": Case("accumulated", ADAMW, ((ALL, ".inner_opt_state"),)),
    "observed": Case("adamw", gradtx.observe(ADAMW), ((".inner_state", ALL),)),
    "guarded": Case("adamw", gradtx.guarded(ADAMW), ((".inner_state", ALL),)),
    "guarded, with a snapshot": Case(
        "adamw",
        gradtx.guarded(LINKS, roll_back_after=3),
        (
            (".inner_state.moments", ".scale_by_adam"),
            (".inner_state.rate", ".scale_by_learning_rate"),
        ),
    ),
    "loss scale": Case(
        "adamw", gradtx.dynamic_loss_scaling(ADAMW), ((".inner_state", ALL),)
    ),
    "chained and named": Case(
        "adamw", gradtx.named_chain(("opt", ADAMW)), ((".opt", ALL),)
    ),
    "links of its own": Case(
        "adamw",
        LINKS,
        ((".moments", ".scale_by_adam"), (".rate", ".scale_by_learning_rate")),
    ),
    "injected": Case(
        "adamw",
        gradtx.inject_hyperparams(gradtx.adamw)(1e-3, weight_decay=0.01),
        ((".inner_state", ALL),),
    ),
    "two groups": Case(
        "adamw",
        gradtx.partition({True: ADAMW, False: gradtx.adamw(0.1)}, MATRICES),
        ((TRUE, ALL), (FALSE, ALL)),
    ),
    "one of two groups": Case(
        "adamw",
        gradtx.partition({True: ADAMW, False: gradtx.sgd(0.1)}, MATRICES),
        ((TRUE, ALL), (FALSE, ALL)),
    ),
    "all at once": Case(
        "clipped",
        gradtx.guarded(gradtx.observe(gradtx.accumulate(CLIPPED, every=2))),
        ((".inner_state.inner_state.inner_opt_state", ALL),),
    ),
    "another momentum behind": Case(
        "traces",
        gradtx.chain(
            gradtx.trace(0.9), gradtx.trace(0.5), gradtx.ema(0.9), gradtx.scale(-0.1)
        ),
        ((ALL, ALL),),
    ),
    "another algorithm": Case("adam", gradtx.adabelief(1e-3), ((ALL, ALL),)),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What was saved under a name, and where."""
    folder = tmp_path_factory.mktemp("runs")

    @functools.cache
    def of(name):
        then = side(THEN[name])
        then = Side(then.tx, filled(then.trees))
        checkpoint.save(folder / name, 1000, tx=then.tx, **then.trees)
        return then, folder / name

    return of


def by_path(tree):
    """Return the leaves of a tree as bytes, by path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): numbers(leaf) for path, leaf in leaves}


@pytest.mark.parametrize("name", CASES)
def test_states_go_on_in_another_optimizer(name, runs):
    case = CASES[name]
    then, run = runs(case.then)
    params = then.trees["params"]
    fresh = filled(jax.eval_shape(case.tx.init, params), seed=5)
    back = checkpoint.restore(
        run,
        tx=case.tx,
        migrate=True,
        allow_hyperparameters=case.allow,
        params=params,
        opt_state=fresh,
    )
    old, new, got = map(by_path, (then.trees["opt_state"], fresh, back["opt_state"]))
    told = {c.path.removeprefix("opt_state"): c for c in back.changes}
    continued = set()
    for path, value in got.items():
        source = next(
            (
                source
                for here, there in case.places
                if path.startswith(here)
                and (source := there + path.removeprefix(here)) in old
            ),
            None,
        )
        if source is None:
            assert value == new[path], f"{path} does not begin anew"
            assert told[path].then == "absent"
            assert "begins anew" in told[path].now
        else:
            continued.add(source)
            assert value == old[source], f"{path} does not go on"
            assert path not in told or told[path].then != "absent"
    for path in old.keys() - continued:
        assert told[path].now == "dropped"
    if not case.allow:
        assert back.changes[0].kind == "optimizer"
    assert jax.tree.structure(back["opt_state"]) == jax.tree.structure(fresh)


def test_a_new_count_begins_at_0_and_says_so(runs):
    then, run = runs("adamw")
    tx = gradtx.chain(ADAMW, gradtx.scale_by_schedule(COSINE))
    params = then.trees["params"]
    back = checkpoint.restore(
        run, tx=tx, migrate=True, params=params, opt_state=tx.init(params)
    )
    text = "leaf opt_state.scale_by_schedule.count: absent -> int32[] = 0, begins anew"
    assert text in map(str, back.changes)
    state = back["opt_state"]
    later = gradtx.tree.set(state.scale_by_schedule, count=back.step)
    assert int(later.count) == 1000


def test_two_groups_can_give_their_buffers_away(runs):
    then, run = runs("adamw")
    tx = CASES["two groups"].tx
    params = then.trees["params"]
    back = checkpoint.restore(
        run, tx=tx, migrate=True, params=params, opt_state=tx.init(params)
    )
    leaves = jax.tree.leaves(back["opt_state"])
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


@pytest.mark.parametrize(
    ("then", "tx", "told"),
    [
        pytest.param("groups", ADAMW, ".scale_by_adam.count", id="groups merged"),
        pytest.param(
            "traces",
            gradtx.named_chain(
                ("slow", gradtx.trace(0.9)),
                ("fast", gradtx.trace(0.5)),
                ("rate", gradtx.scale(-0.1)),
            ),
            ".slow.trace['enc']['b']",
            id="two links of one class renamed",
        ),
    ],
)
def test_what_could_be_several_raises(then, tx, told, runs):
    saved, run = runs(then)
    params = saved.trees["params"]
    with pytest.raises(gradtx.MismatchError, match="several leaves") as caught:
        checkpoint.restore(
            run, tx=tx, migrate=True, params=params, opt_state=tx.init(params)
        )
    assert f"opt_state{told}" in str(caught.value)


def test_a_hyperparameter_inside_a_new_wrapper_is_not_hidden(runs):
    then, run = runs("adamw")
    tx = gradtx.observe(gradtx.chain(gradtx.clip(1.0), gradtx.adamw(1e-2)))
    params = then.trees["params"]
    trees = {"params": params, "opt_state": tx.init(params)}
    with pytest.raises(gradtx.MismatchError) as caught:
        checkpoint.restore(run, tx=tx, migrate=True, **trees)
    assert "inner.adamw.learning_rate: 0.001 -> 0.01" in str(caught.value)
    allow = ["inner.adamw.learning_rate", "inner.adamw.weight_decay"]
    checkpoint.restore(run, tx=tx, migrate=True, allow_hyperparameters=allow, **trees)


def test_other_shapes_and_parameters_are_not_carried_over(runs):
    _, run = runs("adamw")
    tx = gradtx.chain(gradtx.clip(1.0), ADAMW)
    grown = filled(side(tx, {"enc": {"b": (5,), "w": (4, 3)}, "out": (3, 2)}).trees)
    with pytest.raises(
        gradtx.MismatchError, match=r"float32\[3\], and here is float32\[5\]"
    ):
        checkpoint.restore(run, tx=tx, migrate=True, **grown)
    more = filled(
        side(tx, {"enc": {"b": (3,), "w": (4, 3)}, "out": (3, 2), "z": (1,)}).trees
    )
    with pytest.raises(gradtx.MismatchError, match=r"params\['z'\] was not saved"):
        checkpoint.restore(run, tx=tx, migrate=True, **more)


def test_what_begins_anew_needs_a_value(runs):
    _, run = runs("adamw")
    tx = gradtx.observe(ADAMW)
    with pytest.raises(gradtx.ArgumentError, match=r"Give arrays: opt_state=tx.init"):
        checkpoint.restore(run, tx=tx, migrate=True, **side(tx).trees)


def test_an_injected_rate_that_is_allowed_to_change_is_the_new_one(tmp_path):
    make = gradtx.inject_hyperparams(gradtx.adam)
    then = side(make(1e-3))
    params = filled(then.trees["params"])
    state = make(1e-3).init(params)
    state = state._replace(count=jnp.asarray(7, jnp.int32))
    checkpoint.save(tmp_path, 7, tx=make(1e-3), params=params, opt_state=state)
    new = make(1e-2)
    like = {"params": params, "opt_state": new.init(params)}
    back = checkpoint.restore(
        tmp_path, tx=new, allow_hyperparameters=["learning_rate"], **like
    )
    got = back["opt_state"]
    assert float(got.hyperparams["learning_rate"]) == np.float32(1e-2)
    assert float(got.hyperparams["b2"]) == np.float32(0.999)
    assert int(got.count) == 7
    assert [c.path for c in back.changes if c.kind == "leaf"] == [
        "opt_state.hyperparams['learning_rate']"
    ]


def versioned(number: int, **fields: Any) -> Any:
    """Return the class of a state as it is in one version of a program."""
    made: Any = NamedTuple("MovedState", list(fields.items()))
    made.schema_version = number
    return made


FIRST = versioned(1, momentum=gradtx.PerParam, steps=gradtx.Count)
SECOND = versioned(2, momentum=gradtx.PerParam, count=gradtx.Count)
THIRD = versioned(3, mu=gradtx.PerParam, count=gradtx.Count, peak=gradtx.Scalar)


def link(version: int) -> Any:
    """Return the link as its program has it at a version."""

    @gradtx.transformation
    def moved():
        """Keep a state."""

        def init(params):
            zero, zeros = jnp.zeros((), jnp.int32), gradtx.tree.zeros_like(params)
            if version == 1:
                return FIRST(zeros, zero)
            if version == 2:
                return SECOND(zeros, zero)
            return THIRD(zeros, zero, jnp.zeros((), jnp.float32))

        def update(updates, state, params=None, **extra):
            return updates, state

        return init, update

    return moved()


@pytest.fixture
def versions(monkeypatch):
    """Begin without migrations."""
    monkeypatch.setattr(_migrate, "_MIGRATIONS", {})


def save_version(version: int, run: Any) -> Any:
    params = {"w": jnp.arange(3, dtype=jnp.float32), "v": jnp.ones((2, 2))}
    tx = link(version)
    state = filled(jax.eval_shape(tx.init, params))
    checkpoint.save(run, 1, tx=tx, params=params, opt_state=state)
    return params, state


def test_migrations_lead_from_version_1_to_3(versions, tmp_path):
    params, state = save_version(1, tmp_path)

    @checkpoint.migration("MovedState", 1)
    def rename(fields):
        return {"momentum": fields["momentum"], "count": fields["steps"]}

    @checkpoint.migration("MovedState", 2)
    def add_peak(fields):
        largest = max(np.abs(x).max() for x in fields["momentum"].values())
        peak = {"": np.asarray(largest, np.float32)}
        return {"mu": fields["momentum"], "count": fields["count"], "peak": peak}

    tx = link(3)
    abstract = jax.eval_shape(tx.init, params)
    back = checkpoint.restore(tmp_path, tx=tx, params=params, opt_state=abstract)
    got = back["opt_state"]
    assert numbers(got.mu) == numbers(state.momentum)
    assert int(got.count) == int(state.steps) == 7
    assert float(got.peak) == max(abs(x).max() for x in jax.tree.leaves(state.momentum))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(got))


def test_a_migration_that_is_missing_is_named_with_its_decorator(versions, tmp_path):
    params, _ = save_version(1, tmp_path)
    checkpoint.migration("MovedState", 1)(lambda fields: fields)
    tx = link(3)
    with pytest.raises(gradtx.MismatchError) as caught:
        checkpoint.restore(tmp_path, tx=tx, params=params, opt_state=tx.init(params))
    assert "from 2 to 3" in str(caught.value)
    assert "@gradtx.checkpoint.migration('MovedState', 2)" in str(caught.value)


def test_a_checkpoint_of_a_newer_program_is_refused(versions, tmp_path):
    params, _ = save_version(3, tmp_path)
    tx = link(2)
    with pytest.raises(gradtx.MismatchError, match="version 3 in the checkpoint"):
        checkpoint.restore(tmp_path, tx=tx, params=params, opt_state=tx.init(params))


def test_what_a_migration_returns_must_fit(versions, tmp_path):
    params, _ = save_version(1, tmp_path)
    checkpoint.migration("MovedState", 1)(
        lambda fields: {"momentum": fields["momentum"]}
    )
    tx = link(2)
    with pytest.raises(gradtx.MismatchError, match=r"opt_state.count: absent -> int32"):
        checkpoint.restore(tmp_path, tx=tx, params=params, opt_state=tx.init(params))


def test_a_second_migration_of_one_version_is_an_error(versions):
    checkpoint.migration("MovedState", 1)(lambda fields: fields)
    with pytest.raises(gradtx.ArgumentError, match="already"):
        checkpoint.migration("MovedState", 1)
