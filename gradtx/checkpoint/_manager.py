"""Keep the steps of a run: save beside the training, remove old ones, stop in time."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax

from gradtx.checkpoint._cipher import Cipher
from gradtx.checkpoint._files import make_directory
from gradtx.checkpoint._processes import is_first
from gradtx.checkpoint._restore import Restored, restore
from gradtx.checkpoint._save import Plan, check_key
from gradtx.checkpoint._steps import hidden_path, leftovers, step_path, steps
from gradtx.checkpoint._verify import Good, latest_good, verify
from gradtx.core import (
    CheckpointError,
    DamagedError,
    GradientTransformation,
    NoCheckpointError,
    check_count,
)


class Manager:
    """Save steps of a run in the background, keep the newest, and restore.

    Arrays are copied when `save` is called and written by a thread, one step at a time:
    `save` waits for the one before. What went wrong in the thread is raised by the next
    call of `save`, `wait` or `close`; a step is one only once it is whole on the disk.

    Steps go up. A run that has restored one goes on from there: newer steps, damaged or
    given up, are moved aside when it saves, under names that end in `.damaged` and
    `.abandoned`. Nobody but a person deletes these.

    Args:
      directory: of the run. Made if it is missing.
      tx: the optimizer whose states are saved.
      keep: how many of the newest steps stay, 1 or more.
      keep_every: steps that are multiples of it stay too, for good.
      every: `save` does nothing at steps that are not multiples of it, unless the run
        is about to be stopped or `force=True`.
      background: whether to write in a thread; else `save` returns once it is done.
      key, cipher: as in `save`.
      watch: makes the context in which a step is written, in the thread, or restored,
        of `"save"` or `"restore"`: `recorder.checkpoint` of a `telemetry.Recorder`
        times and counts them, failures too.

    Raises:
      ArgumentError: if a number is out of range.

    Example:
      >>> import tempfile, jax.numpy as jnp, gradtx
      >>> params = {"w": jnp.ones(2)}
      >>> with (
      ...     tempfile.TemporaryDirectory() as run,
      ...     gradtx.checkpoint.Manager(run, keep=2) as manager,
      ... ):
      ...     for step in (10, 20, 30):
      ...         _ = manager.save(step, params=params)
      ...     manager.wait()
      ...     manager.steps()
      [30, 20]
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        tx: GradientTransformation | None = None,
        keep: int = 3,
        keep_every: int | None = None,
        every: int = 1,
        background: bool = True,
        key: bytes | None = None,
        cipher: Cipher | None = None,
        watch: Callable[[Any], AbstractContextManager[Any]] | None = None,
    ):
        check_count(1, keep=keep, every=every)
        if keep_every is not None:
            check_count(1, keep_every=keep_every)
        check_key(key)
        self.directory = Path(directory).absolute()
        self._tx, self._keep, self._keep_every = tx, keep, keep_every
        self._every, self._background = every, background
        self._key, self._cipher = key, cipher
        self._watch = watch or (lambda what: contextlib.nullcontext())
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="gradtx-checkpoint")
        self._running: Future[Path] | None = None
        self._stop = threading.Event()
        self._begin: int | None = None  # the step from which this run goes on
        if is_first():
            make_directory(self.directory)
            for path in list(leftovers(self.directory)):
                shutil.rmtree(path, ignore_errors=True)

    def save(
        self, step: int, *, force: bool = False, **saved: Any
    ) -> Future[Path] | None:
        """Save a step, if it is its turn.

        Args:
          step: the number of the step.
          force: whether to save whatever `every` says.
          **saved: the arguments of `gradtx.checkpoint.save`: trees, `record`, `batches`,
            `updates`.

        Returns:
          What will hold the path, or None where it was not the step's turn.

        Raises:
          ArgumentError: as `save` does.
          CheckpointError: if the step, or a newer one, is there already and this run
            did not begin before it.
          Exception: what went wrong in the thread with the step before.
        """
        if not (force or self.stopping or step % self._every == 0):
            return None
        self.wait()
        plan = _plan(step, self._tx, self._key, self._cipher, saved)
        self._check_order(plan.step)
        if self._background:
            self._running = self._pool.submit(self._write, plan.detached())
            return self._running
        done: Future[Path] = Future()
        done.set_result(self._write(plan))
        return done

    def restore(self, *, step: int | None = None, **arguments: Any) -> Restored:
        """Return the newest good step, or the one of a number.

        Args:
          step: which; by default the newest that is good.
          **arguments: those of `gradtx.checkpoint.restore`.

        Raises:
          NoCheckpointError, DamagedError, MismatchError, ArgumentError: as it does.
        """
        self.wait()
        defaults = {"tx": self._tx, "key": self._key, "cipher": self._cipher}
        with self._watch("restore"):
            found = restore(self.directory, step=step, **{**defaults, **arguments})
        self._begin = found.step
        return found

    def latest_good(self) -> Good | None:
        """Return the newest step that verifies, or None where there are no steps.

        Raises:
          NoCheckpointError: if there are steps and none is good.
        """
        self.wait()
        return latest_good(self.directory, key=self._key) if self.steps() else None

    def steps(self) -> list[int]:
        """Return the numbers of all steps on the disk, the newest first."""
        return list(steps(self.directory))

    def wait(self) -> None:
        """Wait for what is being written.

        Raises:
          Exception: what went wrong with it; once.
        """
        running, self._running = self._running, None
        if running is not None:
            running.result()

    @property
    def stopping(self) -> bool:
        """Whether the run was told to stop, by a signal or by the scheduler of a pod.

        Of several processes, one that is told tells none of the others: ask
        `stop_at(step)` in its place there.
        """
        return self._stop.is_set()

    def stop_at(self, step: int) -> bool:
        """Say whether all processes are to stop at this step, and save it.

        It is the same answer on all of them, so that they save the same step.
        """
        if jax.process_count() == 1:
            return self.stopping
        from jax.experimental import multihost_utils

        told = multihost_utils.reached_preemption_sync_point(step)
        if told:
            self._stop.set()
        return told

    @contextlib.contextmanager
    def preemption(self, signals: Iterable[int] = (signal.SIGTERM,)):
        """Notice signals to stop, so that the loop can save and end.

        Inside the block a signal sets `stopping` and does nothing else; a second one of
        the same kind does what it did before. Only the main thread can do this.

        Args:
          signals: which signals.
        """
        before = {number: signal.getsignal(number) for number in signals}

        def told(number: int, frame: Any) -> None:
            self._stop.set()
            signal.signal(number, before[number])

        for number in before:
            signal.signal(number, told)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def close(self) -> None:
        """Wait for what is being written, and end the thread.

        Raises:
          Exception: what went wrong with it.
        """
        try:
            self.wait()
        finally:
            self._pool.shutdown()

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None:
            self.close()
            return
        with contextlib.suppress(Exception):  # the first error is the one to see
            self.close()

    def _check_order(self, step: int) -> None:
        """Raise where a step would lie before, or upon, one that this run did not leave."""
        there = [number for number in self.steps() if number >= step]
        if not there or (self._begin is not None and step > self._begin):
            return
        if there == [step] and not self._is_good(step):
            return
        raise CheckpointError(
            f"{step_path(self.directory, there[0])} is there already, and step {step} is "
            "no newer. Restore with this manager first, to go on from the newest step or, "
            "with step=, from an earlier one; or save in another directory."
        )

    def _is_good(self, step: int) -> bool:
        try:
            verify(step_path(self.directory, step), key=self._key)
        except (DamagedError, NoCheckpointError):
            return False
        return True

    def _write(self, plan: Plan) -> Path:
        with self._watch("save"):
            self._set_aside(plan.step)
            path = plan.write(self.directory)
            self._begin = plan.step
            self._remove_old()
        return path

    def _set_aside(self, step: int) -> None:
        """Move away the steps that are newer than the one from which this run goes on."""
        begin = step - 1 if self._begin is None else self._begin
        for number, path in steps(self.directory).items() if is_first() else ():
            if number > begin or number == step:
                kind = "abandoned" if self._is_good(number) else "damaged"
                nonce = f"{secrets.randbits(48):x}"
                os.rename(path, path.with_name(f"{path.name}.{nonce}.{kind}"))

    def _remove_old(self) -> None:
        if not is_first():
            return
        # the newest has just been read back: at least one good step stays
        for number, path in list(steps(self.directory).items())[self._keep :]:
            if self._keep_every is not None and number % self._keep_every == 0:
                continue
            gone = hidden_path(path, "removing", secrets.randbits(48))
            os.rename(path, gone)  # from here on it is no step, half removed or not
            shutil.rmtree(gone)


def _plan(step: int, tx: Any, key: Any, cipher: Any, saved: dict[str, Any]) -> Plan:
    given = {"tx": tx, "key": key, "cipher": cipher, **saved}
    named = {
        name: given.pop(name, None)
        for name in ("tx", "batches", "updates", "record", "key", "cipher")
    }
    return Plan(step, trees=given, **named)
