#!/usr/bin/env python3
"""Set up a virtual environment and run one of the project's jobs in it.

    python3 dev.py digits     train a network on real digits and look at the curves
    python3 dev.py chaos      kill and damage a run, and compare it with a calm one
    python3 dev.py test       run every test, doctest and notebook
    python3 dev.py benchmark  measure beside optax, torch and the memory limit
    python3 dev.py check      lint, types, and the documentation, built strictly

Further arguments go to the job: `python3 dev.py digits --devices 8`. Needs Python 3.11
or newer with pip, and nothing else. The environment is `.venv`, or `$GRADTX_VENV`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pathlib
import subprocess
import sys
import venv

ROOT = pathlib.Path(__file__).resolve().parent
HOME = pathlib.Path(os.environ.get("GRADTX_VENV", ROOT / ".venv"))
PYTHON = HOME / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

#: For each job: the extra that it needs, and its commands.
JOBS = {
    "digits": ("examples", [["examples/digits.py"]]),
    "chaos": ("examples", [["examples/chaos.py"]]),
    "benchmark": ("benchmark", [["-m", "benchmarks"]]),
    "test": ("test", [["-m", "pytest", "-n", "auto"]]),
    "check": (
        "test",
        [
            ["-m", "ruff", "format", "--check", "."],
            ["-m", "ruff", "check", "."],
            ["-m", "pyright", "--pythonpath", str(PYTHON)],
            ["-m", "sphinx", "-W", "--keep-going", "-q", "docs", "docs/_build/html"],
        ],
    ),
}


def set_up(extra: str) -> None:
    """Make the environment, and install gradtx with `extra` unless that was done."""
    if not PYTHON.exists():
        print(f"making {HOME}", flush=True)
        bundled = importlib.util.find_spec("ensurepip") is not None
        venv.create(HOME, with_pip=bundled, symlinks=os.name != "nt")
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    done = HOME / f"gradtx-{extra}.installed"
    if done.exists() and done.read_text() == wanted:
        return
    print(f"installing gradtx[{extra}] and what it needs", flush=True)
    pip = [str(PYTHON), "-m", "pip"]
    if run([str(PYTHON), "-c", "import pip"], quiet=True):
        # some systems ship Python without ensurepip: use the pip outside
        pip = [sys.executable, "-m", "pip", "--python", str(PYTHON)]
    if run([*pip, "install", "--quiet", "--editable", f"{ROOT}[{extra}]"]):
        sys.exit("the installation failed: see above")
    done.write_text(wanted)


def run(command: list[str], quiet: bool = False) -> int:
    """Run a command in the project's folder and return its exit status."""
    sink = subprocess.DEVNULL if quiet else None
    return subprocess.run(command, cwd=ROOT, stdout=sink, stderr=sink).returncode


def main(arguments: list[str]) -> int:
    """Run the job that the first argument names."""
    if not arguments or arguments[0] not in JOBS:
        print(__doc__)
        return 2
    extra, commands = JOBS[arguments[0]]
    set_up(extra)
    status = 0
    for command in commands:
        print("$ python", *command, *arguments[1:], flush=True)
        status |= run([str(PYTHON), *command, *arguments[1:]])
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
