"""Run functions in new processes that take no time to start.

A server imports JAX, Orbax and gradtx once and starts no threads, so that it can be
forked: each child is a process with a backend and caches of its own. Answers are pickles
of the project's own processes, so no untrusted data is read.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

HERE = pathlib.Path(__file__).parent
COUNT, KILL, FULL, BROKEN = range(4)


class Died(NamedTuple):
    """A process that ended before it returned anything; `status` is that of `wait`."""

    status: int


class Server:
    """A process that forks. Use it in a `with` statement.

    Args:
      shim: whether children can break file-system calls; needs a C compiler.
    """

    def __init__(self, shim: bool = False):
        self._scratch = tempfile.TemporaryDirectory()
        more = {"OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        if shim:
            more["LD_PRELOAD"] = compiled(pathlib.Path(self._scratch.name))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.campaigns._processes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **more},
            cwd=HERE.parents[1],
        )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: Any) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait(30)
        self._scratch.cleanup()

    def start(self, function: Callable[..., Any], *arguments: Any) -> int:
        """Start a function in a new process, and return its number."""
        return self._ask(("start", _named(function), arguments))

    def finish(self, process: int) -> Any:
        """Return what a started function returned, or that it died.

        Raises:
          RuntimeError: with the traceback of what the function raised.
        """
        kind, value = self._ask(("finish", process, ()))
        if kind == "raised":
            raise RuntimeError(f"in another process:\n{value}")
        return Died(value) if kind == "died" else value

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Do both."""
        return self.finish(self.start(function, *arguments))

    def _ask(self, request: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump(request, self._process.stdin)
        self._process.stdin.flush()
        return pickle.load(self._process.stdout)


def _named(function: Callable[..., Any]) -> tuple[str, str]:
    module = function.__module__
    if module == "__main__":  # of a campaign that runs as a command
        module = sys.modules[module].__spec__.name  # type: ignore[union-attr]
    return module, function.__name__


def compiler() -> str | None:
    """Return the C compiler, where there is one and libraries can be loaded first."""
    return shutil.which("cc") if sys.platform == "linux" else None


def compiled(directory: pathlib.Path) -> str:
    """Return the library that breaks file-system calls."""
    library = directory / "shim.so"
    command = [str(compiler()), "-shared", "-fPIC", "-O1", "-o", str(library)]
    subprocess.run([*command, str(HERE / "_shim.c"), "-ldl", "-lpthread"], check=True)
    return str(library)


@functools.cache
def _shim() -> ctypes.CDLL:
    shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
    shim.gradtx_line.restype = ctypes.c_char_p
    shim.gradtx_line.argtypes = [ctypes.c_long]
    shim.gradtx_arm.argtypes = [
        ctypes.c_char_p,
        ctypes.c_long,
        ctypes.c_int,
        ctypes.c_int,
    ]
    shim.gradtx_disarm.restype = ctypes.c_long
    return shim


def arm(root: pathlib.Path, number: int, mode: int, lines: bool = False) -> None:
    """Break the call of that number below a directory; the first one is 1."""
    _shim().gradtx_arm(os.fsencode(root), number, mode, lines)


def disarm() -> tuple[int, bool]:
    """Return how many calls there were, and whether one was broken."""
    fired = ctypes.c_int()
    calls = _shim().gradtx_disarm(ctypes.byref(fired))
    return calls, bool(fired.value)


def lines(calls: int) -> list[str]:
    """Return the calls that were made, in words."""
    return [_shim().gradtx_line(number).decode() for number in range(calls)]


def main() -> None:
    """Fork for each request until the other end closes its pipe."""
    import jax
    import orbax.checkpoint  # noqa: F401

    import gradtx.testing  # noqa: F401

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 1)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what children print is no answer
    pipes: dict[int, int] = {}
    while True:
        try:
            kind, what, arguments = pickle.load(requests)
        except EOFError:
            return
        if kind == "start":
            function = getattr(importlib.import_module(what[0]), what[1])
            answer: Any = _start(function, arguments, pipes)
        else:
            with os.fdopen(pipes.pop(what), "rb") as pipe:
                written = pipe.read()
            _, status = os.waitpid(what, 0)
            answer = ("died", status) if status else pickle.loads(written)
        pickle.dump(answer, answers)
        answers.flush()


def _start(
    function: Callable[..., Any], arguments: tuple[Any, ...], pipes: dict[int, int]
) -> int:
    if len(os.listdir("/proc/self/task")) > 1:
        raise RuntimeError("the server has threads: its children could hang")
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        pipes[child] = reading
        return child
    try:
        answer = ("returned", function(*arguments))
    except BaseException:
        answer = ("raised", traceback.format_exc())
    with os.fdopen(writing, "wb") as pipe:
        pickle.dump(answer, pipe)
    os._exit(0)


if __name__ == "__main__":
    main()
