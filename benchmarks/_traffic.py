"""Count what an optimized program does: kernels, passes over the parameters, bytes.

A *kernel* is an executed instruction that does work: a fusion, a copy, a product, a
reduction. Parameters, constants, tuples and bitcasts are free.

The *bytes* of a kernel are its operands' and its results', each array once. An operand
of which a fusion only reads slices is charged the slices; an array updated in place is
charged what is written. They are what must cross the memory bus if no cache keeps
anything from one kernel to the next.

The *passes* are the kernels, each weighted by its largest array's share of the
parameters: 148 kernels, one a leaf, are one pass, and so is one kernel over a buffer
with all leaves in it. With leaves of one size this is kernels that touch an array of
leaf size ÷ leaves.

Control flow: a conditional counts its cheapest branch (gradtx repeats a norm only if it
overflowed, and peers have no branches); a loop counts its body times its trip count,
or once where that is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks._program import Computation, Instruction, Program, parse

_FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "partition-id",
    "replica-id",
    "opt-barrier",
    "domain",
}
_SLICES = {"slice", "dynamic-slice", "gather"}
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Kernel(NamedTuple):
    """What one executed kernel reads and writes."""

    name: str
    opcode: str
    read: float  # bytes
    written: float  # bytes
    largest: float  # elements of the largest array it reads or writes
    times: int = 1

    @property
    def bytes(self) -> float:
        """Bytes moved by all its executions."""
        return (self.read + self.written) * self.times


class Traffic(NamedTuple):
    """What a compiled step costs, where that is no matter of time."""

    bytes: float  # moved per parameter
    passes: float  # over the parameters
    kernels: int
    temporaries: float  # bytes per parameter
    instructions: int
    peak: float  # bytes: arguments, results that no argument became, temporaries


def traffic(compiled: Any, parameters: int) -> Traffic:
    """Measure a compiled program over `parameters` elements.

    Args:
      compiled: what `jax.jit(f).lower(...).compile()` returns.
      parameters: how many elements the parameters have.
    """
    program = parse(compiled.as_text())
    found = kernels(program)
    memory = compiled.memory_analysis()
    kept = memory.argument_size_in_bytes - memory.alias_size_in_bytes
    return Traffic(
        bytes=sum(k.bytes for k in found) / parameters,
        passes=sum(k.largest * k.times for k in found) / parameters,
        kernels=sum(k.times for k in found),
        temporaries=memory.temp_size_in_bytes / parameters,
        instructions=program.size,
        peak=kept + memory.output_size_in_bytes + memory.temp_size_in_bytes,
    )


def kernels(program: Program) -> list[Kernel]:
    """Return what the program executes, in order."""
    return list(_executed(program, program.entry))


def _executed(program: Program, computation: Computation) -> Iterator[Kernel]:
    for instruction in computation.instructions.values():
        opcode = instruction.opcode
        bodies = [program.computations[name] for name in instruction.called]
        if opcode in _FREE or opcode.endswith(("-done", "-update")):
            continue
        if opcode == "conditional":
            branches = [list(_executed(program, body)) for body in bodies]
            yield from min(branches, key=lambda b: sum(k.bytes for k in b))
        elif opcode == "while":
            trips = _TRIPS.search(instruction.attributes)
            for kernel in [k for body in bodies for k in _executed(program, body)]:
                yield kernel._replace(
                    times=kernel.times * int(trips[1] if trips else 1)
                )
        elif bodies and opcode in ("call", "async-start"):
            yield from _executed(program, bodies[0])
        else:
            yield _kernel(computation, instruction, bodies)


def _kernel(
    computation: Computation, instruction: Instruction, bodies: list[Computation]
) -> Kernel:
    fused = bodies[0] if instruction.opcode == "fusion" else None
    sizes = []  # (elements, bytes read)
    for position, operand in enumerate(instruction.operands):
        source = computation.instructions[operand]
        if source.opcode == "constant" or operand in instruction.operands[:position]:
            continue
        if fused is not None:
            sizes.append(_read(fused, fused.parameters[position]))
        else:
            sizes.append(_operand(computation, instruction, source))
    written = list(_written(fused or computation, (fused or instruction)))
    arrays = sizes + written
    return Kernel(
        name=instruction.name,
        opcode=instruction.opcode,
        read=sum(size for _, size in sizes),
        written=sum(size for _, size in written),
        largest=max((elements for elements, _ in arrays), default=0),
    )


def _operand(
    computation: Computation, user: Instruction, source: Instruction
) -> tuple[float, float]:
    """Return the elements and bytes that an instruction outside a fusion reads."""
    if user.operands[0] == source.name and user.opcode in _SLICES:
        return _whole(user)
    if user.operands[0] == source.name and user.opcode == "dynamic-update-slice":
        return 0, 0
    return _whole(source)


def _read(fused: Computation, parameter: Instruction) -> tuple[float, float]:
    """Return the elements and bytes of a parameter that a fusion reads."""
    elements = size = 0.0
    waiting = [parameter.name]
    while waiting:
        name = waiting.pop()
        for user in fused.users(name):
            if user.opcode == "bitcast":
                waiting.append(user.name)
            elif user.operands[0] != name or user.opcode not in (
                *_SLICES,
                "dynamic-update-slice",
            ):
                return _whole(parameter)
            elif user.opcode in _SLICES:
                elements, size = (
                    elements + _whole(user)[0],
                    size + _whole(user)[1],
                )
        if fused.instructions[name].root:
            return _whole(parameter)
    whole = _whole(parameter)
    return min(elements, whole[0]), min(size, whole[1])


def _written(
    computation: Computation, result: Computation | Instruction
) -> Iterator[tuple[float, float]]:
    """Yield the elements and bytes of each array that a kernel writes."""
    root = result.root if isinstance(result, Computation) else result
    roots = [root]
    if isinstance(result, Computation) and root.opcode == "tuple":
        roots = [computation.instructions[name] for name in root.operands]
    for one in roots:
        while isinstance(result, Computation) and one.opcode == "bitcast":
            one = computation.instructions[one.operands[0]]
        if one.opcode == "dynamic-update-slice":
            yield _whole(computation.instructions[one.operands[1]])
        else:
            yield _whole(one)


def _whole(instruction: Instruction) -> tuple[float, float]:
    shapes = instruction.shapes
    return sum(s.elements for s in shapes), sum(s.bytes for s in shapes)
