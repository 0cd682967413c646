"""Set JAX up for all tests and doctests: 8 host devices, strict promotion."""

import gc
import pathlib

import jax
import pytest

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_threefry_partitionable", True)


@pytest.fixture(autouse=True, scope="module")
def _few_programs():
    """Forget compiled programs before they take all the mappings that Linux grants.

    Each takes a dozen; after 65,530 the compiler fails to load another one.
    """
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 30_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True)
def _strict_promotion():
    """Run gradtx under the strictest promotion; peers need `lenient`."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def lenient(_strict_promotion):
    """Promote dtypes as JAX does by default, for tests that run optax or Flax."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def x64():
    """Compute in 64 bits within one test."""
    with jax.enable_x64(True):
        yield
