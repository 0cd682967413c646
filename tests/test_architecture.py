"""Who may import whom, how large a file may grow, what import costs."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent / "gradtx"
FILES = sorted(ROOT.rglob("*.py"))

MEASURING = {"core", "schedules", "matrix"}
#: What each room may import besides itself and the standard library.
ALLOWED = {
    "core": set(),
    "schedules": {"core"},
    "losses": {"core", "projections"},
    "projections": {"core", "tree"},
    "matrix": {"core"},
    "assignment": {"core"},
    "second_order": {"core"},
    "perturbations": {"core", "tree"},
    "tree": {"core"},
    "microbatching": {"core"},
    "transforms": MEASURING | {"tree"},
    "combinators": MEASURING,
    "precision": MEASURING,
    "guard": MEASURING,
    "tuning": MEASURING,
    "telemetry": MEASURING,
    "distributed": MEASURING,
    "checkpoint": MEASURING | {"_version"},
    "experimental": MEASURING | {"combinators"},
    "optimizers": MEASURING
    | {"losses", "projections", "transforms", "combinators", "precision", "guard"}
    | {"tuning", "telemetry", "distributed", "checkpoint"},
}
ALLOWED["interop"] = ALLOWED["optimizers"] | {"optimizers"}
ALLOWED["testing"] = ALLOWED["interop"] | {"interop", None}  # None: all of gradtx
#: Modules that a person runs: `python -m gradtx.testing.compare`.
PROGRAMS = {"testing/compare.py", "checkpoint/__main__.py"}
OUTSIDE = {"jax", "numpy"}


def _imports(path):
    """Return the modules that a file imports when it is loaded."""
    for node in _loaded(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def _loaded(node):
    """Yield the nodes that run when a module is loaded: none of its functions."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef):
            yield from _loaded(child)


def _room(path):
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else None


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_file_imports_only_what_its_room_may(path):
    room = _room(path)
    for module in _imports(path):
        top, *rest = module.split(".")
        if top != "gradtx":
            assert top in OUTSIDE or top in sys.stdlib_module_names, module
        elif room is not None:
            target = rest[0] if rest else None
            assert target == room or target in ALLOWED[room], f"{room} imports {module}"
            if target not in (room, None):
                assert len(rest) == 1, f"{module} is private to its room"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_file_is_private_and_holds_one_idea(path):
    run = str(path.relative_to(ROOT)) in PROGRAMS
    assert path.name.startswith("_") or path.parent == ROOT or run
    lines = path.read_text().splitlines()
    assert len(lines) <= 400
    assert lines[0].startswith('"""'), "the first line says what"


def test_import_is_light_and_loads_no_heavy_package(tmp_path):
    code = """
import sys, time, jax
start = time.process_time()  # what another process takes meanwhile is not our cost
import gradtx
spent = time.process_time() - start
heavy = {"flax", "optax", "chex", "orbax", "matplotlib", "torch", "sklearn", "scipy"}
print(spent, *sorted(heavy & set(sys.modules)))
"""
    # as after an installation: the first run compiles, the others find it done
    cached = {"PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **cached},
        ).stdout.split()
        for _ in range(4)
    ]
    assert all(len(run) == 1 for run in runs), runs[0][1:]
    assert min(float(run[0]) for run in runs) < 0.25
