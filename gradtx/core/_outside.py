"""Import a package that gradtx does without, or say how to get it."""

from __future__ import annotations

import importlib
from typing import Any


def imported(package: str, extra: str) -> Any:
    """Return a package or one of its modules.

    Args:
      package: its dotted name.
      extra: the extra of gradtx that installs it.

    Raises:
      ImportError: with the command that installs it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"this needs {package}, which is not installed: pip install 'gradtx[{extra}]'"
        ) from error
