"""Kill training at random moments of its saves, and go on from what is left.

    python -m tests.campaigns.kills                100 kills
    python -m tests.campaigns.kills --cases 10     fewer

A loop trains without pause and saves every few steps in the background. What a save was
acknowledged for, by `wait` or by the next `save`, must be found; its contents exact; and
nothing before it lost. Detected are the saves that were torn, harmless the other kills.
"""

from __future__ import annotations

import os
import pathlib
import random
import signal
import sys
import tempfile
import time
from typing import Any, NamedTuple

import numpy as np

from gradtx import checkpoint
from gradtx.core import NoCheckpointError
from tests.campaigns._figures import Figures, options, report
from tests.campaigns._processes import Died, Server
from tests.campaigns._states import raw

CASES = 100
EVERY = 5
#: Elements of an array; there are three, in all of some MB.
SIZE = 300_000


class Progress(NamedTuple):
    """What a killed loop had told.

    Attributes:
      begun: the step that it went on from; None where it had not begun to train.
      saved: the newest step whose save was acknowledged, or None.
      trained: the newest step that was trained.
    """

    begun: int | None
    saved: int | None
    trained: int


def trees(step: int) -> dict[str, Any]:
    """Return the parameters and moments after a step."""
    counting = np.arange(SIZE, dtype=np.uint32) * np.uint32(2654435761)
    mix = counting ^ np.uint32(step * 40503)
    return {
        "params": {"w": mix, "b": np.uint32(step)},
        "opt_state": {"mu": mix[::-1].copy(), "nu": mix >> 1, "count": np.int32(step)},
    }


def train(run: pathlib.Path, log: pathlib.Path, size: int) -> None:
    """Go on from the newest step, for ever."""
    with (
        open(log, "a", buffering=1) as told,
        checkpoint.Manager(run, keep=3) as manager,
    ):
        step = 0
        good = manager.latest_good()
        if good is not None:
            found = manager.restore(**trees(0))
            step = found.step
            if raw(found.trees) != raw(trees(step)):
                told.write(f"wrong {step}\n")
            if found.skipped:
                told.write(f"skipped {[str(path) for path, _ in found.skipped]}\n")
        told.write(f"begun {step}\n")
        before = None
        while True:
            step += 1
            time.sleep(0.002)  # the work of a step
            told.write(f"trained {step}\n")
            if step % EVERY:
                continue
            manager.save(step, **trees(step))
            if before is not None:
                told.write(f"saved {before}\n")
            before = step
            if step % (4 * EVERY) == 0:
                manager.wait()
                told.write(f"saved {step}\n")


def campaign(
    server: Server, cases: int, seed: int, directory: pathlib.Path
) -> list[Figures]:
    """Return the figures.

    Args:
      server: to run the loop.
      cases: how many times it is killed.
      seed: when.
      directory: an empty one to work in.
    """
    draw, row = random.Random(seed), Figures("kills")
    run, newest, trained = directory / "run", None, 0
    for case in range(cases):
        log = directory / f"log-{case}"
        log.touch()
        process = server.start(train, run, log, SIZE)
        _until(log, "begun", 1)
        _until(log, "saved", draw.randrange(4))
        time.sleep(draw.uniform(0, 0.3))
        os.kill(process, signal.SIGKILL)
        if not isinstance(server.finish(process), Died):
            row.fail(f"kill {case}: the loop had ended")
        row.cases += 1
        newest, trained = _judge(row, case, log, newest, trained)
        _look(row, case, run, newest)
    return [row]


def _until(log: pathlib.Path, word: str, count: int) -> None:
    began = time.monotonic()
    while log.read_text().count(word) < count:
        if time.monotonic() - began > 60:
            raise TimeoutError(f"{log}: {log.read_text()!r}")
        time.sleep(0.005)


def _judge(
    row: Figures, case: int, log: pathlib.Path, newest: int | None, trained: int
) -> tuple[int | None, int]:
    """Compare where the loop began with what had been acknowledged before."""
    begun = 0
    for line in log.read_text().splitlines():
        word, _, value = line.partition(" ")
        if word == "begun":
            begun = int(value)
            row.walked += begun >= (newest or 0)  # more, where it had no time to say so
            if begun < (newest or 0):
                row.lost += 1
                row.fail(f"kill {case}: begins at {begun}; {newest} was acknowledged")
            if trained - begun > 2 * EVERY:
                row.fail(f"kill {case}: {trained - begun} steps of training are lost")
        elif word == "trained":
            trained = int(value)
        elif word == "saved":
            newest = int(value)
        elif value:
            row.silent += word == "wrong"
            row.fail(f"kill {case}: {line}")
    return newest, trained


def _look(row: Figures, case: int, run: pathlib.Path, newest: int | None) -> None:
    """Look at the run as a kill left it."""
    try:
        good = checkpoint.latest_good(run)
    except NoCheckpointError:
        if newest is not None:
            row.lost += 1
            row.fail(f"kill {case}: no step is left, and {newest} was acknowledged")
        return
    torn = any(".writing." in name for name in os.listdir(run))
    row.detected += torn
    row.harmless += not torn
    if good.skipped:
        row.fail(f"kill {case}: {good.skipped} are not good")


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign."""
    given = options("Kill training while it saves.", CASES).parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory, Server() as server:
        rows = campaign(server, given.cases, given.seed, pathlib.Path(directory))
    return report("kills", rows)


if __name__ == "__main__":
    sys.exit(main())
