"""Run optax's own test files with gradtx in optax's place.

    python -m tests.parity.run [FILE…] [pytest's options]

A FILE is a path inside the optax package, such as `losses/_regression_test.py`; by
default all of them. The files are copied beside one another, so that nothing but the
stand-in can answer their imports.
"""

from __future__ import annotations

import pathlib
import shutil
import sys
import tempfile

import pytest

from tests.parity import _stand_in


def test_files() -> list[str]:
    """Return the paths of optax's test files inside its package."""
    root = _stand_in.optax_root()
    return sorted(str(p.relative_to(root)) for p in root.rglob("*_test.py"))


def main(arguments: list[str]) -> int:
    """Run the files named in `arguments`, or all, with the options that follow."""
    files = [a for a in arguments if a.endswith("_test.py")] or test_files()
    options = [a for a in arguments if not a.endswith("_test.py")]
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            flat = pathlib.Path(folder) / file.replace("/", "__")
            shutil.copy(_stand_in.optax_root() / file, flat)
        pathlib.Path(folder, "pytest.ini").write_text("[pytest]\n")
        pathlib.Path(folder, "conftest.py").write_text(
            "from tests.parity import _stand_in\n_stand_in.install()\n"
        )
        return pytest.main(
            ["--import-mode=importlib", "-p", "no:cacheprovider", f"--rootdir={folder}"]
            + ["-c", f"{folder}/pytest.ini", *options, folder]
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
