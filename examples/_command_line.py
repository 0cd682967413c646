"""What a script needs at its edge: options, devices, interruption, refusal."""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Callable
from typing import Any

import jax


class Refused(Exception):
    """A request that makes no sense here; the message says what to ask for instead."""


def at_least(minimum: int) -> Callable[[str], int]:
    """Return a reader of integers from the command line, none below `minimum`."""

    def integer(text: str) -> int:
        number = int(text)
        if number < minimum:
            raise argparse.ArgumentTypeError(f"must be {minimum} or more, got {text}")
        return number

    return integer


def use_devices(wanted: int | None) -> list[Any]:
    """Return the devices to work on; a CPU is split into as many as are wanted.

    Must run before anything else makes JAX look for devices.
    """
    if wanted is not None:
        jax.config.update("jax_num_cpu_devices", wanted)
    devices = jax.local_devices()[:wanted]
    if wanted is not None and len(devices) < wanted:
        raise Refused(
            f"--devices {wanted}: there are {len(devices)} ({devices[0].platform}). "
            "JAX_PLATFORMS=cpu in the environment splits the CPU instead."
        )
    return devices


def defer_interrupts() -> Callable[[], None]:
    """Make Ctrl-C wait for a safe point, and return the function that marks one.

    JAX may crash at exit if it is interrupted while it compiles. A second Ctrl-C acts
    at once.
    """
    asked = threading.Event()

    def handle(*_: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        asked.set()

    def stop_if_asked() -> None:
        if asked.is_set():
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handle)
    return stop_if_asked
