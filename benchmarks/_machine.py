"""Say what a run was made with: versions, machine, load and date."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import pathlib
import platform
from typing import Any

import jax

PACKAGES = ("jax", "jaxlib", "gradtx", "optax", "torch", "numpy")


def describe() -> dict[str, Any]:
    """Return versions, machine and date, as plain data."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()} | _versions(),
        "machine": {
            "cpu": _cpu(),
            "cores": len(os.sched_getaffinity(0)),
            "system": platform.platform(),
            "device": jax.devices()[0].device_kind,
            "devices": jax.device_count(),
            "load": os.getloadavg()[0],  # of others, when the run begins
        },
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _cpu() -> str:
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    names = [
        line.split(":")[1].strip() for line in text.splitlines() if "model name" in line
    ]
    return names[0] if names else platform.machine()


def device() -> str:
    """Return a file name for the device: "cpu", or a GPU's kind."""
    if jax.default_backend() == "cpu":
        return "cpu"
    return jax.devices()[0].device_kind.lower().replace(" ", "-")
