"""Let every file-system call of a save be the last one, or fail.

    python -m tests.campaigns.crashes                each call, in three ways
    python -m tests.campaigns.crashes --cases 100    a sample

Counted are the calls of Python and of TensorStore's C++ code. Whatever breaks, the step
before stays as it was, the new one is whole or not there, the caller is told, and the
next save works.
"""

from __future__ import annotations

import os
import pathlib
import random
import shutil
import sys
import tempfile
from typing import Any

import numpy as np

from gradtx import checkpoint
from tests.campaigns._figures import Figures, options, report
from tests.campaigns._order import unsynced
from tests.campaigns._processes import (
    BROKEN,
    COUNT,
    FULL,
    KILL,
    Died,
    Server,
    arm,
    compiler,
    disarm,
    lines,
)
from tests.campaigns._states import raw

MODES = {"killed": KILL, "no space": FULL, "input/output error": BROKEN}
#: A case: the number of the call that breaks, and how.
Case = tuple[int, int]


def trees(step: int) -> dict[str, Any]:
    """Return what is saved as a step."""
    draw = np.random.default_rng(step)
    made = {"w": draw.normal(size=(32, 16)), "b": draw.normal(size=16)}
    return {
        "params": {k: x.astype(np.float32) for k, x in made.items()},
        "opt_state": {"count": np.int32(step), "mu": made["b"].astype(np.float16)},
    }


def prepared(run: pathlib.Path) -> None:
    """Save steps 0 and 1."""
    for step in (0, 1):
        checkpoint.save(run, step, **trees(step))


def broken(run: pathlib.Path, case: Case) -> tuple[int, bool, str]:
    """Save step 2 with one broken call; return the calls, if it broke, and the error.

    The manager removes step 0 then.
    """
    arm(run, *case)
    error = ""
    try:
        with checkpoint.Manager(run, keep=2) as manager:
            manager.save(2, **trees(2))
            manager.wait()
    except BaseException as raised:
        error = repr(raised)
    return (*disarm(), error)


def broken_all(pairs: list[tuple[pathlib.Path, Case]]) -> list[tuple[int, bool, str]]:
    """Do so for many cases, in one process."""
    return [broken(*pair) for pair in pairs]


def traced(run: pathlib.Path) -> list[str]:
    """Return the calls of the first save of a run, and of making its directory."""
    arm(run.parent, 0, COUNT, lines=True)
    checkpoint.save(run, 2, **trees(2))
    calls, _ = disarm()
    return lines(calls)


def examined(run: pathlib.Path, base: pathlib.Path) -> tuple[int, list[str]]:
    """Return the newest good step after a fault, and what is not as it must be."""
    wrong = []
    step = run / "step_00000001"
    for file in base.rglob("step_00000001/**/*"):
        if file.is_file():
            copy = step / file.relative_to(base / step.name)
            if not copy.is_file() or copy.read_bytes() != file.read_bytes():
                wrong.append(f"step 1 has lost {copy.name}")
    good = checkpoint.latest_good(run)
    if good.skipped or good.step not in (1, 2):
        wrong.append(f"step {good.step} is found, and {good.skipped} are not good")
    with checkpoint.Manager(run, keep=2) as manager:
        if hidden := [name for name in os.listdir(run) if name.startswith(".")]:
            wrong.append(f"there is left {hidden}")
        for number in (good.step, 3):
            if number == 3:
                manager.save(3, **trees(3))
            found = manager.restore(**trees(0))
            if (found.step, raw(found.trees)) != (number, raw(trees(number))):
                wrong.append(f"step {found.step} comes back in place of {number}")
        if manager.steps() != [3, good.step]:
            wrong.append(f"the steps are {manager.steps()}")
    return good.step, wrong


def examined_all(
    runs: list[pathlib.Path], base: pathlib.Path
) -> list[tuple[int, list[str]]]:
    """Do so for many runs, in one process."""
    found = []
    for run in runs:
        try:
            found.append(examined(run, base))
        except Exception as error:
            found.append((0, [f"raises {error!r}"]))
    return found


def campaign(
    server: Server, cases: int | None, seed: int, directory: pathlib.Path
) -> list[Figures]:
    """Return the figures of each way to break a call.

    Args:
      server: with the shim.
      cases: how many, or None for each call in each way.
      seed: which ones.
      directory: an empty one to work in.
    """
    base = directory / "base"
    server.run(prepared, base)
    calls, _, _ = server.run(broken, _copied(base, directory / "counted"), (0, COUNT))
    every = [(n, mode) for mode in MODES.values() for n in range(1, calls + 1)]
    chosen = every if cases is None else random.Random(seed).sample(every, cases)
    rows = {mode: Figures(name) for name, mode in MODES.items()}
    order = Figures("order of writing")
    order.cases = 1
    (directory / "new").mkdir()
    for why in unsynced(server.run(traced, directory / "new" / "run")):
        order.fail(why)
    for start in range(0, len(chosen), 20):
        part = chosen[start : start + 20]
        pairs = [
            (_copied(base, directory / f"{n}-{mode}"), (n, mode)) for n, mode in part
        ]
        failing = [pair for pair in pairs if pair[1][1] != KILL]
        told = dict(zip(failing, server.run(broken_all, failing), strict=True))
        told |= {p: server.run(broken, *p) for p in pairs if p[1][1] == KILL}
        found = server.run(examined_all, [run for run, _ in pairs], base)
        for pair, (step, wrong) in zip(pairs, found, strict=True):
            _count(rows[pair[1][1]], pair[1], told[pair], step, wrong)
            shutil.rmtree(pair[0])
    return [*rows.values(), order]


def _count(row: Figures, case: Case, told: Any, step: int, wrong: list[str]) -> None:
    """Judge one case.

    Threads make a few calls more or fewer each time, so that the last ones may not be
    reached; and some that fail are not needed, such as those that look for a file.
    """
    row.cases += 1
    died = isinstance(told, Died)
    _, fired, error = (0, True, "killed") if died else told
    row.detected += bool(error)
    row.walked += step == 1
    row.harmless += not error
    row.lost += step == 0
    if not error and step != 2:
        row.silent += 1
        row.fail(f"call {case[0]}: nothing was raised, and the step is not there")
    if error and not fired:
        row.fail(f"call {case[0]}: nothing was broken, and {error} was raised")
    for why in wrong:
        row.fail(f"call {case[0]}: {why} (the save said {error or 'nothing'})")


def _copied(base: pathlib.Path, run: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(base, run))


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign."""
    parser = options("Break calls of a save.", 0)
    given = parser.parse_args(arguments)
    if compiler() is None:
        print("needs Linux and a C compiler, cc")
        return 2
    memory = pathlib.Path("/dev/shm")
    where = memory if memory.is_dir() else None
    with (
        tempfile.TemporaryDirectory(dir=where) as directory,
        Server(shim=True) as server,
    ):
        rows = campaign(
            server, given.cases or None, given.seed, pathlib.Path(directory)
        )
    return report("crashes", rows)


if __name__ == "__main__":
    sys.exit(main())
