"""The loop that is the limit touches what it says it touches."""

import numpy as np
import pytest

from benchmarks import _limit
from benchmarks._optimizers import MINIMAL

SIZES = [5, 100_003, 500_001]  # one vector, one thread, all threads


def run(name: str, size: int) -> list[np.ndarray]:
    """Return the loop's arrays after one run: gradient, parameter, moments."""
    limit = _limit.contestant(name, size)
    limit.run()
    return getattr(limit.run, "args")[0]  # noqa: B009  a partial call of the loop


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["sgd", "lion", "adamw", "clip_adamw"])
@pytest.mark.parametrize("compiled", [True, False])
def test_every_element_of_every_array_is_written(name, size, compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(_limit, "library", lambda: None)
    g, *written = run(name, size)
    assert np.all(g == np.float32(1e-3))
    assert len(written) == {3: 1, 5: 2, 7: 3, 8: 3}[MINIMAL[name]]
    for index, array in enumerate(written):
        assert np.all(array == array[0])
        assert array[0] != np.float32(1e-3 * (index + 2))


def test_arrays_start_on_a_page():
    assert _limit._aligned(7, 0).ctypes.data % 4096 == 0


def test_denormals_of_the_process_stay():
    _limit.contestant("adam", 1000).run()
    assert np.array([1e-310])[0] * np.float64(1) != 0
