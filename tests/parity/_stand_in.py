"""Put gradtx in optax's place, so that optax's own tests run against it.

Under `install()` every `import optax…` of this process finds gradtx: `optax` and its
public namespaces hold what gradtx's hold, and a private module of optax is a window on
gradtx's public names. Only optax's test files and its `test_utils`, which
import nothing of optax but this, are loaded from its wheel.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import pathlib
import sys
import types
from typing import Any

import jax

import gradtx


def optax_root() -> pathlib.Path:
    """Return the folder of the installed optax, without importing it."""
    distribution = importlib.metadata.distribution("optax")
    return pathlib.Path(str(distribution.locate_file("optax")))


def install() -> None:
    """Make this process find gradtx wherever it asks for optax.

    Raises:
      RuntimeError: if optax has been imported before.
    """
    if "optax" in sys.modules:
        raise RuntimeError("optax is loaded already: install the stand-in first")
    optax = _Namespace("optax", gradtx)
    optax.__path__ = []
    sys.modules["optax"] = optax
    sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if not fullname.startswith("optax."):
            return None
        parts = fullname.split(".")[1:]
        if parts[-1] == "test_utils" or parts[-1].endswith("_test"):
            file = optax_root().joinpath(*parts).with_suffix(".py")
            return importlib.util.spec_from_file_location(fullname, file)
        return importlib.machinery.ModuleSpec(fullname, _Loader(), is_package=True)


class _Loader(importlib.abc.Loader):
    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:
        parts = spec.name.split(".")[1:]
        if all(not part.startswith("_") for part in parts):
            return _Namespace(spec.name, _public(parts))
        return _Window(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Do nothing: the module is complete as it was created."""


class _Namespace(types.ModuleType):
    """A public namespace of gradtx under the name that optax gives it."""

    def __init__(self, name: str, home: types.ModuleType):
        super().__init__(name)
        self.__dict__["_home"] = home
        self.__dict__.update(
            {k: v for k, v in vars(home).items() if not k.startswith("_")}
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or self.__dict__.get("_home") is None:
            raise AttributeError(name)
        return getattr(self.__dict__["_home"], name)


class _Window(types.ModuleType):
    """What stands for a private module: every name of gradtx's rooms and files."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        parts = self.__name__.split(".")[1:]
        if optax_root().joinpath(*parts, f"{name}.py").exists():
            # a module of optax, though gradtx may have a function of that name
            return importlib.import_module(f"{self.__name__}.{name}")
        files = [m for n, m in list(sys.modules.items()) if n.startswith("gradtx.")]
        for home in (_TOOLS, _public(parts[:-1]), gradtx, *_rooms(), *files):
            if hasattr(home, name):
                return getattr(home, name)
        raise AttributeError(f"gradtx has nothing in place of {self.__name__}.{name}")


class _TOOLS:
    """What optax's tests take from its private modules, but do not test."""

    x64_precision = staticmethod(jax.enable_x64)


def _public(parts: list[str]) -> types.ModuleType:
    """Return gradtx's namespace `parts`, or gradtx where there is none of that name."""
    found: Any = gradtx
    for part in parts:
        if part.startswith("_"):
            break
        found = getattr(found, part, found)
    return found


def _rooms() -> list[types.ModuleType]:
    return [
        room for room in vars(gradtx).values() if isinstance(room, types.ModuleType)
    ]
