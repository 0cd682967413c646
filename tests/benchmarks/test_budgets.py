"""gradtx's compiled steps cost no more than benchmarks/budgets.py allows."""

import functools
import math

import jax
import pytest

import gradtx
from benchmarks import budgets, observing
from benchmarks._optimizers import optimizer
from benchmarks._subjects import step_of, step_on
from benchmarks._traffic import Traffic, traffic
from benchmarks._trees import abstract, count, many

TREES = budgets.BUDGET_TREES
cases = pytest.mark.parametrize("tree", TREES)
steps = pytest.mark.parametrize("name", budgets.STEPS)


@functools.cache
def measured(subject: str, name: str, tree: str) -> tuple[Traffic, float]:
    """Return a step's traffic, and the bytes of its arguments."""
    shapes = TREES[tree]
    compiled = step_on(subject, name, tuple(shapes.items())).lower().compile()
    arguments = compiled.memory_analysis().argument_size_in_bytes
    return traffic(compiled, count(shapes)), arguments


@cases
@steps
def test_bytes_and_passes(name, tree):
    found, _ = measured("gradtx", name, tree)
    allowed = budgets.STEPS[name]
    assert found.bytes <= allowed.bytes * budgets.ROUNDING
    assert found.passes <= allowed.passes * budgets.ROUNDING


@cases
@steps
def test_kernels(name, tree):
    found, _ = measured("gradtx", name, tree)
    shapes = TREES[tree].values()
    most = budgets.STEPS[name].passes * len(shapes) + budgets.SCALAR_KERNELS
    if name.startswith("clip"):
        most += budgets.SHORT_NORM_KERNELS * sum(len(shape) == 1 for shape in shapes)
    assert found.kernels <= most


@cases
@pytest.mark.parametrize("name", budgets.INSTRUCTIONS)
def test_program_size(name, tree):
    found, _ = measured("gradtx", name, tree)
    each, rest = budgets.INSTRUCTIONS[name]
    assert found.instructions <= each * len(TREES[tree]) + rest


@cases
@steps
def test_peak_is_parameters_state_and_gradients(name, tree):
    found, arguments = measured("gradtx", name, tree)
    assert found.peak <= arguments * budgets.PEAK + budgets.SCALARS


@cases
@steps
def test_no_temporaries(name, tree):
    found, _ = measured("gradtx", name, tree)
    parameters = count(TREES[tree])
    assert found.temporaries <= 4 * budgets.SMALL + budgets.SCALARS / parameters


@cases
@pytest.mark.parametrize("given", observing.OBSERVED)
def test_telemetry_moves_nothing_between_measurements(tree, given):
    plain, _ = measured("gradtx", "clip_adamw", tree)
    chosen = observing.OBSERVED[given]
    tx = gradtx.observe(optimizer(gradtx, "clip_adamw"), every=100, **chosen)
    params, parameters = abstract(TREES[tree]), count(TREES[tree])
    step = step_of(tx, gradtx.apply_updates)
    lowered = step.lower(params, jax.eval_shape(tx.init, params), params)
    found = traffic(lowered.compile(), parameters)
    assert found.bytes <= plain.bytes + budgets.OBSERVED_STATE / parameters
    assert found.kernels <= plain.kernels + budgets.OBSERVED_KERNELS
    # and the branch that measures holds small leaves and little else
    sizes = [math.prod(shape) for shape in TREES[tree].values()]
    small = [size for size in sizes if size < 2**16]
    most = budgets.OBSERVED_SMALL * sum(small) if len(small) >= 8 else 0
    most += budgets.OBSERVED_TEMPORARIES[given] * parameters + budgets.OBSERVED_METRICS
    assert found.temporaries * parameters <= most


@steps
def test_packed_program_does_not_grow_with_leaves(name):
    for leaves in (20, 400):
        shapes = many(leaves, distinct=20)
        step = step_on("gradtx packed", name, tuple(shapes.items()))
        found = traffic(step.lower().compile(), count(shapes))
        allowed = budgets.STEPS[name]
        assert found.kernels <= budgets.PACKED_KERNELS
        assert found.instructions <= budgets.PACKED_INSTRUCTIONS
        assert found.bytes <= allowed.bytes * budgets.ROUNDING
        assert found.temporaries <= 4 * budgets.SMALL + budgets.SCALARS / count(shapes)


def test_program_grows_with_leaves_and_not_with_their_square():
    sizes = {}
    for leaves in (24, 96):
        shapes = {f"w{index:02}": (16, 8) for index in range(leaves)}
        step = step_on("gradtx", "clip_adamw", tuple(shapes.items()))
        found = traffic(step.lower().compile(), count(shapes))
        sizes[leaves] = found.instructions
    assert sizes[96] <= 4.2 * sizes[24]
