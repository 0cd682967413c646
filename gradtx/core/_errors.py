"""Define the errors that gradtx raises.

```
GradtxError
├── ArgumentError (ValueError)         an argument of a factory that makes no sense
├── MissingArgumentError (ValueError)  `update` was called without what the link needs
├── TreeMismatchError (ValueError)     two trees differ: a leaf missing or unexpected
│   └── ShapeError                     a leaf of another shape
├── DtypeError (TypeError)             a leaf of a dtype that the operation excludes
├── AxisNameError (NameError)          a collective over an axis that is not mapped here
├── DivergedError (ArithmeticError)    a run that no skip, back-off or roll-back mends
├── DescriptionError (TypeError)       a value that JSON cannot carry, or data that
│                                      describes no value
└── CheckpointError (RuntimeError)     a checkpoint that cannot be made or used
    ├── DamagedError                   its bytes are not those that were written
    ├── MismatchError                  it was made by another optimizer, or of other
    │                                  arrays
    └── NoCheckpointError              there is none, or none that is good
```

Every message says what was wrong, what was got and how to mend it. `link` is the
transformation that raised, put in front of the message.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class GradtxError(Exception):
    """Any error that gradtx raises on purpose.

    Attributes:
      link: name of the transformation that raised, or `None`.
    """

    def __init__(self, message: str, link: str | None = None):
        super().__init__(message, link)
        self.link = link

    def __str__(self) -> str:
        message = self.args[0]
        return f"{self.link}: {message}" if self.link else message


@contextlib.contextmanager
def signed(link: str) -> Iterator[None]:
    """Put the name of a link before errors that carry none yet."""
    try:
        yield
    except GradtxError as error:
        error.link = error.link or link
        raise


class ArgumentError(GradtxError, ValueError):
    """An argument of a factory is out of its range or of the wrong kind."""


class MissingArgumentError(GradtxError, ValueError, TypeError):
    """`update` was called without an argument that the transformation needs."""


class TreeMismatchError(GradtxError, ValueError):
    """Two trees that must have one structure differ."""


class ShapeError(TreeMismatchError):
    """Two leaves that must have one shape differ."""


class DtypeError(GradtxError, TypeError):
    """A leaf has a dtype that the operation excludes."""


class AxisNameError(GradtxError, NameError):
    """A collective names an axis that no `pmap`, `vmap` or `shard_map` binds."""


class DivergedError(GradtxError, ArithmeticError):
    """A training run makes no progress, and a person must look at it."""


class DescriptionError(GradtxError, TypeError):
    """A value cannot be written as plain data, or data describes no value."""


class OrderWarning(UserWarning):
    """The parts of an optimizer stand in an order that is seldom meant."""


class CheckpointError(GradtxError, RuntimeError):
    """A checkpoint cannot be made or used."""


class DamagedError(CheckpointError):
    """The bytes of a checkpoint are not those that were written, or not all there."""


class MismatchError(CheckpointError):
    """A checkpoint was made by another optimizer, or holds other arrays."""


class NoCheckpointError(CheckpointError, FileNotFoundError):
    """There is no checkpoint, or none that is good."""


for _kind in [GradtxError, *GradtxError.__subclasses__()]:
    for _error in [_kind, *_kind.__subclasses__()]:
        _error.__module__ = "gradtx"  # how tracebacks spell them
