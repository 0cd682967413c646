"""The JAX subjects: gradtx with plain and with packed parameters, and optax."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

import gradtx
from benchmarks._optimizers import optimizer
from benchmarks._timing import Contestant
from benchmarks._trees import Shapes, abstract, arrays, shapes

#: In the order in which tables show them.
JAX_SUBJECTS = ("gradtx", "gradtx packed", "optax")
#: Optimizers that treat matrices as matrices: in a flat buffer there are none.
SHAPED = {"adafactor", "muon"}


class Step(NamedTuple):
    """A jitted step, and shapes to trace it with."""

    function: Any  # (params, state, grads) -> (params, state), the first two donated
    params: Any
    state: Any

    def lower(self) -> Any:
        """Trace and lower the step; the gradients are like the parameters."""
        return self.function.lower(self.params, self.state, self.params)


def subjects(name: str = "") -> tuple[str, ...]:
    """Return the names of the JAX subjects that there are.

    Args:
      name: an optimizer; one that looks at shapes is no subject where they are gone.
    """
    return tuple(s for s in JAX_SUBJECTS if name not in SHAPED or s != "gradtx packed")


def parts(
    subject: str, name: str
) -> tuple[Any, Callable[..., Any], Callable[..., Any]]:
    """Return a subject's optimizer, its `apply_updates`, and how it holds a tree."""
    library: Any = optax if subject == "optax" else gradtx
    hold = library.pack if subject == "gradtx packed" else lambda tree: tree
    return optimizer(library, name), library.apply_updates, hold


def step_of(tx: Any, apply: Callable[..., Any]) -> Any:
    """Return the jitted step that everything is measured on.

    Results stand in the order of the donated arguments: XLA pairs buffers of one shape
    in order, and copies where the pairs cross.
    """

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return apply(params, updates), state

    return jax.jit(step, donate_argnums=(0, 1))


@functools.cache
def step(subject: str, name: str, tree: str, size: str) -> Step:
    """Return the step of a subject on a tree; one program for all scenarios."""
    return step_on(subject, name, tuple(shapes(tree, size).items()))


def step_on(subject: str, name: str, leaves: tuple[tuple[str, Any], ...]) -> Step:
    """Return the step of a subject on a tree of the given shapes."""
    tx, apply, hold = parts(subject, name)
    params = jax.eval_shape(hold, abstract(dict(leaves)))
    return Step(step_of(tx, apply), params, jax.eval_shape(tx.init, params))


def contestant(subject: str, name: str, tree: str, size: str, grads: Any) -> Contestant:
    """Return the running step of a subject, with parameters and state of its own.

    Args:
      subject: one of `JAX_SUBJECTS`.
      name: the optimizer.
      tree: one of `TREES`.
      size: the size of the tree.
      grads: JAX arrays of the plain tree, shared between subjects.
    """
    tx, _, hold = parts(subject, name)
    function = step(subject, name, tree, size).function
    params = jax.jit(hold)(initial(shapes(tree, size)))
    held = [params, jax.jit(tx.init)(params)]
    if subject == "gradtx packed":
        grads = jax.jit(hold)(grads)

    def run():
        held[:] = function(*held, grads)

    return Contestant(run, lambda: jax.block_until_ready(held))


def initial(tree: Shapes, scale: float = 0.02, seed: int = 0) -> dict[str, jax.Array]:
    """Return a tree of numbers on the device."""
    numbers = arrays(tree, scale, seed)
    return {name: jax.numpy.array(x, copy=True) for name, x in numbers.items()}
