"""Run steps in another process, which never saw the one that saved the state.

`python -m gradtx.testing._elsewhere` answers requests on its standard input: each is a
pickle of the pipe's other end, so no untrusted data is read.
"""

from __future__ import annotations

import atexit
import functools
import os
import pickle
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.testing._property import Unavailable
from gradtx.testing._subject import Subject

#: Settings that change the numbers or the errors of a computation.
_SETTINGS = (
    "jax_enable_x64",
    "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
    "jax_default_matmul_precision",
    "jax_platforms",
)


def continued_elsewhere(
    subject: Subject, dtype: str, params: Any, state: Any, grads: list[Any]
) -> list[bytes]:
    """Return the bytes of parameters and state after more steps in a new process.

    Only the transformation by name, and the leaves' bytes, go there: the structure of
    the state is made by `init` there.

    Raises:
      Unavailable: if the transformation cannot be pickled.
    """
    try:
        tx = pickle.dumps((subject.tx, subject.traits, subject.axis))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise Unavailable(f"cannot be sent to another process: {error}") from None
    request = {
        "settings": {name: getattr(jax.config, name) for name in _SETTINGS},
        "tx": tx,
        "dtype": dtype,
        "leaves": [_sent(x) for x in jax.tree.leaves((params, state))],
        "grads": jax.tree.map(np.asarray, grads),
    }
    worker = _worker(os.environ.get("XLA_FLAGS"))
    assert worker.stdin is not None
    assert worker.stdout is not None
    pickle.dump(request, worker.stdin)
    worker.stdin.flush()
    answer = pickle.load(worker.stdout)
    if isinstance(answer, BaseException):
        raise answer
    return answer


@functools.cache
def _worker(flags: str | None) -> subprocess.Popen[bytes]:
    """Return the other process, started once for each setting of the compiler."""
    del flags  # it finds them in its surroundings, as this process did
    process = subprocess.Popen(
        [sys.executable, "-m", "gradtx.testing._elsewhere"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )

    def close() -> None:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.wait(10)

    atexit.register(close)
    return process


def _sent(x: jax.Array) -> np.ndarray:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    return np.asarray(x)


def _answer(request: dict[str, Any]) -> list[bytes]:
    for name, value in request["settings"].items():
        jax.config.update(name, value)
    tx, traits, axis = pickle.loads(request["tx"])
    subject = Subject(tx, traits)
    subject.axis = axis
    params = subject.params(request["dtype"])
    template = (params, subject.init(params))
    leaves, structure = jax.tree.flatten(template)
    kept = [
        _restored(like, x) for like, x in zip(leaves, request["leaves"], strict=True)
    ]
    params, state = structure.unflatten(kept)
    for grads in request["grads"]:
        grads = jax.tree.map(jnp.asarray, grads)
        params, state, _ = subject.step(params, state, grads)
    return [_sent(x).tobytes() for x in jax.tree.leaves((params, state))]


def _restored(like: jax.Array, x: np.ndarray) -> jax.Array:
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(x), impl=jax.random.key_impl(like))
    return jnp.asarray(x)


def main() -> None:
    """Answer requests until the other end closes its pipe."""
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer: Any = _answer(request)
        except Exception as error:  # the other end raises it
            answer = RuntimeError(f"{type(error).__name__}: {error}")
        pickle.dump(answer, sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
