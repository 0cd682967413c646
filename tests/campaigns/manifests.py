"""Give the reader of manifests what nobody would write, and see that it says so.

    python -m tests.campaigns.manifests                    1,000,000 inputs
    python -m tests.campaigns.manifests --processes 2      on several cores

Most inputs carry digests that fit, so that what is behind the digests is reached.
Either `DamagedError` comes out, or a manifest that is written as it was read.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import hashlib
import pathlib
import random
import resource
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from gradtx import checkpoint
from gradtx.checkpoint import Leaf, Manifest, StateRecord
from gradtx.checkpoint._files import FileRecord
from gradtx.checkpoint._manifest import sealed, unsealed
from gradtx.checkpoint._records import digest_of_pieces
from gradtx.core import DamagedError, GradtxError
from tests.campaigns._figures import Figures, options, report, total
from tests.campaigns._mutations import Mutations
from tests.campaigns._states import Run, kinds, raw, saved

CASES = 1_000_000
#: Seconds of the processor for one input, and bytes in use at once for one.
SLOWEST, LARGEST = 0.05, 8 << 20


def example() -> Manifest:
    """Return a small manifest in which every kind of entry occurs."""
    digest = hashlib.sha256(b"").hexdigest()
    pieces = ([[[0, 2], [0, 3]], digest], [[[2, 4], [0, 3]], digest])
    leaves = (
        Leaf("['w']", (4, 3), "float32", digest, spec=("data", None)),
        Leaf("['k']", (2,), "uint32", digest, kind="key:threefry2x32"),
        Leaf("", (), "bool", digest, kind="bool"),
    )
    moments = (
        Leaf(".count", (), "int32", digest, state=0, field="count"),
        Leaf(
            ".mu['w']",
            (4, 3),
            "bfloat16",
            digest_of_pieces(pieces),
            state=0,
            field="mu",
            spec=(["data", "model"], None),
            pieces=pieces,
        ),
    )
    return Manifest(
        step=7,
        counts={
            "batches_consumed": 7,
            "updates_applied": None,
            "states": {"opt_state.count": 7},
        },
        optimizer={"name": "adam", "arguments": {"learning_rate": 0.001}},
        record={"seed": 3},
        trees={"params": leaves, "opt_state": moments},
        states=(
            StateRecord(
                "opt_state",
                "",
                "adam",
                "",
                "ScaleByAdamState",
                1,
                {"count": "count", "mu": "per_param"},
            ),
        ),
        files=(
            FileRecord("arrays/d/0f", 300, digest),
            FileRecord("arrays/manifest.ocdbt", 20, digest),
        ),
        versions={"gradtx": "0.1"},
        x64=False,
        mesh={"data": 2},
    )


def campaign(cases: int, seed: int, measured: int = 100) -> list[Figures]:
    """Return the figures of each way to make an input.

    Args:
      cases: how many inputs.
      seed: which ones; with 0 come all places in the data with each odd value, too.
      measured: of so many inputs, the memory for one is measured, which is slow.
    """
    draw, mutations = random.Random(seed), Mutations(sealed(example(), None))
    unsealed(mutations.raw)
    rows = {name: Figures(name) for name, *_ in mutations.ways}
    for case in range(cases):
        name, text = mutations.draw(draw)
        row = rows[name]
        row.cases += 1
        before = len(row.failures)
        if case % measured == 0:
            _measure(row, text)
        began = time.thread_time()
        _check(row, text)
        if time.thread_time() - began > SLOWEST and (again := _seconds(text)) > SLOWEST:
            row.fail(f"takes {again:.3f} s")
        row.failures[before:] = [
            f"{why} (seed {seed}, case {case}: {text[:80]!r})"
            for why in row.failures[before:]
        ]
    each = Figures("each value")
    for text in mutations.each() if seed == 0 else ():
        each.cases += 1
        _check(each, text)
    return [*rows.values(), each]


def _check(row: Figures, text: bytes) -> None:
    try:
        made = unsealed(text)
    except DamagedError:
        row.detected += 1
        return
    except BaseException as error:
        row.fail(f"raises {error!r}")
        return
    try:
        again = sealed(made, None)
    except Exception as error:
        row.fail(f"was read, and writing it raises {error!r}")
        return
    # a signature is not looked at without the key
    if again.split(b"\n")[0] != text.split(b"\n")[0]:
        row.silent += 1
        row.fail("is another manifest once it was read")
    else:
        row.harmless += 1


def _seconds(text: bytes) -> float:
    """Return how long it takes at best: collecting garbage may fall into one try."""
    found = []
    for _ in range(3):
        began = time.thread_time()
        with contextlib.suppress(Exception):
            unsealed(text)
        found.append(time.thread_time() - began)
    return min(found)


def _measure(row: Figures, text: bytes) -> None:
    tracemalloc.start()
    with contextlib.suppress(Exception):  # `_check` judges these
        unsealed(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    if peak > LARGEST:
        row.fail(f"takes {peak} bytes for an input of {len(text)}")


def campaign_used(cases: int, seed: int, directory: pathlib.Path) -> list[Figures]:
    """Go on with what the reader lets through: a real step with another manifest.

    Args:
      cases: how many manifests; about one in ten is let through.
      seed: which ones.
      directory: an empty one to work in.
    """
    draw, kind = random.Random(seed), kinds()["adamw"]
    run = saved(directory, kind, (1, 2))
    path, other = (directory / f"step_{number:08d}" for number in (2, 1))
    row, file = Figures("used"), path / "manifest.json"
    mutations = Mutations(file.read_bytes())
    for case in range(cases):
        text = mutations.values(draw)
        row.cases += 1
        try:
            unsealed(text)
        except DamagedError:
            row.detected += 1
            continue
        file.write_bytes(text)
        _use(row, run, path, other, f"(seed {seed}, case {case})")
    return [row]


def _use(
    row: Figures, run: Run, path: pathlib.Path, other: pathlib.Path, which: str
) -> None:
    trees = run.trees[2]
    like = {"tx": run.kind.tx, **trees}
    uses: list[Callable[[], Any]] = [
        lambda: checkpoint.describe(path),
        lambda: checkpoint.diff(path, other),
        lambda: checkpoint.verify(path, arrays=True),
        lambda: checkpoint.restore(path, **like),
        lambda: checkpoint.restore(path, migrate=True, **like),
    ]
    refused = 0
    for number, use in enumerate(uses):
        try:
            found = use()
        except GradtxError:
            refused += 1
        except BaseException as error:
            row.fail(f"use {number} raises {error!r} {which}")
        else:
            restored = isinstance(found, checkpoint.Restored)
            if restored and not found.changes and raw(found.trees) != raw(trees):
                row.silent += 1
                row.fail(f"use {number} returns other values {which}")
    row.detected += refused > 0
    row.harmless += refused == 0


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign, in several processes."""
    parser = options("Read odd manifests.", CASES)
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args(arguments)
    parts = max(1, given.cases // 25_000)
    seeds = [given.seed * parts + part for part in range(parts)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run = functools.partial(campaign, given.cases // parts)
    if given.processes > 1:
        with concurrent.futures.ProcessPoolExecutor(given.processes) as pool:
            found = list(pool.map(run, seeds))
    else:
        found = list(map(run, seeds))
    rows = [total(row[0].name, row) for row in zip(*found, strict=True)]
    status = report("manifests", rows)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    with tempfile.TemporaryDirectory() as directory:
        used = campaign_used(given.cases // 200, given.seed, pathlib.Path(directory))
    status |= report("used", used)
    print(f"memory of this process grew by {grown / 1024:.0f} MiB")
    return status


if __name__ == "__main__":
    sys.exit(main())
