"""Compiling: seconds to trace, lower and compile a step, against its number of leaves."""

from __future__ import annotations

from benchmarks import _subjects
from benchmarks._options import Options, Row
from benchmarks._timing import once
from benchmarks._traffic import traffic
from benchmarks._trees import count, many

TITLE = "Trace, lower and compile"
NOTE = (
    "The step of clip + AdamW on trees of as many leaves, of which at most 48 shapes "
    "differ. Each is compiled once, in a process that has compiled others before."
)

#: The most leaves that a subject is given, where more would take many minutes.
MOST = {"gradtx": 3000, "optax": 3000}


def run(options: Options) -> list[Row]:
    """Compile a step on ever more leaves."""
    names = options.pick(
        "optimizers", ("clip_adamw",), ("clip_adamw",), ("clip_adamw",)
    )
    sizes = (10, 100) if options.quick else (10, 100, 1000)
    if options.full:
        sizes += (3000, 5000, 10_000)
    rows: list[Row] = []
    for name in names:
        for subject in _subjects.subjects():
            _measure(subject, name, 3)  # what is traced once for all is traced here
            for leaves in sizes:
                if leaves <= MOST.get(subject, leaves):
                    rows += _measure(subject, name, leaves)
    return rows


def _measure(subject: str, name: str, leaves: int) -> list[Row]:
    tree = many(leaves)
    step = _subjects.step_on(subject, name, tuple(tree.items()))
    made: list = []
    seconds = {
        "trace": once(
            lambda: made.append(
                step.function.trace(step.params, step.state, step.params)
            )
        ),
        "lower": once(lambda: made.append(made[-1].lower())),
        "compile": once(lambda: made.append(made[-1].compile())),
    }
    seconds["total"] = sum(seconds.values())
    found = traffic(made[-1], count(tree))
    case = {"optimizer": name, "leaves": leaves, "subject": subject}
    rows = [case | {"measure": m, "unit": "s", "value": s} for m, s in seconds.items()]
    sizes = {"program size": "instructions", "kernels of the program": "kernels"}
    return rows + [
        case | {"measure": measure, "unit": unit, "value": getattr(found, unit)}
        for measure, unit in sizes.items()
    ]
