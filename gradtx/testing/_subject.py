"""Hold what is under test: a transformation, and everything its `update` asks for."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.combinators import LookaheadParams, apply_if_finite, inject_hyperparams
from gradtx.core import (
    GradientTransformation,
    Traits,
    apply_updates,
    as_transformation,
    bits,
    unchecked,
)

#: The leaves of the usual parameters, by name.
SHAPES: Mapping[str, tuple[int, ...]] = {"w": (4, 3), "b": (3,)}


@dataclasses.dataclass(frozen=True)
class Library:
    """The functions of a library that the properties use around a transformation.

    Attributes:
      name: how tables call it.
      apply_updates: `(params, updates) -> params`.
      inject_hyperparams: `factory -> factory` of transformations with
        `state.hyperparams`.
      guard: `tx -> tx` that leaves out gradients that are not finite; its state has
        `inner_state`.
      pairs: the named tuple of fast and slow parameters of lookahead.
    """

    name: str
    apply_updates: Callable[[Any, Any], Any]
    inject_hyperparams: Callable[..., Any]
    guard: Callable[[Any], Any]
    pairs: type


def _guarded(tx: Any) -> Any:
    with unchecked():  # around anything, an average or a loss scale too
        return apply_if_finite(tx, 1000)


GRADTX = Library(
    "gradtx",
    apply_updates,
    inject_hyperparams,
    _guarded,
    LookaheadParams,
)


class Subject:
    """A transformation under test, with compiled steps that the properties share.

    Args:
      tx: a transformation, a raw pair or an optax transformation.
      traits: what it needs and how it behaves; by default what it declares.
      library: the library that it belongs to.
      call: its factory and arguments by name, where `tx` does not remember them.
    """

    def __init__(
        self,
        tx: Any,
        traits: Traits | None = None,
        library: Library = GRADTX,
        call: tuple[Callable[..., Any], Mapping[str, Any]] | None = None,
    ):
        known = tx if library is not GRADTX else as_transformation(tx)
        self.tx = known
        self.library = library
        self.traits = getattr(known, "traits", Traits()) if traits is None else traits
        self.call = call
        if call is None and isinstance(known, GradientTransformation):
            remembered = known.call
            if remembered.factory is not GradientTransformation:
                self.call = (remembered.factory, remembered.arguments)
        self.name = getattr(known, "name", None) or (
            getattr(call[0], "__name__", "partial") if call else "transformation"
        )
        arguments = self.call[1] if self.call else {}
        axis = arguments.get("axis_name")
        self.axis = axis if isinstance(axis, str) else None
        self._kept: dict[str, Any] = {}
        #: `moved`, compiled; once for each kind of arguments
        self.step = jax.jit(self.moved)

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what `make` returns, made once for this subject."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def with_tx(self, tx: Any) -> Subject:
        """Return another transformation that wants the same of its surroundings."""
        other = Subject(tx, self.traits, self.library, self.call)
        other.axis = self.axis
        return other

    # What goes in

    def params(self, dtypes: Any = "float32", fill: float | None = None) -> Any:
        """Return parameters, each in buffers of its own.

        Args:
          dtypes: a dtype for all leaves, or one by the name of each leaf.
          fill: the value of all elements; by default numbers between 0.5 and 1.5.
        """
        made = {}
        for name, shape in SHAPES.items():
            dtype = dtypes if isinstance(dtypes, str) else dtypes[name]
            values = _uniform(name, shape) if fill is None else np.full(shape, fill)
            made[name] = jnp.asarray(values).astype(dtype)
        return self.own(made)

    def own(self, params: Any) -> Any:
        """Return plain parameters in the form that the transformation wants."""
        if self.traits.form == "pairs":
            return self.library.pairs(params, jax.tree.map(jnp.array, params))
        return params

    def plain(self, params: Any) -> Any:
        """Return parameters or updates of the usual form."""
        return params.fast if self.traits.form == "pairs" else params

    def grads(self, dtypes: Any = "float32", seed: int = 0) -> Any:
        """Return gradients like the parameters, drawn from a normal distribution."""
        return {
            name: jnp.asarray(_normal(name, shape, seed)).astype(
                dtypes if isinstance(dtypes, str) else dtypes[name]
            )
            for name, shape in SHAPES.items()
        }

    # What is run

    def init(self, params: Any) -> Any:
        """Return a fresh state."""
        return self.tx.init(params)

    def update(self, grads: Any, state: Any, params: Any) -> Any:
        """Call `update` with all that it needs."""
        extra = self.extra(grads, params)
        given = grads
        if self.traits.form == "examples":
            given = jax.tree.map(_two_examples, grads)
        run = lambda: self.tx.update(given, state, params, **extra)
        if self.axis is None:
            return run()
        alone = jax.vmap(
            lambda _: run(), axis_name=self.axis, axis_size=1, out_axes=None
        )
        return alone(jnp.zeros(1))

    def extra(self, grads: Any, params: Any) -> dict[str, Any]:
        """Return the extra arguments that `update` needs."""
        known = {
            "value": 1.0,
            "grad": grads,
            "value_fn": objective,
            "obj_fn": objective,
            "grad_fn": lambda params, i: grads,
        }
        return {k: v for k, v in known.items() if k in self.traits.needs}

    def moved(self, params: Any, state: Any, grads: Any) -> tuple[Any, Any, Any]:
        """Return the next parameters, the next state, and the updates."""
        updates, state = self.update(grads, state, params)
        return self.library.apply_updates(params, updates), state, updates

    def run(self, params: Any, grads: list[Any], state: Any = None) -> Any:
        """Make compiled steps; return parameters, state and the updates of each."""
        state = self.init(params) if state is None else state
        made = []
        for g in grads:
            params, state, updates = self.step(params, state, g)
            made.append(updates)
        return params, state, made

    def expected(self, grads: Any, params: Any) -> Any:
        """Return a tree of the types that updates must have."""
        if self.traits.form == "pairs":
            absent = lambda x: x is None  # where an integer parameter stands
            slow = jax.tree.map(
                lambda g, p: g if absent(g) else p, grads, params.slow, is_leaf=absent
            )
            return self.library.pairs(grads, slow)
        return grads


def objective(params: Any) -> jax.Array:
    """Return the sum of the squares of all floating leaves, as a scalar."""
    floats = [x for x in jax.tree.leaves(params) if bits(x)]
    squares = [jnp.sum(jnp.square(jnp.abs(x))).astype(float) for x in floats]
    return sum(squares, jnp.zeros(()))


def _two_examples(g: Any) -> Any:
    if isinstance(g, np.ndarray):  # float0
        return np.broadcast_to(g, (2, *g.shape))
    return jnp.broadcast_to(g, (2, *g.shape))


@functools.cache
def _normal(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    salt = sum(map(ord, name))
    return np.random.default_rng([salt, seed, *shape]).normal(size=shape)


@functools.cache
def _uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng([sum(map(ord, name)), *shape]).uniform(0.5, 1.5, shape)


# What is compared


def types(tree: Any) -> Any:
    """Return what a compiled function depends on: structure, and type by leaf."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, [
        (tuple(x.shape), str(x.dtype), bool(getattr(x, "weak_type", False)))
        for x in leaves
    ]


def abstract(tree: Any) -> Any:
    """Return the shapes and dtypes of a tree."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def numbers(tree: Any) -> list[np.ndarray]:
    """Return the floating and complex leaves in 64 bits."""
    found = []
    for x in jax.tree.leaves(tree):
        if bits(x):
            wide = np.complex128 if jnp.iscomplexobj(x) else np.float64
            found.append(np.asarray(x).astype(wide))
    return found


def finite(tree: Any) -> bool:
    """Say whether every number is finite."""
    return all(np.isfinite(x).all() for x in numbers(tree))


def same_bits(a: Any, b: Any) -> bool:
    """Say whether two trees have the same structure, types and bits."""
    if types(a) != types(b):
        return False
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(_bytes(x) == _bytes(y) for x, y in pairs)


def _bytes(x: Any) -> bytes:
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    return np.asarray(x).tobytes()


def gap(a: Any, b: Any) -> float:
    """Return the largest difference of two trees, in ulps of each leaf's largest."""
    worst = 0.0
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    for x, y in pairs:
        if not bits(x) or not x.size:
            continue
        ulp = float(jnp.finfo(x.dtype).eps)
        (x,), (y,) = numbers(x), numbers(y)
        largest = max(np.abs(x).max(), np.abs(y).max())
        if not np.isfinite(largest):
            return np.inf
        if largest:
            worst = max(worst, float(np.abs(x - y).max() / largest / ulp))
    return worst


@contextlib.contextmanager
def quiet_donation() -> Iterator[None]:
    """Leave out JAX's warning about donated gradients that no output can use."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Some donated buffers were not usable")
        yield
