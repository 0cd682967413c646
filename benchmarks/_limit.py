"""The memory limit: a loop that moves the fewest bytes an optimizer can move.

On a CPU a small C program, compiled when first needed, adds arrays in place: as many
reads and writes as the optimizer's step, in one pass, on all cores where that pays.
Without a compiler numpy moves as many bytes, on one core. On a GPU the limit is a
device copy of as many bytes.
"""

from __future__ import annotations

import ctypes
import functools
import os
import pathlib
import shutil
import subprocess
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._optimizers import MINIMAL
from benchmarks._timing import Contestant

_SOURCE = r"""
#include <pthread.h>
#include <stddef.h>

typedef struct { float *p, *m, *v; const float *g; ptrdiff_t begin, end;
                 double sum; } part;

static void *norm(void *argument) {
  part *a = argument;
  float lanes[16] = {0};
  ptrdiff_t i = a->begin;
  for (; i + 16 <= a->end; i += 16)
    for (int k = 0; k < 16; k++) lanes[k] += a->g[i + k] * a->g[i + k];
  a->sum = 0;
  for (int k = 0; k < 16; k++) a->sum += lanes[k];
  return NULL;
}

static void *move(void *argument) {
  part *a = argument;
  float *restrict p = a->p, *restrict m = a->m, *restrict v = a->v;
  const float *restrict g = a->g;
  if (a->v)
    for (ptrdiff_t i = a->begin; i < a->end; i++) {
      m[i] = 0.9f * m[i] + 0.1f * g[i];
      v[i] = 0.9f * v[i] + 0.1f * g[i];
      p[i] = p[i] - 1e-3f * (m[i] + v[i]);
    }
  else if (a->m)
    for (ptrdiff_t i = a->begin; i < a->end; i++) {
      m[i] = 0.9f * m[i] + 0.1f * g[i];
      p[i] = p[i] - 1e-3f * m[i];
    }
  else
    for (ptrdiff_t i = a->begin; i < a->end; i++) p[i] = p[i] - 1e-3f * g[i];
  return NULL;
}

static void spread(void *(*work)(void *), part all, int threads, double *sum) {
  pthread_t made[64];
  part parts[64];
  ptrdiff_t share = (all.end + threads - 1) / threads / 16 * 16 + 16;
  for (int t = 0; t < threads; t++) {
    parts[t] = all;
    parts[t].begin = t * share < all.end ? t * share : all.end;
    parts[t].end = (t + 1) * share < all.end ? (t + 1) * share : all.end;
    if (t) pthread_create(&made[t], NULL, work, &parts[t]);
  }
  work(&parts[0]);
  *sum = parts[0].sum;
  for (int t = 1; t < threads; t++) {
    pthread_join(made[t], NULL);
    *sum += parts[t].sum;
  }
}

double run(float *p, float *m, float *v, float *g, ptrdiff_t n, int norms,
           int threads) {
  part all = {p, m, v, g, 0, n, 0};
  double sum = 0, ignored;
  for (int k = 0; k < norms; k++) spread(norm, all, threads, &sum);
  spread(move, all, threads, &ignored);
  return sum;
}
"""


@functools.cache
def library() -> ctypes.CDLL | None:
    """Compile the loop, or return None where no compiler is there."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    folder = pathlib.Path(tempfile.mkdtemp(prefix="gradtx-limit-"))
    source, target = folder / "limit.c", folder / "limit.so"
    source.write_text(_SOURCE)
    # not -ffast-math: a library linked so makes the whole process flush denormals
    fast = ["-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros"]
    fast += ["-fassociative-math", "-freciprocal-math", "-ffinite-math-only"]
    flags = ["-O3", "-march=native", *fast, "-shared", "-fPIC", "-pthread"]
    command = [compiler, *flags, str(source), "-o", str(target)]
    if subprocess.run(command, capture_output=True).returncode:
        return None
    loaded = ctypes.CDLL(str(target))
    loaded.run.restype = ctypes.c_double
    return loaded


def how() -> str:
    """Say what the limit was measured with."""
    if jax.default_backend() == "gpu":
        return "device copy"
    return "C loop" if library() else "numpy, one core"


def contestant(name: str, parameters: int) -> Contestant:
    """Return the limit of an optimizer for a number of float32 parameters."""
    if jax.default_backend() == "gpu":
        return _on_device(MINIMAL[name] * parameters)
    moments = {5: 1, 7: 2, 8: 2}.get(MINIMAL[name], 0)
    norms = MINIMAL[name] - 3 - 2 * moments
    arrays = [_aligned(parameters, seed) for seed in range(2 + moments)]
    if library() is None:
        return Contestant(functools.partial(_in_numpy, arrays, norms))
    return Contestant(functools.partial(_in_c, arrays, moments, norms))


def _in_c(arrays: list[np.ndarray], moments: int, norms: int) -> None:
    loop: Any = library()
    g, p, *rest = [ctypes.c_void_p(a.ctypes.data) for a in arrays]
    m, v = [*rest, None, None][:2]
    size = arrays[0].size
    # starting a thread takes as long as 100k elements do
    threads = len(os.sched_getaffinity(0)) if size > 400_000 else 1
    loop.run(p, m, v, g, ctypes.c_ssize_t(size), norms, min(threads, 64))


def _in_numpy(arrays: list[np.ndarray], norms: int) -> None:
    g, *written = arrays
    for _ in range(norms):
        np.dot(g, g)
    for array in written:
        np.add(array, g, out=array)  # reads g once more than a fused loop


def _aligned(elements: int, seed: int) -> np.ndarray:
    """Return positive numbers that start on a page, as XLA's and torch's arrays do."""
    raw = np.empty(elements * 4 + 4096, np.uint8)
    start = -raw.ctypes.data % 4096
    array = raw[start : start + elements * 4].view(np.float32)
    array[:] = 1e-3 * (seed + 1)
    return array


def _on_device(arrays: int) -> Contestant:
    """Return a copy that reads and writes `arrays` float32 together."""
    held = [jnp.zeros(arrays // 2, jnp.float32)]
    copy = jax.jit(lambda x: x + 1, donate_argnums=0)

    def run():
        held[0] = copy(held[0])

    return Contestant(run, lambda: jax.block_until_ready(held))
