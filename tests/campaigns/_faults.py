"""Change the files of a saved step in one of many ways, and change them back."""

from __future__ import annotations

import os
import pathlib
import random
import shutil
from collections.abc import Callable

BLOCK = 512


class Step:
    """The files of a step, which can be put back as they were.

    Args:
      path: of the step.
      spare: a place on the same disk for what is not needed meanwhile.
    """

    def __init__(self, path: pathlib.Path, spare: pathlib.Path):
        self.path, self.spare = path, spare
        self.files = {
            str(file.relative_to(path)): file.read_bytes()
            for file in sorted(path.rglob("*"))
            if file.is_file()
        }
        self._names = list(self.files)
        self._sizes = [len(data) for data in self.files.values()]
        self._touched: set[str] = set()
        self._undo: list[Callable[[], None]] = []

    def place(self, draw: random.Random) -> tuple[str, int]:
        """Return a file and a position in it, uniform over all bytes of the step."""
        (name,) = draw.choices(self._names, self._sizes)
        return name, draw.randrange(len(self.files[name]))

    def name(self, draw: random.Random) -> str:
        """Return one of the files."""
        return draw.choice(self._names)

    def put(self, name: str, data: bytes) -> None:
        """Write a file."""
        self.remove(name)
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_bytes(data)

    def remove(self, name: str) -> None:
        """Remove a file, or what is in its place."""
        self._touched.add(name)
        path = self.path / name
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        elif os.path.lexists(path):
            path.unlink()

    def link(self, name: str, target: pathlib.Path) -> None:
        """Put a link in the place of a file."""
        self.remove(name)
        (self.path / name).symlink_to(target)

    def move(self, old: pathlib.Path, new: pathlib.Path) -> None:
        """Rename a file or a directory."""
        os.rename(old, new)
        self._undo.append(lambda: os.rename(new, old))

    def mend(self) -> None:
        """Put everything back."""
        while self._undo:
            self._undo.pop()()
        for name in self._touched:
            if name in self.files:
                self.put(name, self.files[name])
            else:
                self.remove(name)
        self._touched.clear()
        shutil.rmtree(self.spare, ignore_errors=True)

    def aside(self) -> pathlib.Path:
        """Return a place for something that is to be found nowhere."""
        self.spare.mkdir(exist_ok=True)
        return self.spare / "aside"


#: Changes a step, of which another is given too; says whether any byte is another.
Fault = Callable[[Step, Step, random.Random], bool]


def _edited(edit: Callable[[bytes, int, random.Random], bytes]) -> Fault:
    def fault(step: Step, other: Step, draw: random.Random) -> bool:
        name, at = step.place(draw)
        data = edit(step.files[name], at, draw)
        step.put(name, data)
        return data != step.files[name]

    return fault


def _flip(data: bytes, at: int, draw: random.Random) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]


def _truncate(data: bytes, at: int, draw: random.Random) -> bytes:
    return data[:at]


def _zero(data: bytes, at: int, draw: random.Random) -> bytes:
    size = min(draw.choice([1, 8, 64, BLOCK]), len(data) - at)
    return data[:at] + bytes(size) + data[at + size :]


def _overwrite(data: bytes, at: int, draw: random.Random) -> bytes:
    size = min(draw.choice([1, 4, 64, BLOCK]), len(data) - at)
    return data[:at] + draw.randbytes(size) + data[at + size :]


def _append(data: bytes, at: int, draw: random.Random) -> bytes:
    more = draw.randbytes(draw.choice([1, 64, BLOCK]))
    return data + draw.choice([more, b"\n", b"\0", data])


def _swap_blocks(data: bytes, at: int, draw: random.Random) -> bytes:
    size = min(draw.choice([4, 64, BLOCK]), len(data) // 2)
    first, second = sorted((at, draw.randrange(len(data))))
    second = min(max(second, first + size), len(data) - size)
    first = min(first, second - size)
    return b"".join(
        [
            data[:first],
            data[second : second + size],
            data[first + size : second],
            data[first : first + size],
            data[second + size :],
        ]
    )


def _delete_bytes(data: bytes, at: int, draw: random.Random) -> bytes:
    return data[:at] + data[at + draw.choice([1, 4, 64]) :]


def _swap_files(step: Step, other: Step, draw: random.Random) -> bool:
    one, two = step.name(draw), step.name(draw)
    step.put(one, step.files[two])
    step.put(two, step.files[one])
    return step.files[one] != step.files[two]


def _delete_file(step: Step, other: Step, draw: random.Random) -> bool:
    step.remove(step.name(draw))
    return True


def _duplicate(step: Step, other: Step, draw: random.Random) -> bool:
    step.put(f"arrays/{_unused(step, draw)}", step.files[step.name(draw)])
    return True


def _rename(step: Step, other: Step, draw: random.Random) -> bool:
    name = step.name(draw)
    step.remove(name)
    step.put(f"arrays/{_unused(step, draw)}", step.files[name])
    return True


def _unused(step: Step, draw: random.Random) -> str:
    base = pathlib.PurePath(step.name(draw)).name
    where = draw.choice(["", "d/", "ocdbt.process_0/d/"])
    return f"{where}{base}{draw.choice(['~', '.bak', '2', ' (copy)'])}"


def _link(step: Step, other: Step, draw: random.Random) -> bool:
    name = step.name(draw)
    copy = step.aside()
    copy.write_bytes(step.files[name])
    goals = [copy, other.path / name, pathlib.Path("/dev/zero"), step.path / "nothing"]
    step.link(name, draw.choice(goals))
    return True


def _directory(step: Step, other: Step, draw: random.Random) -> bool:
    name = step.name(draw)
    step.remove(name)
    (step.path / name).mkdir()
    return True


def _other_manifest(step: Step, other: Step, draw: random.Random) -> bool:
    step.put("manifest.json", other.files["manifest.json"])
    return True


def _other_arrays(step: Step, other: Step, draw: random.Random) -> bool:
    step.move(step.path / "arrays", step.aside())
    shutil.copytree(other.path / "arrays", step.path / "arrays")
    step._undo.append(lambda: shutil.rmtree(step.path / "arrays"))
    return True


def _other_step(step: Step, other: Step, draw: random.Random) -> bool:
    return _other_manifest(step, other, draw) and _other_arrays(step, other, draw)


def _other_file(step: Step, other: Step, draw: random.Random) -> bool:
    both = sorted(step.files.keys() & other.files.keys())
    name = draw.choice(both)
    step.put(name, other.files[name])
    return step.files[name] != other.files[name]


def _no_arrays(step: Step, other: Step, draw: random.Random) -> bool:
    step.move(step.path / "arrays", step.aside())
    return True


#: What happens to files, and how often.
FAULTS: dict[str, tuple[Fault, int]] = {
    "flip one bit": (_edited(_flip), 30),
    "truncate": (_edited(_truncate), 8),
    "zero a block": (_edited(_zero), 10),
    "overwrite by random bytes": (_edited(_overwrite), 10),
    "swap two blocks": (_edited(_swap_blocks), 8),
    "append bytes": (_edited(_append), 6),
    "cut bytes out": (_edited(_delete_bytes), 6),
    "swap two files": (_swap_files, 5),
    "delete a file": (_delete_file, 4),
    "duplicate a file": (_duplicate, 3),
    "rename a file": (_rename, 3),
    "a link for a file": (_link, 2),
    "a directory for a file": (_directory, 1),
    "manifest of another step": (_other_manifest, 1),
    "arrays of another step": (_other_arrays, 1),
    "another step under its name": (_other_step, 1),
    "a file of another step": (_other_file, 1),
    "no arrays": (_no_arrays, 1),
}
