"""Measure gradtx against NumPy, optax and torch, and write docs/parity.md.

    python -m tests.parity.run -q --junitxml=results.xml
    python -m tests.parity.report results.xml [later results…]

The first command runs optax's own tests with gradtx in optax's place, the second walks
all trajectories of `tests/optimizers` and writes the page.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import math
import pathlib
import re
import sys
import xml.etree.ElementTree
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

import gradtx
from tests.optimizers import _cases, _paths, test_adaptive, test_more_rules
from tests.parity._explained import EXPLAINED

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "parity.md"
LATER = (test_more_rules, test_adaptive)


class Row(NamedTuple):
    """The largest relative errors of one form of an optimizer over 200 steps."""

    form: str
    numpy: float
    optax: float | None
    torch: float | None


def rows() -> Iterator[Row]:
    """Walk every case in float64, with all libraries that define it alike."""
    try:
        from tests.optimizers import test_against_torch as torch_paths
    except BaseException:  # pytest.skip: this Python has no torch
        torch_paths = None
    for case in _cases.CASES:
        ours = _cases.ours(case, "double")
        gap = lambda theirs, ours=ours: _paths.error(ours, theirs)
        yield Row(
            _form(case.id, case.arguments),
            gap(_cases.reference_path(case)),
            gap(_cases.optax_path(case, "double")) if case.optax else None,
            gap(torch_paths.walk(case, "double"))
            if torch_paths and case.torch
            else None,
        )
    for module in LATER:
        for case in module.CASES:
            yield _later(module, case)


def _later(module, case) -> Row:
    truth = module._truth(case) if module is test_adaptive else module._expected(case)
    lenient = jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow")
    with jax.enable_x64(True), lenient[0], lenient[1]:
        tx = module._make(case, gradtx)
        ours = module._walk(tx, gradtx.apply_updates, jnp.float64)
        gap = None
        if case.optax:
            tx = optax.with_extra_args_support(module._make(case, optax))
            gap = _paths.error(ours, module._walk(tx, optax.apply_updates, jnp.float64))
    return Row(_form(case.id, case.arguments), _paths.error(ours, truth), gap, None)


def _form(name, arguments) -> str:
    shown = ", ".join(f"{k}={_short(v)}" for k, v in arguments.items())
    return f"{name.split()[0]}({shown})"


def _short(value) -> str:
    return getattr(value, "__name__", None) or repr(value)


def forms() -> list[str]:
    """Return the forms of which the table must have a row."""
    cases = [*_cases.CASES, *(case for module in LATER for case in module.CASES)]
    return [_form(case.id, case.arguments) for case in cases]


def differences() -> dict[str, str]:
    """Return what each public docstring says of how its subject differs."""
    found = {}
    for name, value in sorted(vars(gradtx).items()):
        if not inspect.isfunction(value):
            continue
        for text in re.findall(
            r"^(Differs\s+from.*?)(?:\n\n|\Z)", inspect.getdoc(value) or "", re.M | re.S
        ):
            found[name] = found.get(name, "") + " ".join(text.split()) + " "
    return {name: text.strip() for name, text in found.items()}


def outcomes(paths: list[str]) -> tuple[Counter[str], dict[str, str]]:
    """Return how many of optax's tests passed, and the reason for each that did not.

    Raises:
      ValueError: if a test failed for which `_explained` has no reason.
    """
    count: Counter[str] = Counter()
    failed = {}
    seen: dict[str, str] = {}
    for path in paths:  # a later run of a test counts instead of an earlier one
        seen.update(_kinds(path))
    for name, kind in seen.items():
        count[kind] += 1
        if kind != "failed":
            continue
        reason = next((r for p, r in EXPLAINED.items() if re.search(p, name)), None)
        if reason is None:
            raise ValueError(f"no reason is known why {name} fails")
        failed[name] = reason
    return count, failed


def _kinds(path: str) -> dict[str, str]:
    """Return the outcome of each test; subtests stand under the name of their test."""
    found: dict[str, str] = {}
    for case in xml.etree.ElementTree.parse(path).iter("testcase"):
        place = ".".join((case.get("classname") or "").split(".")[-2:])
        name = f"{place}::{case.get('name')}"
        kinds = {child.tag for child in case}
        kind = "failed" if kinds & {"failure", "error"} else "passed"
        if "skipped" in kinds:
            kind = "skipped"
        if found.get(name) != "failed":
            found[name] = kind
    return found


def _bound(x: float | None) -> str:
    if x is None:
        return "—"
    return "0" if x == 0 else f"1e{max(math.ceil(math.log10(x)), -15)}"


def page(measured: list[Row], count: Counter[str], failed: dict[str, str]) -> str:
    """Return the text of docs/parity.md."""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("jax", "optax", "torch")
    )
    lines = [
        "# Parity",
        "",
        "How near gradtx is to the papers, to optax and to torch. `python -m",
        "tests.parity.report` writes this page from a test run, here with "
        + versions
        + ".",
        "",
        "## Trajectories",
        "",
        "The largest difference of a parameter over 200 steps, relative to the distance",
        "travelled, is at most what the table says; all libraries compute in float64. The",
        "NumPy references in `tests/optimizers` are written from the papers. A dash stands",
        "where a library has no such form, or deliberately means something else by it: see",
        "[Differences](#differences).",
        "",
        "| form | paper (NumPy) | optax | torch |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{r.form}` | {_bound(r.numpy)} | {_bound(r.optax)} | {_bound(r.torch)} |"
        for r in measured
    ]
    lines += [
        "",
        "`muon`, `galore`, `sophia`, `lbfgs`, the wrappers `lookahead`, `sam` and the line",
        "searches have tests of their own shape, with the same references: 200 steps, or",
        "until the minimum is reached.",
        "",
        "## Differences",
        "",
        "What the docstrings say of it, each with its reason:",
        "",
        "| name | difference |",
        "|---|---|",
    ]
    lines += [f"| `{name}` | {_cell(text)} |" for name, text in differences().items()]
    ran = count["passed"] + count["failed"]
    lines += [
        "",
        "Rules that hold everywhere, such as the dtypes of states, are in",
        "[Coming from optax](how-to/from-optax.md).",
        "",
        "## optax's own tests",
        "",
        "optax ships its tests. `python -m tests.parity.run` runs them with gradtx in",
        f"optax's place: {count['passed']} of {ran} pass, {count['passed'] / ran:.1%}",
        f"({count['skipped']} skip themselves). The others, and why:",
        "",
        "| reason | tests |",
        "|---|---|",
    ]
    by_reason: dict[str, list[str]] = {}
    for name, reason in sorted(failed.items()):
        by_reason.setdefault(reason, []).append(name.rpartition("::")[2])
    for reason, names in sorted(by_reason.items()):
        stems = Counter(re.sub(r"\d+$", "", name) for name in names)
        shown = ", ".join(
            f"`{stem}`" + (f" ({n})" if n > 1 else "") for stem, n in stems.items()
        )
        lines.append(f"| {reason} | {shown} |")
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(results: list[str]) -> None:
    """Write docs/parity.md."""
    count, failed = outcomes(results)
    PAGE.write_text(page(list(rows()), count, failed))


if __name__ == "__main__":
    main(sys.argv[1:])
