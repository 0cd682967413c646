"""Look at checkpoints from a shell: `python -m gradtx.checkpoint verify PATH`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TextIO

import gradtx.checkpoint as checkpoint
from gradtx.core import CheckpointError, GradtxError, NoCheckpointError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 if all is well, 1 if something differs, 2 if it cannot run."""
    parser = argparse.ArgumentParser(prog="python -m gradtx.checkpoint")
    commands = parser.add_subparsers(dest="command", required=True)
    what = commands.add_parser("describe", help="say what is in a step")
    what.add_argument("path", type=Path, help="a run, for its newest step, or a step")
    check = commands.add_parser(
        "verify", help="compare all bytes with what was written"
    )
    check.add_argument("path", type=Path, help="a run, for all of its steps, or a step")
    check.add_argument(
        "--key-file", type=Path, help="a file with the secret of the signature"
    )
    check.add_argument("--arrays", action="store_true", help="decode the arrays too")
    both = commands.add_parser("diff", help="say how two steps differ")
    both.add_argument("path", type=Path)
    both.add_argument("other", type=Path)
    given = parser.parse_args(arguments)
    try:
        return {"describe": _describe, "verify": _verify, "diff": _diff}[given.command](
            given
        )
    except (GradtxError, OSError, ImportError) as error:
        _say(str(error), sys.stderr)
        return 2


def _describe(given: argparse.Namespace) -> int:
    _say(checkpoint.describe(_steps(given.path)[0]))
    return 0


def _verify(given: argparse.Namespace) -> int:
    key = None if given.key_file is None else given.key_file.read_bytes()
    failed = 0
    for path in _steps(given.path):
        try:
            manifest = checkpoint.verify(path, key=key, arrays=given.arrays)
        except CheckpointError as error:
            failed += 1
            _say(f"BAD   {path.name}: {error}")
        else:
            size = sum(file.size for file in manifest.files)
            _say(f"good  {path.name}: {len(manifest.files)} files, {size} bytes")
    return int(failed > 0)


def _diff(given: argparse.Namespace) -> int:
    changes = checkpoint.diff(_steps(given.path)[0], _steps(given.other)[0])
    for change in changes:
        _say(str(change))
    return int(bool(changes))


def _say(text: str, where: TextIO | None = None) -> None:
    """Print a text, with what a file could use to steer a terminal written out."""
    plain = (c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
    print("".join(plain), file=where)


def _steps(path: Path) -> list[Path]:
    """Return the step itself, or the steps of a run, the newest first."""
    if os.path.lexists(path / "manifest.json") or path.name.startswith("step_"):
        return [path]
    found = list(checkpoint.steps(path).values())
    if not found:
        raise NoCheckpointError(f"{path}: there are no steps.")
    return found


if __name__ == "__main__":
    sys.exit(main())
