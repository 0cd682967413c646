"""Read the text of an optimized XLA program into computations of instructions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple


class Shape(NamedTuple):
    """One array: how many elements it has, and the bytes that they take."""

    elements: int
    bytes: float


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]  # of its result; a tuple's elements one after another
    operands: tuple[str, ...]
    called: tuple[str, ...]  # the computations it names, in order
    arguments: str  # what stands between its parentheses
    attributes: str  # what follows them
    root: bool


class Computation(NamedTuple):
    """A named body: instructions in the order in which they are scheduled."""

    name: str
    instructions: dict[str, Instruction]

    @property
    def root(self) -> Instruction:
        """The instruction whose value the computation returns."""
        return next(i for i in self.instructions.values() if i.root)

    @property
    def parameters(self) -> list[Instruction]:
        """The parameters, by position."""
        found = [i for i in self.instructions.values() if i.opcode == "parameter"]
        return sorted(found, key=lambda i: int(i.arguments))

    def users(self, name: str) -> list[Instruction]:
        """Return the instructions that read `name`."""
        return [i for i in self.instructions.values() if name in i.operands]


class Program(NamedTuple):
    """All computations of a module."""

    entry: Computation
    computations: dict[str, Computation]

    @property
    def size(self) -> int:
        """How many instructions it has, those inside fusions included."""
        return sum(len(c.instructions) for c in self.computations.values())


_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{\s*$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,<=\s]*)\]")
_COMMENT = re.compile(r"/\*.*?\*/")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|body|condition|true_computation|false_computation|"
    r"branch_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)


def parse(text: str) -> Program:
    """Parse what `compiled.as_text()` prints."""
    computations: dict[str, Computation] = {}
    entry = current = None
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            current = Computation(header[2], {})
            computations[current.name] = current
            entry = current if header[1] else entry
        elif current is not None and (found := _LINE.match(line)):
            instruction = _instruction(found[2], found[3], bool(found[1]))
            current.instructions[instruction.name] = instruction
    if entry is None:
        raise ValueError("no ENTRY computation: is this the text of an XLA program?")
    return Program(entry, computations)


def _instruction(name: str, rest: str, root: bool) -> Instruction:
    rest = _COMMENT.sub("", rest)
    kind, rest = _head(rest)
    opcode, _, rest = rest.partition("(")
    end = _closing("(" + rest) - 1
    arguments, attributes = rest[:end], rest[end + 1 :]
    operands = () if opcode == "constant" else re.findall(r"%([\w.\-]+)", arguments)
    return Instruction(
        name=name,
        opcode=opcode.strip(),
        shapes=tuple(_shapes(kind)),
        operands=tuple(operands),
        called=tuple(_called(attributes)),
        arguments=arguments,
        attributes=attributes,
        root=root,
    )


def _head(text: str) -> tuple[str, str]:
    """Split a type from what follows it."""
    end = _closing(text) + 1 if text.startswith("(") else text.index(" ")
    return text[:end], text[end:].lstrip()


def _closing(text: str) -> int:
    """Return where the parenthesis that opens `text` closes."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return position
    raise ValueError(f"unbalanced parentheses in {text[:80]!r}")


def _called(attributes: str) -> Iterator[str]:
    for found in _CALLED.findall(attributes):
        yield from re.findall(r"[\w.\-]+", found)


def _shapes(kind: str) -> Iterator[Shape]:
    for dtype, lengths in _ARRAY.findall(kind):
        elements = 1
        for length in re.findall(r"\d+", lengths):
            elements *= int(length)
        yield Shape(elements, elements * _bits(dtype) / 8)


def _bits(dtype: str) -> int:
    if dtype == "pred":
        return 8
    width = re.search(r"\d+", dtype)  # f32, bf16, s4, f8e4m3fn, c64; a token has none
    return int(width[0]) if width else 0
