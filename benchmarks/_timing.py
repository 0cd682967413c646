"""Time several things in turn, so that what disturbs one disturbs all of them."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

Name = TypeVar("Name", bound=Hashable)


class Contestant(NamedTuple):
    """Something to time: `run` does it once, `wait` returns when all runs are done."""

    run: Callable[[], object]
    wait: Callable[[], object] = lambda: None


@contextmanager
def no_garbage() -> Iterator[None]:
    """Collect garbage now, and none until the block ends."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def interleaved(
    contestants: Mapping[Name, Contestant],
    *,
    rounds: int = 7,
    turn: float = 0.1,
    patience: float = 60.0,
    pipelined: bool = False,
) -> dict[Name, list[float]]:
    """Return seconds for one run of each contestant, once for each round.

    Every round gives each contestant one turn, starting from another one each time.
    Ratios are taken within a round: see `ratio`.

    Args:
      contestants: what to time, by name. Each has run once before, outside.
      rounds: turns of each.
      turn: seconds that a turn lasts at least; short runs are repeated within it.
      patience: seconds after which rounds end, once there have been three.
      pipelined: wait once a turn and not after every run: for GPUs, where the time
        between two waits is the device's and not the launches'.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    repeats = {}
    for name, contestant in contestants.items():
        _turn(contestant, 1, pipelined)  # compiles, allocates, warms caches
        once = _turn(contestant, 1, pipelined)
        repeats[name] = max(1, min(10_000, round(turn / once)))
    begin = time.perf_counter()
    with no_garbage():
        for round_ in range(rounds):
            if round_ >= 3 and time.perf_counter() - begin > patience:
                break
            start = round_ % len(names)
            for name in names[start:] + names[:start]:
                time.sleep(0.002)  # threads of the one before go to sleep
                seconds[name].append(_turn(contestants[name], repeats[name], pipelined))
    return seconds


def _turn(contestant: Contestant, repeats: int, pipelined: bool) -> float:
    run, wait = contestant
    wait()
    begin = time.perf_counter()
    for _ in range(repeats):
        run()
        if not pipelined:
            wait()
    wait()
    return (time.perf_counter() - begin) / repeats


def median(seconds: list[float]) -> float:
    """Return the middle of the rounds."""
    return statistics.median(seconds)


def ratio(seconds: list[float], base: list[float]) -> float:
    """Return the middle of the ratios to `base` within each round."""
    return statistics.median(a / b for a, b in zip(seconds, base, strict=True))


def once(run: Callable[[], object]) -> float:
    """Return the seconds of a single run."""
    with no_garbage():
        begin = time.perf_counter()
        run()
        return time.perf_counter() - begin
