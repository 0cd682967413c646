"""Damage the files of real checkpoints, byte by byte and file by file.

    python -m tests.campaigns.bytes                100,000 faults, and peers
    python -m tests.campaigns.bytes --cases 1000   fewer

Each fault hits one of the two steps of a run. It must be reported for what it is,
and the other step be found; nothing may come back wrong.
"""

from __future__ import annotations

import pathlib
import random
import sys
import tempfile

from gradtx import checkpoint
from gradtx.core import DamagedError, NoCheckpointError
from tests.campaigns._faults import FAULTS, Step
from tests.campaigns._figures import Figures, options, report, table
from tests.campaigns._peers import campaign as peer, formats
from tests.campaigns._states import Run, kinds, raw, saved

CASES = 100_000
#: Of so many faults, one is followed by reading all arrays, which takes the longest.
WHOLE = 100


def campaign(
    cases: int, seed: int, directory: pathlib.Path, whole: int = WHOLE
) -> list[Figures]:
    """Return the figures of each kind of fault.

    Args:
      cases: how many faults.
      seed: which ones.
      directory: an empty one to work in, best in memory.
      whole: of so many faults, one is followed by `restore`.
    """
    draw = random.Random(seed)
    runs = [saved(directory / name, kind, (1, 2)) for name, kind in kinds().items()]
    steps = [
        [Step(run.directory / f"step_{n:08d}", directory / "spare") for n in (1, 2)]
        for run in runs
    ]
    rows = {name: Figures(name) for name in FAULTS}
    weights = [weight for _, weight in FAULTS.values()]
    for case in range(cases):
        (name,) = draw.choices(list(FAULTS), weights)
        which = draw.randrange(len(runs))
        older, newer = steps[which]
        # the newest one is what a run goes on from
        step, other = (older, newer) if draw.random() < 0.2 else (newer, older)
        fault, _ = FAULTS[name]
        row = rows[name]
        row.cases += 1
        changed = fault(step, other, draw)
        before = len(row.failures)
        if changed:
            _check(row, runs[which], step, other, draw.randrange(whole) == 0)
        else:
            row.harmless += 1
        row.failures[before:] = [
            f"{why} (case {case}, {list(kinds())[which]})"
            for why in row.failures[before:]
        ]
        step.mend()
    for pair, run in zip(steps, runs, strict=True):
        for step in pair:  # the last check is of the campaign: it puts things back
            checkpoint.verify(step.path, key=run.kind.key)
    return list(rows.values())


def _check(row: Figures, run: Run, step: Step, other: Step, whole: bool) -> None:
    key = run.kind.key
    try:
        checkpoint.verify(step.path, key=key)
    except (DamagedError, NoCheckpointError) as error:
        row.detected += 1
        if str(step.path) not in str(error):
            row.fail(f"the error does not say where: {error}")
    except BaseException as error:
        row.fail(f"verify raises {error!r}")
    else:
        row.silent += 1
        row.fail("verify finds nothing")
    try:
        good = checkpoint.latest_good(run.directory, key=key)
    except BaseException as error:
        row.fail(f"latest_good raises {error!r}")
        return
    skipped = [step.path] if step.path > other.path else []
    if good.path != other.path or [path for path, _ in good.skipped] != skipped:
        row.fail(f"latest_good returns {good.path.name}, skipped {good.skipped}")
    else:
        row.walked += 1
    if whole:
        _check_whole(row, run, step, other)


def _check_whole(row: Figures, run: Run, step: Step, other: Step) -> None:
    number = int(other.path.name[5:])
    trees = run.trees[number]
    arguments = {"tx": run.kind.tx, "key": run.kind.key, **trees}
    found = checkpoint.restore(run.directory, **arguments)
    if found.step != number or raw(found.trees) != raw(trees):
        row.silent += 1
        row.fail(f"restore returns other values, of step {found.step}")
    try:
        checkpoint.restore(step.path, **arguments)
    except (DamagedError, NoCheckpointError):
        pass
    except BaseException as error:
        row.fail(f"restore raises {error!r}")
    else:
        row.silent += 1
        row.fail("restore finds nothing")


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign, then a hundredth of it on each peer."""
    parser = options("Damage checkpoints.", CASES)
    parser.add_argument("--peers", type=int, help="faults for each peer")
    given = parser.parse_args(arguments)
    memory = pathlib.Path("/dev/shm")
    where = memory if memory.is_dir() else None
    with tempfile.TemporaryDirectory(dir=where) as directory:
        rows = campaign(given.cases, given.seed, pathlib.Path(directory, "run"))
        failed = report("bytes", rows)
        count = given.cases // 100 if given.peers is None else given.peers
        peers = [
            peer(name, made, count, given.seed, pathlib.Path(directory, str(i)))
            for i, (name, made) in enumerate(formats().items() if count else ())
        ]
    if peers:
        print(f"\n{table(peers)}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
