"""Do to a training run what machines do to it, and see that not a bit is lost.

    python examples/chaos.py
    python examples/chaos.py --kills 20 --steps 1000 --seed 1

A small network learns digits twice. The first run is left alone. The second is killed
at random moments, or told to stop, it is fed with NaNs, and while it is down its newest
checkpoint is damaged. In the end parameters and moments must be those of the first, bit
for bit; if not, the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _command_line import at_least
from _data import load_data
from rich.console import Console
from rich.table import Table

from gradtx import checkpoint

RUN = Path(__file__).parent / "_chaos_run.py"

#: What a run says of itself, line by line.
Events = list[dict[str, Any]]


class Failed(Exception):
    """Something was lost, or damage was not noticed."""


def start(
    options: argparse.Namespace, out: Path, poison: Sequence[int] = ()
) -> subprocess.Popen[str]:
    """Start a run, or go on with it, in a process of its own.

    Args:
      options: the command line.
      out: the directory of its checkpoints, beside the data.
      poison: batches that are full of NaNs when they are first read.
    """
    numbers = ["--steps", options.steps, "--every", options.every, "--poison", *poison]
    paths = ["--out", out, "--data", out.parent / "data.npz"]
    # what the first run compiles, the others load: half of their time
    compiled = {
        "JAX_COMPILATION_CACHE_DIR": str(out.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        [sys.executable, str(RUN), *map(str, [*paths, *numbers])],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | compiled,
    )


def watched(process: subprocess.Popen[str], act: Any = None) -> Events:
    """Return what a run says until it ends; `act` is called after each step."""
    events: Events = []
    with process:
        for line in process.stdout or ():
            if not line.endswith("\n"):
                break  # cut off by a kill
            events.append(json.loads(line))
            if act is not None and events[-1]["event"] == "step":
                act()
    if process.returncode not in (0, -signal.SIGKILL):
        raise Failed(f"the run ended with status {process.returncode}.")
    return events


def calm_accuracy(options: argparse.Namespace, out: Path) -> float:
    """Run to the end undisturbed, and return its share of right answers."""
    events = watched(start(options, out))
    if not events or events[-1]["event"] != "done":
        raise Failed("the undisturbed run did not come to its end.")
    return events[-1]["accuracy"]


class Chaos:
    """A run that is disturbed until it ends.

    Args:
      options: the command line.
      out: the directory of its checkpoints.

    Attributes:
      rows: what happened, start by start.
    """

    def __init__(self, options: argparse.Namespace, out: Path):
        self.rows: list[tuple[str, ...]] = []
        self._options, self._out = options, out
        self._random = np.random.default_rng(options.seed)
        self._bad: dict[str, str] = {}  # what is wrong with steps, by name

    def run(self) -> None:
        """Start it again and again, and disturb it, the last time excepted.

        Raises:
          Failed: if it does not go on where it should, or damage is not noticed.
        """
        position = 0
        for number in range(self._options.kills + 1):
            good = self._good()
            position = int(good[0].name[5:]) if good else 0
            end, events = self._one_start(position, number == self._options.kills)
            self._check(position, events)
            self._note(number, events, end)
            if end == "done":
                return
            self._count_what_was_saved_again()
            self._disturb_files()
        raise Failed("the disturbed run did not come to its end.")

    def _one_start(self, position: int, last: bool) -> tuple[str, Events]:
        """Return how a start ended, and what it said."""
        ahead = self._options.steps - position
        least = 3 * self._options.every  # after which two steps were saved
        left = int(self._random.integers(least, max(least + 1, ahead // 2)))
        # a scheduler of a pod tells; a person who pulls a plug does not
        kind = signal.SIGTERM if len(self.rows) % 3 == 1 else signal.SIGKILL
        moment = float(self._random.uniform(0, 0.05))
        poison = position + self._random.integers(0, max(2, ahead // 4), 2)
        process = start(self._options, self._out, poison.tolist())

        def act() -> None:
            nonlocal left
            left -= 1
            if left == 0 and not last:
                time.sleep(moment)  # into the middle of a step, or of a save
                process.send_signal(kind)

        events = watched(process, act)
        if events and events[-1]["event"] == "done":
            return "done", events
        return kind.name, events

    def _check(self, position: int, events: Events) -> None:
        found = _first(events, "resumed")
        if found["position"] != position:
            raise Failed(
                f"a start went on at {found['position']}, where {position} was whole."
            )
        newer = {name for name in self._bad if int(name[5:]) > position}
        if unseen := sorted(newer - found["skipped"].keys()):
            raise Failed(f"nobody noticed that {', '.join(unseen)} is damaged.")
        if left := [path.name for path in self._out.glob(".step_00000001.*.1f")]:
            raise Failed(f"what a killed save left is still there: {left[0]}.")
        for event in events:
            if event["event"] == "stopped":
                path = self._out / f"step_{event['position']:08}"
                if not path.exists():
                    raise Failed(f"{path.name} was not saved before the end.")

    def _note(self, number: int, events: Events, end: str) -> None:
        found = _first(events, "resumed")
        nans = [str(e["position"]) for e in events if e["event"] == "left out"]
        skipped = [f"{name[5:]}: {self._bad[name]}" for name in found["skipped"]]
        last = max((e["position"] for e in events if "position" in e), default=0)
        places = (str(found["position"]), str(last), ", ".join(nans))
        self.rows.append((str(number + 1), "\n".join(skipped), *places, end))

    def _good(self) -> list[Path]:
        """Return the steps that nobody has damaged, the newest first."""
        if not self._out.exists():
            return []
        found = checkpoint.steps(self._out).values()
        return [path for path in found if path.name not in self._bad]

    def _count_what_was_saved_again(self) -> None:
        for aside in self._out.glob("step_*.damaged"):
            self._bad.pop(aside.name.split(".")[0], None)
            shutil.rmtree(aside)

    def _disturb_files(self) -> None:
        """Damage the newest good step, if another is left, and leave rubbish."""
        good = self._good()
        if len(good) > 1:
            self._bad[good[0].name] = self._damaged(good[0])
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        host = re.sub(r"[^A-Za-z0-9-]", "_", socket.gethostname())
        half = f".step_00000001.writing.{host}.{gone.pid}.1f"
        empty = f"step_{10 * self._options.steps:08}"
        for name in (half, empty):
            (self._out / name).mkdir(exist_ok=True)
            (self._out / name / "arrays").write_bytes(self._random.bytes(99))
        self._bad[empty] = "not written to its end"

    def _damaged(self, step: Path) -> str:
        """Damage one file of a step, and return what was done."""
        files = sorted(path for path in step.rglob("*") if path.is_file())
        file = files[self._random.integers(len(files))]
        data = bytearray(file.read_bytes())
        kinds = ["flipped a bit of", "cut off", "deleted"] if data else ["deleted"]
        kind = kinds[self._random.integers(len(kinds))]
        if kind == "deleted":
            file.unlink()
        elif kind == "cut off":
            os.truncate(file, int(self._random.integers(len(data))))
        else:
            data[self._random.integers(len(data))] ^= 1 << self._random.integers(8)
            file.write_bytes(data)
        where = str(file.relative_to(step))
        return f"{kind} {where if len(where) < 24 else where[:23] + '…'}"


def _first(events: Events, kind: str) -> dict[str, Any]:
    beginning = {"position": 0, "skipped": {}}
    return next((event for event in events if event["event"] == kind), beginning)


def results(run: Path, step: int) -> dict[str, str]:
    """Return the hash of each parameter and of each array of the optimizer by path.

    The counters of the guard are left out: they tell that there were NaNs.
    """
    manifest = checkpoint.verify(run / f"step_{step:08}", arrays=True)
    return {
        f"{tree}{leaf.path}": leaf.sha256
        for tree, leaves in manifest.trees.items()
        for leaf in leaves
        if tree == "params" or leaf.path.startswith(".inner_state")
    }


def compare(options: argparse.Namespace, folder: Path, console: Console) -> None:
    """Run twice, and raise unless both end with the same bits."""
    train, test = load_data(seed=0)
    arrays = {"image": train.image, "label": train.label}
    tests = {"test_image": test.image, "test_label": test.label}
    np.savez(folder / "data.npz", **arrays, **tests)
    accuracy = calm_accuracy(options, folder / "calm")
    console.print(f"undisturbed: {options.steps} updates, {accuracy:.1%} right")
    chaos = Chaos(options, folder / "chaos")
    try:
        chaos.run()
    finally:
        table = Table("start", "steps left out as bad", "from", "to", "NaN at", "end")
        for row in chaos.rows:
            table.add_row(*row)
        console.print(table)
    calm, other = (results(folder / run, options.steps) for run in ("calm", "chaos"))
    odd = [path for path in {**calm, **other} if calm.get(path) != other.get(path)]
    if odd:
        raise Failed(f"these differ: {', '.join(odd)}.")
    console.print(f"identical: {len(calm)} arrays of parameters and optimizer")


def main() -> int:
    """Return 0 if the disturbed run ended as the other one, else 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--steps", type=at_least(20), default=400, help="updates, default 400")
    add("--every", type=at_least(1), default=10, help="between saves, default 10")
    add("--kills", type=at_least(0), default=8, help="how often, default 8")
    add("--seed", type=at_least(0), default=0, help="of what happens, default 0")
    add("--keep", type=Path, help="a folder to copy both runs to")
    options = parser.parse_args()
    options.steps -= options.steps % options.every
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as name:
        try:
            compare(options, Path(name), console)
        except Failed as error:
            console.print(f"chaos.py: {error}", soft_wrap=True)
            return 1
        finally:
            if options.keep is not None:
                shutil.copytree(name, options.keep, dirs_exist_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
