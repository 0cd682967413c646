"""Set JAX up for all tests and doctests: 8 host devices, strict promotion."""

import functools
import gc
import os
import pathlib
import tempfile

import jax
import pytest

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_threefry_partitionable", True)

#: Most of the time of the tests is XLA's compiler, and most of that is making machine
#: code fast. What XLA does before that stays: which operations are left, and which are
#: fused. These settings make it three times as quick, and move last bits.
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
#: What is compiled as users get it all the same: what claims something of programs, or
#: the same bits of two of them.
SHIPPED = (
    "tests/benchmarks/",
    "tests/examples/test_digits.py",
    "tests/guard/",
    "tests/optimizers/test_against_",
    "tests/precision/",
    "tests/telemetry/test_observe.py::test_between_measurements_a_donated_step",
    "tests/telemetry/test_observe.py::test_updates_and_states_keep_every_bit",
    "tests/test_temporaries.py",
    # a product with parameters that cancels but for rounding, which decides the steps
    "tests/testing/test_conformance.py::test_numbers[momo_adam-P5]",
)

flags = os.environ.get("XLA_FLAGS", "")
able = quick = False  # whether programs can be, and are now, compiled quickly


def pytest_addoption(parser):
    parser.addoption(
        "--as-shipped",
        action="store_true",
        help="compile everything as users get it, which takes three times as long",
    )


def pytest_configure(config):
    """Be able to compile quickly, unless all is asked for as shipped."""
    global able
    if config.getoption("as_shipped"):
        return
    try:
        from jax._src import compiler

        make = compiler.get_compile_options
        jax.jit(lambda x: x + 1, compiler_options=QUICK)(0)
    except Exception:  # another JAX: everything passes as shipped, and takes longer
        return

    @functools.wraps(make)
    def options(*args, **kwargs):
        made = make(*args, **kwargs)
        if quick:
            made.env_option_overrides = [*QUICK.items(), *made.env_option_overrides]
        return made

    compiler.get_compile_options = options
    able = True


def pytest_collection_modifyitems(items):
    """Mark what is compiled as shipped."""
    for item in items:
        if item.nodeid.startswith(SHIPPED):
            item.add_marker("shipped")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Choose how the next test's programs are compiled, before its fixtures are made."""
    global quick
    was, quick = quick, able and item.get_closest_marker("shipped") is None
    if was and not quick:
        jax.clear_caches()
    # for the processes that it starts; XLA has read those of this one
    set_to = [f"--{name}={value}" for name, value in QUICK.items()] if quick else []
    os.environ["XLA_FLAGS"] = " ".join([flags, *set_to]).strip()


@pytest.fixture(autouse=True, scope="session")
def _scratch(tmp_path_factory):
    """Clear away what tests, and what they call, leave among temporary files.

    What W&B, TensorBoard and torch put there is theirs, and they leave it.
    """
    tmp_path_factory.getbasetemp()  # pytest's own stays where it is
    with (
        tempfile.TemporaryDirectory(prefix="gradtx-", ignore_cleanup_errors=True) as it,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("TMPDIR", it)
        patch.setattr(tempfile, "tempdir", None)
        yield


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
