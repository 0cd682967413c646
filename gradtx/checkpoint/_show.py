"""Say in words what is in a checkpoint, and how two differ."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradtx.checkpoint._changes import (
    Change,
    brief,
    leaf_text,
    optimizer_changes,
)
from gradtx.checkpoint._manifest import is_signed, read_manifest
from gradtx.checkpoint._records import Manifest


def describe(path: str | os.PathLike[str]) -> str:
    """Return what a step says of itself, for a person to read; its arrays are not read.

    Args:
      path: of the step.

    Raises:
      DamagedError: if its manifest is damaged.
    """
    directory = Path(path)
    manifest = read_manifest(directory)
    counts = {k: v for k, v in manifest.counts.items() if k != "states"}
    signed = "signed; not checked here" if is_signed(directory) else "not signed"
    lines = [
        f"step {manifest.step} in {directory}",
        f"  counts      {_pairs(counts)}",
        f"  optimizer   {brief(manifest.optimizer) if manifest.optimizer else 'none'}",
        f"  record      {brief(manifest.record)}",
        f"  written by  {_pairs(manifest.versions)}, {manifest.processes} process(es)",
        f"  mesh        {_pairs(manifest.mesh) or 'none'}, x64 {_on(manifest.x64)}",
        f"  files       {len(manifest.files)}, "
        f"{_size(sum(file.size for file in manifest.files))}, {signed}, "
        f"{'encrypted with ' + manifest.cipher if manifest.cipher else 'not encrypted'}",
    ]
    for tree, leaves in manifest.trees.items():
        total = sum(leaf.nbytes for leaf in leaves)
        lines.append(f"  {tree}: {len(leaves)} leaves, {_size(total)}")
        for leaf in leaves:
            value = manifest.counts.get("states", {}).get(f"{tree}{leaf.path}")
            told = "" if value is None else f" = {value}"
            lines.append(f"    {leaf.path or '.'}  {leaf_text(leaf)}{told}")
    return "\n".join(lines)


def diff(path: str | os.PathLike[str], other: str | os.PathLike[str]) -> list[Change]:
    """Return how two steps differ: optimizers, counters, leaves and their contents.

    Args:
      path: of the one step.
      other: of the other.

    Raises:
      DamagedError: if a manifest is damaged.
    """
    then, now = read_manifest(Path(path)), read_manifest(Path(other))
    changes = optimizer_changes(then.optimizer, now.optimizer)
    changes += _table("counts", _counts(then), _counts(now))
    changes += _table("record", {"": brief(then.record)}, {"": brief(now.record)})
    changes += _table("", _leaves(then), _leaves(now))
    return changes


def _counts(manifest: Manifest) -> dict[str, str]:
    known = {f".{k}": str(v) for k, v in manifest.counts.items() if k != "states"}
    return {".step": str(manifest.step), **known}


def _leaves(manifest: Manifest) -> dict[str, str]:
    values = manifest.counts.get("states", {})
    return {
        f"{tree}{leaf.path}": f"{leaf_text(leaf)} "
        + str(values.get(f"{tree}{leaf.path}", f"({leaf.sha256[:8]})"))
        for tree, leaves in manifest.trees.items()
        for leaf in leaves
    }


def _table(prefix: str, then: Mapping[str, str], now: Mapping[str, str]):
    return [
        Change("leaf", f"{prefix}{name}", then.get(name, "-"), now.get(name, "-"))
        for name in {**then, **now}
        if then.get(name) != now.get(name)
    ]


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"


def _on(flag: bool) -> str:
    return "on" if flag else "off"
