"""No step takes its name whose arrays do not come back."""

import os

import jax.numpy as jnp
import numpy as np
import pytest

from gradtx import checkpoint
from gradtx.checkpoint import _save
from gradtx.core import CheckpointError

PARAMS = {
    "w": jnp.arange(6.0).reshape(2, 3),
    "b": jnp.ones(3, jnp.bfloat16),
    "empty": jnp.zeros((0, 3)),
    "int4": jnp.arange(4).astype(jnp.int4),
    "float8": jnp.ones(2, jnp.float8_e4m3fn),
    "bool": np.array([True, False]),
    "complex": np.complex64(1 + 2j) * np.ones(2, np.complex64),
    "number": 3,
}


def test_every_kind_of_array_comes_back(tmp_path):
    path = checkpoint.save(tmp_path, 1, params=PARAMS)
    assert checkpoint.verify(path, arrays=True).step == 1


@pytest.mark.parametrize("wrong", ["left out", "other elements", "other dtype"])
def test_arrays_that_do_not_come_back_are_no_step(tmp_path, monkeypatch, wrong):
    write = _save.write_arrays
    change = {
        "left out": lambda values: values[:-1],
        "other elements": lambda values: [*values[:-1], values[-1] + 1],
        "other dtype": lambda values: [*values[:-1], np.float16(1)],
    }[wrong]
    monkeypatch.setattr(
        _save, "write_arrays", lambda path, values: write(path, change(values))
    )
    with pytest.raises(CheckpointError, match=r"\['z'\] was written"):
        checkpoint.save(tmp_path, 1, params={"a": np.ones(2), "z": np.float32(1)})
    assert os.listdir(tmp_path) == []
