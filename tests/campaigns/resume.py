"""Save every transformation, restore it in a new process, and compare all bits.

    python -m tests.campaigns.resume                    all of the catalogue
    python -m tests.campaigns.resume --cases 6          a sample
    python -m tests.campaigns.resume --only adam lion   these

One process trains ten steps and saves after some of them; another one restores each of
these and trains the rest. Parameters and states must have the bytes of the first.
"""

from __future__ import annotations

import pathlib
import random
import sys
import tempfile
from typing import Any

import jax

from gradtx import checkpoint
from gradtx.testing import Subject, catalogue
from tests.campaigns._figures import Figures, options, report
from tests.campaigns._processes import Server
from tests.campaigns._states import raw

STEPS = 10
CUTS = (1, 4, 7)
DTYPES = ("float32", "bfloat16")
#: Transformations that one process tries, to share its start.
TOGETHER = 16


def trained(
    directory: pathlib.Path, names: list[str], dtype: str, cuts: tuple[int, ...]
) -> dict[str, list[bytes]]:
    """Train, save after each cut, and return the bytes at the end by name."""
    return {name: _trained(directory / name, name, dtype, cuts) for name in names}


def _trained(
    run: pathlib.Path, name: str, dtype: str, cuts: tuple[int, ...]
) -> list[bytes]:
    subject = Subject(catalogue()[name])
    params = subject.params(dtype)
    state = jax.jit(subject.init)(params)
    for step in range(1, STEPS + 1):
        params, state, _ = subject.step(params, state, subject.grads(dtype, step))
        if step in cuts:
            checkpoint.save(run, step, tx=subject.tx, params=params, opt_state=state)
    return raw((params, state))


def resumed(
    directory: pathlib.Path, names: list[str], dtype: str, cuts: tuple[int, ...]
) -> dict[str, dict[int, list[bytes]]]:
    """Return the bytes at the end after each cut by name, of runs that go on there."""
    return {
        name: _resumed(directory / name, name, dtype, cuts)
        for name in names
        if (directory / name).exists()
    }


def _resumed(
    run: pathlib.Path, name: str, dtype: str, cuts: tuple[int, ...]
) -> dict[int, list[bytes]]:
    subject, found = Subject(catalogue()[name]), {}
    fresh = subject.params(dtype)
    like = lambda: {"params": fresh, "opt_state": subject.init(fresh)}
    for number, cut in enumerate(cuts):
        # shapes tell as much as arrays do
        given: Any = jax.jit(like)() if number % 2 else jax.eval_shape(like)
        back = checkpoint.restore(run, step=cut, tx=subject.tx, **given)
        params, state = back["params"], back["opt_state"]
        for step in range(cut + 1, STEPS + 1):
            grads = subject.grads(dtype, step)
            params, state, _ = subject.step(params, state, grads)
        found[cut] = raw((params, state))
    return found


def campaign(
    server: Server,
    names: list[str],
    directory: pathlib.Path,
    cuts: tuple[int, ...] = CUTS,
    dtypes: tuple[str, ...] = DTYPES,
) -> list[Figures]:
    """Return the figures of each dtype.

    Args:
      server: to run both processes.
      names: of transformations in the catalogue.
      directory: an empty one to work in.
      cuts: after how many steps to save.
      dtypes: of the parameters.
    """
    rows = []
    for dtype in dtypes:
        row = Figures(dtype)
        for start in range(0, len(names), TOGETHER):
            part = names[start : start + TOGETHER]
            where = directory / dtype
            ends = server.run(trained, where, part, dtype, cuts)
            again = server.run(resumed, where, part, dtype, cuts)
            for name in part:
                for cut in cuts:
                    row.cases += 1
                    same = again[name][cut] == ends[name]
                    row.harmless += same
                    row.silent += not same
                    if not same:
                        row.fail(f"{name} differs after a cut at {cut}")
        rows.append(row)
    return rows


def sample(count: int, seed: int) -> list[str]:
    """Return names of the catalogue, all of them where `count` is 0."""
    names = list(catalogue())
    return random.Random(seed).sample(names, count) if count else names


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign."""
    parser = options("Resume every transformation.", 0)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--dtypes", nargs="*", default=DTYPES)
    given = parser.parse_args(arguments)
    names = given.only or sample(given.cases, given.seed)
    with tempfile.TemporaryDirectory() as directory, Server() as server:
        rows = campaign(
            server, names, pathlib.Path(directory), dtypes=tuple(given.dtypes)
        )
    return report("resume", rows)


if __name__ == "__main__":
    sys.exit(main())
