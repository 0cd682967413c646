"""What holds of the list of transformations, and of what their defaults are.

`python -m tests.test_catalogue` writes the golden files anew: a changed default then
shows in the diff, and wants a line in the CHANGELOG. `tests/testing` checks the
properties of every transformation in the list.
"""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
import gradtx.testing
from gradtx.core import _call, is_described_link

GOLDEN = pathlib.Path(__file__).parent / "golden"
CATALOGUE = gradtx.testing.catalogue()
EVERY = pytest.mark.parametrize("name", sorted(CATALOGUE))
#: Factories of functions: what they make cannot be written down.
OPAQUE = {"measure_with_ema", "snapshot", "stateless", "stateless_with_tree_map"}


def test_every_factory_is_in_the_catalogue():
    made = {
        name.removeprefix("gradtx.")
        for name, factory in _call.registered().items()
        if name.startswith("gradtx.")
        and hasattr(sys.modules[factory.__module__], factory.__name__)  # no doctest's
        and is_described_link({"call": name})
    }
    assert made - OPAQUE == set(CATALOGUE)


@EVERY
def test_prints_as_the_call_that_makes_it(name):
    tx = CATALOGUE[name]
    assert tx.name == name
    assert eval(repr(tx), dict(vars(gradtx))) == tx


@EVERY
def test_defaults_are_those_of_the_golden_file(name):
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    assert gradtx.describe(CATALOGUE[name]) == golden


def test_no_golden_file_is_left_over():
    assert {p.stem for p in GOLDEN.glob("*.json")} == set(CATALOGUE)


def test_fresh_state_lies_beside_sharded_parameters():
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    rows = jax.sharding.NamedSharding(mesh, jax.P("data"))
    everywhere = jax.sharding.NamedSharding(mesh, jax.P())
    params = {"w": jax.device_put(jnp.ones((16, 2)), rows)}
    for name, tx in CATALOGUE.items():
        for leaf in jax.tree.leaves(tx.init(params)):
            expected = rows if leaf.shape == (16, 2) else everywhere
            assert leaf.sharding.is_equivalent_to(expected, leaf.ndim), name


def _write() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for path in GOLDEN.glob("*.json"):
        path.unlink()
    for name, tx in CATALOGUE.items():
        text = json.dumps(gradtx.describe(tx), indent=1, ensure_ascii=False)
        (GOLDEN / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    _write()
