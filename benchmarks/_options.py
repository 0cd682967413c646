"""What a run of the benchmarks is asked for."""

from __future__ import annotations

from typing import Any, NamedTuple

#: One measurement: "measure", "unit", what it was taken on, "subject", "value".
Row = dict[str, Any]


class Options(NamedTuple):
    """The command line's choices, for every scenario."""

    size: str = "normal"  # of the trees
    full: bool = False
    rounds: int = 7
    turn: float = 0.1  # seconds a subject is timed in one round
    patience: float = 60.0  # seconds after which a case gets no more rounds
    pipelined: bool = False  # wait once a turn: on a GPU
    trees: tuple[str, ...] = ()  # none: all that the scenario has
    optimizers: tuple[str, ...] = ()

    @property
    def timing(self) -> dict[str, Any]:
        """What `interleaved` is told."""
        return {
            "rounds": self.rounds,
            "turn": self.turn,
            "patience": self.patience,
            "pipelined": self.pipelined,
        }

    @property
    def quick(self) -> bool:
        """Whether two minutes are all there is."""
        return self.size == "quick"

    def pick(self, asked: str, quick: tuple, normal: tuple, full: tuple) -> tuple:
        """Return what was asked for by name, or what suits the size of the run."""
        named: tuple = getattr(self, asked)
        if named:
            return tuple(n for n in full if n in named)
        return full if self.full else quick if self.quick else normal
