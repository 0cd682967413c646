"""Run the benchmarks: `python -m benchmarks [--quick | --full] [--only step,program]`."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pathlib
import sys
import time

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
    "sweeping",
    "sharding",
    "training",
)


def main(arguments: list[str]) -> int:
    """Run what the command line asks for, print it, and write it down."""
    import jax

    from benchmarks import _machine, _plot, _report
    from benchmarks._optimizers import OPTIMIZERS
    from benchmarks._options import Options
    from benchmarks._trees import TREES

    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help="small trees, two minutes")
    length.add_argument("--full", action="store_true", help="everything, for hours")
    for name, known in (
        ("only", SCENARIOS),
        ("trees", TREES),
        ("optimizers", OPTIMIZERS),
    ):
        parser.add_argument(
            f"--{name}", default="", help=f"some of {','.join(known)}", metavar="A,B"
        )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        help="folder for the results, instead of the package's",
    )
    parser.add_argument("--name", help="name of the result files; default: the device")
    asked = parser.parse_args(arguments)
    for name, known in (
        ("only", SCENARIOS),
        ("trees", TREES),
        ("optimizers", OPTIMIZERS),
    ):
        named = tuple(filter(None, getattr(asked, name).split(",")))
        if unknown := set(named) - set(known):
            parser.error(
                f"--{name}: {', '.join(unknown)}; there are {', '.join(known)}"
            )
        setattr(asked, name, named)

    options = Options(
        size="quick" if asked.quick else "normal",
        full=asked.full,
        rounds=5 if asked.quick else 9,
        turn=0.03 if asked.quick else 0.2,
        patience=4 if asked.quick else 60,
        pipelined=jax.default_backend() == "gpu",
        trees=asked.trees,
        optimizers=asked.optimizers,
    )
    result = _machine.describe() | {
        "command": " ".join(["python -m benchmarks", *arguments]),
        "scenarios": {},
    }
    for name in asked.only or SCENARIOS:
        scenario = importlib.import_module(f"benchmarks.{name}")
        begin = time.perf_counter()
        rows = scenario.run(options)
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

    # a part of the whole is no replacement for it
    partial = bool(asked.only or asked.trees or asked.optimizers)
    default = "quick" if asked.quick else "partial" if partial else _machine.device()
    folder = asked.out or pathlib.Path(__file__).parent / "results"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / (asked.name or default)
    target.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    target.with_suffix(".md").write_text(_report.page(result, f"{target.name}.png"))
    drawn = _plot.draw(result, target.with_suffix(".png"))
    print(f"\nwritten: {target}.json, .md{' and .png' if drawn else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
