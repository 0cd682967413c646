"""Measure gradtx beside the installed optax, with the same probes in one run.

    python -m gradtx.testing.compare                      all, as Markdown
    python -m gradtx.testing.compare adam sgd --abstract  some, without computing
    python -m gradtx.testing.compare --jobs 2 --write docs/reliability.md

Needs the extra `test`. `--write` replaces the part of the file between two comments. All
take about half an hour on two cores; `--log FILE` lets an interrupted run go on.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import importlib.metadata
import inspect
import io
import json
import multiprocessing
import pathlib
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import jax

from gradtx.core import GradientTransformation, Schedule
from gradtx.testing._catalogue import catalogue
from gradtx.testing._property import PROPERTIES
from gradtx.testing._report import Result, result_of
from gradtx.testing._subject import Library, Subject

BEGIN, END = "<!-- compare: begin -->", "<!-- compare: end -->"
#: What optax leaves open on purpose, so that a failure there is no defect of it.
BY_DESIGN = {
    "P2": "optax promotes, and expects gradients of the parameters' dtype",
    "P12": "`hyperparam_dtype` sets the dtype; by default it is the parameters'",
    "P13": "left to broadcasting and to JAX, whose errors name no transformation",
    "P16": "few differentiate through an optimizer",
    "P17": "transformations are closures, which Python cannot pickle",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison, and print or write its tables."""
    parser = argparse.ArgumentParser(
        prog="python -m gradtx.testing.compare",
        description="Measure gradtx beside optax.",
    )
    parser.add_argument("names", nargs="*", help="transformations; by default all")
    parser.add_argument("--abstract", action="store_true", help="compute nothing")
    parser.add_argument("--jobs", type=int, default=1, help="processes to use")
    parser.add_argument(
        "--log", type=pathlib.Path, help="keep results here, and go on from them"
    )
    parser.add_argument("--write", type=pathlib.Path, help="a Markdown file")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.names) - catalogue().keys())
    if unknown:
        parser.error(f"no transformation is called {unknown[0]!r}")
    names = given.names or sorted(catalogue())
    codes = [p.code for p in PROPERTIES.values() if p.abstract or not given.abstract]
    found = _logged(given.log)
    known = {result.transformation for _, result in found}
    names = [name for name in names if name not in known]
    with concurrent.futures.ThreadPoolExecutor(given.jobs) as pool:
        for name, results in zip(
            names,
            pool.map(functools.partial(compared, codes=codes), names),
            strict=True,
        ):
            found += results
            print(f"{name}: {len(found)} cells so far", file=sys.stderr)
            if given.log is not None:
                with given.log.open("a") as log:
                    for library, result in results:
                        print(json.dumps([library, vars(result)]), file=log)
    _Worker.close_all()
    text = "\n".join(tables(found))
    if given.write is None:
        print(text)
    else:
        old = given.write.read_text()
        head, rest = old.split(BEGIN)
        tail = rest.split(END)[1]
        given.write.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}")
    return 0


def _logged(log: pathlib.Path | None) -> list[tuple[str, Result]]:
    """Return what an earlier run has found."""
    if log is None or not log.exists():
        return []
    lines = map(json.loads, log.read_text().splitlines())
    return [(library, Result(**fields)) for library, fields in lines]


def compared(name: str, codes: Iterable[str]) -> list[tuple[str, Result]]:
    """Return the results of one transformation in both libraries, by library.

    A cell that does not return in time fails: its process is killed.
    """
    worker = _Worker.of_this_thread()
    found = []
    for library in ("gradtx", "optax"):
        for code in codes:
            prop = PROPERTIES[code]
            for cell in prop.cells:
                if cell in prop.heavy:
                    continue
                result = worker.ask(library, name, code, cell)
                if result is not None:
                    found.append((library, result))
    return found


class _Worker:
    """Another process that checks cells, and is replaced where it hangs."""

    _all: ClassVar[list[_Worker]] = []
    _here = threading.local()

    def __init__(self) -> None:
        self._start()
        self._all.append(self)

    @classmethod
    def of_this_thread(cls) -> _Worker:
        if not hasattr(cls._here, "worker"):
            cls._here.worker = cls()
        return cls._here.worker

    @classmethod
    def close_all(cls) -> None:
        for worker in cls._all:
            worker._process.kill()
        cls._all.clear()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,), daemon=True)
        self._process.start()

    def ask(self, library: str, name: str, code: str, cell: str) -> Result | None:
        """Return what comes of one cell; `None` if the library has no such thing."""
        self._pipe.send((library, name, code, cell))
        said = f"does not return within {DEADLINE} s"
        try:
            if self._pipe.poll(DEADLINE):
                return self._pipe.recv()
        except EOFError:
            said = "its process dies"
        self._process.kill()
        self._start()
        return Result(name, code, cell, "fail", said)


#: Seconds that one cell may take: compiling takes a few.
DEADLINE = 90


def _serve(pipe: Any) -> None:
    """Answer requests for single cells until the process is killed."""
    jax.config.update("jax_num_cpu_devices", 8)
    subject_of = functools.cache(_subject)
    while True:
        library, name, code, cell = pipe.recv()
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            subject = subject_of(library, name)
            made = subject and result_of(subject, PROPERTIES[code], cell)
        if made is not None:
            made = dataclasses.replace(made, transformation=name)
        pipe.send(made)


def _subject(library: str, name: str) -> Subject | None:
    ours = catalogue()[name]
    if library == "gradtx":
        return Subject(ours)
    try:
        theirs = peer(ours)
    except Exception as error:  # a call that optax has not: nothing to compare
        print(f"{name}: optax makes none: {error}", file=sys.stderr)
        return None
    if theirs is None:
        return None
    call, tx = theirs
    return Subject(tx, ours.traits, optax_library(), call)


def optax_library() -> Library:
    """Return the functions of optax that the properties use."""
    optax = _optax()
    return Library(
        "optax",
        optax.apply_updates,
        optax.inject_hyperparams,
        lambda tx: optax.apply_if_finite(tx, 1000),
        optax.LookaheadParams,
    )


def _optax() -> Any:
    try:
        import optax
        import optax.contrib
    except ImportError:
        raise ImportError(
            "the comparison needs optax: pip install 'gradtx[test]'."
        ) from None
    return optax


Call = tuple[Any, Mapping[str, Any]]


def peer(tx: GradientTransformation) -> tuple[Call, Any] | None:
    """Return optax's transformation of the same name and arguments, and its call.

    `None` where optax has none. Arguments that have their default, and those that only
    gradtx knows, are left out.
    """
    optax = _optax()
    factory, given = tx.call.factory, dict(tx.call.arguments)
    name = factory.__name__
    if name == "accumulate":
        inner = _converted(given["inner"])
        theirs = optax.MultiSteps(inner, given["every"]).gradient_transformation()
        return (optax.MultiSteps, {}), theirs
    theirs = getattr(optax, name, None) or getattr(optax.contrib, name, None)
    if theirs is None:
        return None
    if name in ("chain", "named_chain"):
        parts = [_converted(v) for v in next(iter(given.values()))]
        return (theirs, {}), theirs(*parts)
    known = inspect.signature(theirs).parameters
    own = inspect.signature(factory).parameters
    arguments = {
        k: _converted(v)
        for k, v in given.items()
        if k in known and (own[k].default is own[k].empty or v != own[k].default)
    }
    if "gradtx" in str(theirs.__module__):
        return None
    made = optax.with_extra_args_support(theirs(**arguments))
    whole = inspect.signature(theirs).bind(**arguments)
    whole.apply_defaults()
    return (theirs, whole.arguments), made


def _converted(value: Any) -> Any:
    """Replace gradtx's values inside an argument by optax's."""
    if isinstance(value, GradientTransformation):
        made = peer(value)
        if made is None:
            raise LookupError(f"optax has no {value.name}")
        return made[1]
    if isinstance(value, Schedule):
        return getattr(_optax(), value.call.factory.__name__)(**value.call.arguments)
    if isinstance(value, tuple):
        return tuple(map(_converted, value))
    if isinstance(value, dict):
        return {k: _converted(v) for k, v in value.items()}
    return value


def tables(found: Iterable[tuple[str, Result]]) -> Iterator[str]:
    """Yield the lines of the comparison as Markdown."""
    found = sorted(found, key=lambda item: (item[1].transformation, item[0]))
    names: dict[str, set[str]] = collections.defaultdict(set)
    for library, result in found:
        names[library].add(result.transformation)
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("gradtx", "optax", "jax", "numpy")
    )
    counts = collections.Counter((lib, r.outcome) for lib, r in found)
    yield f"Measured with {versions} on Python {sys.version.split()[0]}."
    yield ""
    for library in ("gradtx", "optax"):
        cells = sum(n for (lib, _), n in counts.items() if lib == library)
        yield (
            f"- **{library}**: {len(names[library])} transformations, {cells} cells: "
            f"{counts[library, 'pass']} pass, {counts[library, 'fail']} fail, "
            f"{counts[library, 'exempt']} declared, {counts[library, 'absent']} not "
            "checked."
        )
    yield from _by_property(found)
    yield from _by_transformation(found, names["optax"])
    yield from _declared(found)


def _by_property(found: list[tuple[str, Result]]) -> Iterator[str]:
    yield ""
    yield "| | property | gradtx fails | optax fails | said fairly |"
    yield "|---|---|---|---|---|"
    for code, prop in PROPERTIES.items():
        shown = []
        for library in ("gradtx", "optax"):
            mine = [r for lib, r in found if lib == library and r.code == code]
            mine = [r for r in mine if r.outcome != "absent"]
            bad = {r.transformation for r in mine if r.outcome == "fail"}
            total = len({r.transformation for r in mine})
            shown.append(f"{len(bad)} of {total}" if mine else "–")
        yield f"| {code} | {prop.claim} | {' | '.join(shown)} | {BY_DESIGN.get(code, '')} |"


def _by_transformation(
    found: list[tuple[str, Result]], common: set[str]
) -> Iterator[str]:
    yield ""
    yield "Cells that fail, by transformation; a property fails where one cell does."
    yield ""
    yield "| transformation | gradtx | optax | properties that optax fails |"
    yield "|---|---|---|---|"
    for name in sorted({r.transformation for _, r in found}):
        row = []
        for library in ("gradtx", "optax"):
            mine = [
                r
                for lib, r in found
                if (lib, r.transformation) == (library, name) and r.outcome != "absent"
            ]
            bad = [r for r in mine if r.outcome == "fail"]
            row.append((f"{len(bad)} of {len(mine)}" if mine else "–", bad))
        codes = sorted({r.code for r in row[1][1]}, key=lambda c: int(c[1:]))
        yield f"| `{name}` | {row[0][0]} | {row[1][0]} | {' '.join(codes)} |"


def _declared(found: list[tuple[str, Result]]) -> Iterator[str]:
    yield ""
    yield "Cells in which gradtx declares an exception, with the reason:"
    yield ""
    yield "| transformation | cells | reason |"
    yield "|---|---|---|"
    rows: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    for library, r in found:
        if library == "gradtx" and r.outcome == "exempt":
            rows[r.transformation, r.detail].append(f"{r.code} {r.cell}")
    for (name, reason), cells in rows.items():
        yield f"| `{name}` | {', '.join(cells)} | {reason} |"


if __name__ == "__main__":
    sys.exit(main())
