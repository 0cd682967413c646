"""Run the benchmarks: `python -m benchmarks [--quick | --full] [--only step,program]`."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pathlib
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks._options import Options

# torch and JAX share a GPU; set before JAX is imported
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

#: Scenarios in the order in which they run; each is a module of this package.
SCENARIOS = (
    "step",
    "program",
    "compiling",
    "calls",
    "importing",
    "memory",
    "accumulating",
    "observing",
    "checkpointing",
    "sweeping",
    "sharding",
    "training",
)


def main(arguments: list[str]) -> int:
    """Run what the command line asks for, print it, and write it down."""
    from benchmarks import _machine, _report

    asked = _parsed(arguments)
    options = _options(asked)
    result: dict[str, Any] = _machine.describe() | {
        "command": " ".join(["python -m benchmarks", *arguments]),
        "scenarios": {},
    }
    failed = False
    for name in asked.only or SCENARIOS:
        scenario = importlib.import_module(f"benchmarks.{name}")
        begin = time.perf_counter()
        try:
            rows = scenario.run(options)
        except Exception:  # an hour of others' figures is not lost with it
            traceback.print_exc()
            failed = True
            continue
        taken = time.perf_counter() - begin
        result["scenarios"][name] = {
            "title": scenario.TITLE,
            "note": scenario.note() if hasattr(scenario, "note") else scenario.NOTE,
            "seconds": taken,
            "rows": rows,
        }
        print(
            f"\n== {scenario.TITLE} ({taken:.0f} s)\n\n{_report.text(rows)}", flush=True
        )
        _write(result, asked, plot=False)
    _write(result, asked, plot=True)
    return int(failed)


def _parsed(arguments: list[str]) -> argparse.Namespace:
    from benchmarks._optimizers import OPTIMIZERS
    from benchmarks._trees import TREES

    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help="small trees, two minutes")
    length.add_argument("--full", action="store_true", help="everything, for hours")
    choices = {"only": SCENARIOS, "trees": TREES, "optimizers": OPTIMIZERS}
    for name, known in choices.items():
        listed = f"some of {','.join(known)}"
        parser.add_argument(f"--{name}", default="", help=listed, metavar="A,B")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        help="folder for the results, not benchmarks/results",
    )
    parser.add_argument("--name", help="name of the result files; default: the device")
    asked = parser.parse_args(arguments)
    for name, known in choices.items():
        named = tuple(filter(None, getattr(asked, name).split(",")))
        if unknown := set(named) - set(known):
            wrong, right = ", ".join(unknown), ", ".join(known)
            parser.error(f"--{name}: {wrong}; there are {right}")
        setattr(asked, name, named)
    return asked


def _options(asked: argparse.Namespace) -> Options:
    import jax

    from benchmarks._options import Options

    return Options(
        size="quick" if asked.quick else "normal",
        full=asked.full,
        rounds=5 if asked.quick else 9,
        turn=0.03 if asked.quick else 0.2,
        patience=4 if asked.quick else 60,
        pipelined=jax.default_backend() == "gpu",
        trees=asked.trees,
        optimizers=asked.optimizers,
    )


def _write(result: dict[str, Any], asked: argparse.Namespace, *, plot: bool) -> None:
    from benchmarks import _machine, _plot, _report

    # a part of the whole is no replacement for it
    partial = bool(asked.only or asked.trees or asked.optimizers)
    default = "quick" if asked.quick else "partial" if partial else _machine.device()
    folder = asked.out or pathlib.Path(__file__).parent / "results"
    folder.mkdir(parents=True, exist_ok=True)
    name = asked.name or default
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / f"{name}.md").write_text(_report.page(result, f"{name}.png"))
    if plot:
        drawn = _plot.draw(result, folder / f"{name}.png")
        print(f"\nwritten: {folder / name}.json, .md{' and .png' if drawn else ''}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
