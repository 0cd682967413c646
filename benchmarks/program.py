"""Program: bytes, passes, kernels and temporaries of the optimized step."""

from __future__ import annotations

from benchmarks import _subjects
from benchmarks._optimizers import MINIMAL, cases
from benchmarks._options import Options, Row
from benchmarks._traffic import traffic
from benchmarks._trees import count, shapes

TITLE = "Programs"
NOTE = "What the compiled step does, from its text; nothing here is timed."

UNITS = {
    "bytes": "bytes per parameter",
    "passes": "passes over the parameters",
    "temporaries": "bytes per parameter",
    "kernels": "kernels",
    "instructions": "HLO instructions",
    "peak": "× (parameters + state + gradients)",
}


def run(options: Options) -> list[Row]:
    """Compile every subject's step and read what it does."""
    rows: list[Row] = []
    for tree, name in cases(options):
        rows += _case(options.size, tree, name)
    return rows


def _case(size: str, tree: str, name: str) -> list[Row]:
    rows = []
    parameters = count(shapes(tree, size))
    for subject in _subjects.subjects(name):
        compiled = _subjects.step(subject, name, tree, size).lower().compile()
        found = traffic(compiled, parameters)._asdict()
        arguments = compiled.memory_analysis().argument_size_in_bytes
        found["peak"] = found["peak"] / arguments
        case = {"tree": tree, "optimizer": name, "subject": subject}
        rows += [
            case | {"measure": measure, "unit": unit, "value": found[measure]}
            for measure, unit in UNITS.items()
        ]
    case = {"tree": tree, "optimizer": name, "subject": "limit", "measure": "bytes"}
    value = 4 * MINIMAL[name]
    return rows + [case | {"unit": UNITS["bytes"], "value": value}]
