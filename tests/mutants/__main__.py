"""Plant small bugs one at a time, and see who notices.

    python -m tests.mutants                  all, about 10 minutes on 2 cores
    python -m tests.mutants --sample 6       a few, drawn by --seed
    python -m tests.mutants --write tests/mutants/results.md

Each bug is written into a copy of the project. The properties of `gradtx.testing` are
checked for the transformations that it names, and where all hold, the tests that it
names run. At least 95 % must be noticed, and each property must notice one.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

from tests.mutants._bugs import BUGS, Bug

ROOT = pathlib.Path(__file__).parents[2]
#: Prints the codes of the properties that fail for the transformations named. Those
#: that take most of the time are checked only where all others hold.
KIT = """
import sys, warnings, jax
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
warnings.simplefilter("ignore")
import gradtx
codes, slow = set(), {"P9", "P10"}
for properties in ({*gradtx.testing.PROPERTIES} - slow, slow):
    for name in sys.argv[1:] if not codes else ():
        report = gradtx.testing.check_transformation(
            gradtx.testing.catalogue()[name],
            properties=properties,
            raises=False,
            heavy=False,
            verbose=False,
        )
        codes |= {r.code for r in report.failures}
print("failing:", *codes)
"""


def main() -> int:
    """Plant the bugs, and print what became of each."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description="Plant small bugs."
    )
    parser.add_argument("--sample", type=int, help="how many; by default all")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--write", type=pathlib.Path, help="a Markdown file")
    given = parser.parse_args()
    bugs = BUGS
    if given.sample is not None:
        bugs = random.Random(given.seed).sample(BUGS, given.sample)
    with concurrent.futures.ThreadPoolExecutor(given.jobs) as pool:
        found = []
        for bug, noticed in zip(bugs, pool.map(noticed_by, bugs), strict=True):
            found.append(noticed)
            shown = " ".join(noticed) or "SURVIVES"
            print(f"{shown:<24} {bug.file}: {_short(bug)}", flush=True)
    by = collections.Counter(code for noticed in found for code in noticed)
    killed = sum(map(bool, found))
    print(f"{killed} of {len(found)} noticed;", dict(by))
    if given.write is not None:
        given.write.write_text("\n".join(_page(bugs, found, by)) + "\n")
    return 0 if killed >= 0.95 * len(found) else 1


def noticed_by(bug: Bug) -> list[str]:
    """Plant one bug in a copy, and return the properties or `["tests"]` that notice."""
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder)
        for name in ("gradtx", "tests"):
            skip = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, copy / name, ignore=skip)
        for name in ("conftest.py", "pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, copy)
        file = copy / "gradtx" / bug.file
        text = file.read_text()
        if bug.old not in text:
            raise LookupError(f"{bug.file} has no {bug.old!r} any more: mend the bug")
        file.write_text(text.replace(bug.old, bug.new, 1))
        if bug.kit:
            checked = _run(copy, ["-c", KIT, *bug.kit.split()])
            if checked.returncode:
                return ["import"]
            line = checked.stdout.strip().split("\n")[-1]
            codes = line.removeprefix("failing:").split()
            if codes:
                return sorted(codes, key=lambda code: int(code[1:]))
        if bug.tests:
            options = ["-x", "-q", "-p", "no:cacheprovider", *bug.tests.split()]
            if _run(copy, ["-m", "pytest", *options]).returncode:
                return ["tests"]
        return []


def _run(
    folder: pathlib.Path, arguments: list[str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )


def _short(bug: Bug) -> str:
    one_line = lambda text: " ".join(text.split())
    return f"{one_line(bug.old)[:60]} → {one_line(bug.new)[:60]}"


def _page(
    bugs: list[Bug], found: list[list[str]], by: collections.Counter[str]
) -> list[str]:
    lines = [
        "# Planted bugs",
        "",
        "Written by `python -m tests.mutants --write tests/mutants/results.md`.",
        "",
        f"{sum(map(bool, found))} of {len(found)} are noticed. A bug counts for each "
        "property that fails; `tests` notice what no property does.",
        "",
        "| who notices | bugs |",
        "|---|---|",
    ]
    order = sorted(by, key=lambda code: (len(code) > 3, len(code), code))
    lines += [f"| {code} | {by[code]} |" for code in order]
    lines += [
        "",
        "| noticed by | file | what stood there | the bug |",
        "|---|---|---|---|",
    ]
    for bug, noticed in zip(bugs, found, strict=True):
        shown = [" ".join(t.split()).replace("|", "\\|") for t in (bug.old, bug.new)]
        lines.append(
            f"| {' '.join(noticed) or '**nobody**'} | {bug.file} | "
            f"`{shown[0]}` | `{shown[1]}` |"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
