"""The trees are what the tables call them."""

import math

import numpy as np
import pytest

from benchmarks._trees import TREES, arrays, count, shapes


@pytest.mark.parametrize(
    ("tree", "leaves", "parameters"),
    [
        ("one", 1, 64 * 2**20),
        ("gpt2", 148, 124_439_808),
        ("many", 2000, 11e6),
        ("mlp", 10, 244_522),
        ("layers", 8, 14_155_776),
    ],
)
def test_sizes(tree, leaves, parameters):
    found = shapes(tree)
    assert len(found) == leaves
    assert count(found) == pytest.approx(parameters, rel=0.03)


def test_many_leaves_are_of_few_shapes_and_small():
    found = shapes("many")
    assert len(set(found.values())) == 48
    assert max(math.prod(s) for s in found.values()) <= 2**14


@pytest.mark.parametrize("size", ["quick", "tiny"])
def test_smaller_trees_have_fewer_parameters(size):
    for tree in set(TREES) - {"mlp"}:
        assert count(shapes(tree, size)) < count(shapes(tree))


def test_numbers_have_the_shapes():
    numbers = arrays({"w": (3, 4), "b": ()}, scale=2.0, seed=0)
    assert numbers["w"].shape == (3, 4)
    assert numbers["b"].shape == ()
    assert numbers["w"].dtype == np.float32
