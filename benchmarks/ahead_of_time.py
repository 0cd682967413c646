"""Ahead of time: the programs of a GPU, compiled where there is none.

    python -m benchmarks.ahead_of_time [--device h200] [--trees gpt2,many]

Needs JAX's CUDA plugin (`pip install 'jax[cuda12]'`) in a Python that has optax too, but
no GPU and no driver. What it reports is what the compiler decides without measuring:
no kernel is tuned, and products are left to the library that a GPU would choose from.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any
from unittest import mock

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from benchmarks import _report, _subjects
from benchmarks._optimizers import OPTIMIZERS, suits
from benchmarks._options import Row
from benchmarks._timing import once
from benchmarks._traffic import traffic
from benchmarks._trees import TREES, abstract, count, shapes

#: What the compiler asks about a device. Sources: NVIDIA's data sheets of H100 SXM and
#: H200, and the table of compute capability 9.0 in the CUDA C++ Programming Guide.
HOPPER = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "threads_per_core_limit": 2048,
    "thread_dim_limit_x": 1024,
    "thread_dim_limit_y": 1024,
    "thread_dim_limit_z": 64,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 2**16 - 1,
    "block_dim_limit_z": 2**16 - 1,
    "core_count": 132,
    "fpus_per_core": 128,
    "clock_rate_ghz": 1.98,
    "shared_memory_per_block": 48 * 2**10,
    "shared_memory_per_block_optin": 227 * 2**10,
    "shared_memory_per_core": 228 * 2**10,
    "registers_per_core_limit": 2**16,
    "registers_per_block_limit": 2**16,
    "l2_cache_size": 50 * 2**20,
}
DEVICES = {
    "h100": HOPPER
    | {"memory_bandwidth": 3_350 * 10**9, "device_memory_size": 80 * 10**9},
    "h200": HOPPER
    | {"memory_bandwidth": 4_800 * 10**9, "device_memory_size": 141 * 10**9},
}


def target(device: str) -> str:
    """Return a device as XLA's text of a target."""
    lines = [f"  {key}: {value}" for key, value in DEVICES[device].items()]
    return "\n".join(
        [
            "gpu_device_info {",
            *lines,
            "  cuda_compute_capability { major: 9 }",
            '  runtime_version: "12.8.0"',
            '  driver_version: "12.8.0"',
            "}",
            'platform_name: "CUDA"',
            "dnn_version_info { major: 9 minor: 10 }",
            f'device_description_str: "{device.upper()}"',
        ]
    )


def measure(device: str, trees: list[str], names: list[str]) -> list[Row]:
    """Compile every subject's step for a device and read what it does."""
    rows: list[Row] = []
    # JAX looks "gpu" up among the devices that are here (jax issue 23971)
    found = mock.patch(
        "jax._src.xla_bridge.canonicalize_platform",
        lambda platform: "cuda" if platform == "gpu" else platform,
    )
    # what gradtx computes otherwise on a CPU
    backend = mock.patch.object(jax, "default_backend", return_value="gpu")
    with found, backend:
        topology = topologies.get_topology_desc(
            platform="cuda", target_config=target(device), topology="1x1x1"
        )
        place = SingleDeviceSharding(topology.devices[0])
        for tree in trees:
            for name in names:
                if suits(name, tree, "normal"):
                    for subject in _subjects.subjects(name):
                        rows += _case(subject, name, tree, place)
    return rows


def _case(subject: str, name: str, tree: str, place: Any) -> list[Row]:
    leaves = shapes(tree)
    tx, apply, hold = _subjects.parts(subject, name)
    params = jax.eval_shape(hold, abstract(leaves))
    state = jax.eval_shape(tx.init, params)
    params, state = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        (params, state),
    )
    made: list[Any] = [_subjects.step_of(tx, apply).lower(params, state, params)]
    seconds = once(lambda: made.append(made[-1].compile()))
    found = traffic(made[-1], count(leaves))
    case = {"tree": tree, "optimizer": name, "subject": subject}
    values = [
        ("compile", "s", seconds),
        ("kernels", "kernels", found.kernels),
        ("bytes", "bytes per parameter", found.bytes),
        ("passes", "passes over the parameters", found.passes),
        ("temporaries", "bytes per parameter", found.temporaries),
    ]
    return [case | {"measure": m, "unit": unit, "value": v} for m, unit, v in values]


def main(arguments: list[str]) -> int:
    """Print the tables of a device."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ahead_of_time",
        description=(__doc__ or "").split("\n")[0],
    )
    parser.add_argument("--device", default="h200", choices=DEVICES)
    parser.add_argument("--trees", default="gpt2", help=f"some of {','.join(TREES)}")
    parser.add_argument(
        "--optimizers", default="clip_adamw", help=f"some of {','.join(OPTIMIZERS)}"
    )
    asked = parser.parse_args(arguments)
    # no device is here to time products on
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0"
    )
    rows = measure(asked.device, asked.trees.split(","), asked.optimizers.split(","))
    print(_report.text(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
