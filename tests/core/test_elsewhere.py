"""Rooms show the names that optax files there."""

import pytest

import gradtx
from gradtx import schedules, transforms


def test_names_are_found_where_optax_has_them():
    assert transforms.masked is gradtx.masked
    assert transforms.chain is gradtx.chain
    assert schedules.inject_hyperparams is gradtx.inject_hyperparams


@pytest.mark.parametrize("room", [schedules, transforms])
def test_other_names_are_not(room):
    with pytest.raises(AttributeError, match="has no attribute 'adamw'"):
        _ = room.adamw
