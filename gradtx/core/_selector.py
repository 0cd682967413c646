"""Select leaves of a tree by path, rank or both: masks that can be written down."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradtx.core import _call
from gradtx.core._errors import ArgumentError
from gradtx.core._packed import as_shapes, repack, unpack
from gradtx.core._tree import EveryParam, shape_of

P = ParamSpec("P")


@dataclasses.dataclass(frozen=True, repr=False)
class Selector(_call.Remembered):
    """A function from a tree to a tree of bools or labels, leaf by leaf, with its call.

    It serves wherever a mask is asked for. It prints as the call that made it,
    compares by value, pickles and can be described, so an optimizer with a mask can
    be saved. Selectors combine: `a & b`, `a | b`, `~a`.

    Args:
      choose: `(path, leaf) -> bool` or a label. The path joins keys, attributes and indices by
        slashes: `"encoder/layers/0/kernel"`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> params = {"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
      >>> (gradtx.ndim_at_least(2) & ~gradtx.path_matches("embed"))(params)
      {'dense': {'bias': False, 'kernel': True}}
    """

    choose: Callable[[str, Any], Any] = dataclasses.field(compare=False)

    def __call__(self, tree: Any) -> Any:
        """Return a tree of what was chosen, of the structure of `tree`."""
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: self.choose(slashed(path), leaf), tree
        )

    def __and__(self, other: Selector) -> Selector:
        return all_of(self, other)

    def __or__(self, other: Selector) -> Selector:
        return any_of(self, other)

    def __invert__(self) -> Selector:
        return none_of(self)


def selector(
    factory: Callable[P, Callable[[str, Any], Any]],
) -> Callable[P, Selector]:
    """Turn a factory of functions `(path, leaf) -> bool` into a factory of selectors.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> @gradtx.selector
      ... def larger_than(elements):
      ...     return lambda path, leaf: leaf.size > elements
      >>> larger_than(3)({"a": jnp.ones(2), "b": jnp.ones(4)})
      {'a': False, 'b': True}
    """

    def finish(returned: Any, call: _call.Call) -> Selector:
        if not callable(returned):
            raise ArgumentError(
                f"the factory must return a function (path, leaf) -> bool, got "
                f"{returned!r}.",
                factory.__name__,
            )
        return Selector(returned, call=call)

    return _call.remembering(factory, Selector, finish)


@selector
def path_matches(pattern: str):
    """Select leaves in whose path a regular expression is found.

    Args:
      pattern: a regular expression, searched anywhere in the path, whose parts are
        joined by slashes: `"bias$"`, `"^encoder/"`, `"layers/(0|1)/"`.

    Raises:
      ArgumentError: if the pattern is no regular expression.

    Source: Python's `re.search`.
    """
    try:
        found = re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ArgumentError(f"{pattern!r} is no regular expression: {error}.") from None
    return lambda path, leaf: found.search(path) is not None


@selector
def ndim_at_least(ndim: int):
    """Select leaves of `ndim` axes or more: 2 for kernels and embeddings, not biases.

    Args:
      ndim: the smallest number of axes.

    Source: the usual exclusion of biases and scales from weight decay.
    """
    return lambda path, leaf: len(shape_of(leaf)) >= ndim


@selector
def label_paths(labels: Mapping[str, str], default: str):
    """Give each leaf the label of the first pattern found in its path.

    Args:
      labels: regular expressions, searched as in `path_matches`, and their labels.
      default: the label of a leaf in whose path none is found.

    Raises:
      ArgumentError: if a pattern is no regular expression.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> label = gradtx.label_paths({"embed": "slow", "head$": "fast"}, default="rest")
      >>> label({"embed": jnp.ones(2), "head": jnp.ones(2), "body": jnp.ones(2)})
      {'body': 'rest', 'embed': 'slow', 'head': 'fast'}

    Source: Python's `re.search`.
    """
    rules = [(path_matches(pattern), label) for pattern, label in labels.items()]

    def choose(path, leaf):
        return next((tag for rule, tag in rules if rule.choose(path, leaf)), default)

    return choose


@selector
def all_of(*selectors: Selector):
    """Select leaves that all of `selectors` select: `a & b`.

    Args:
      *selectors: none at all select everything.

    Source: Boolean conjunction.
    """
    return lambda path, leaf: all(s.choose(path, leaf) for s in selectors)


@selector
def any_of(*selectors: Selector):
    """Select leaves that at least one of `selectors` selects: `a | b`.

    Args:
      *selectors: none at all select nothing.

    Source: Boolean disjunction.
    """
    return lambda path, leaf: any(s.choose(path, leaf) for s in selectors)


@selector
def none_of(*selectors: Selector):
    """Select leaves that none of `selectors` selects: `~a`.

    Args:
      *selectors: none at all select everything.

    Source: Boolean joint denial.
    """
    return lambda path, leaf: not any(s.choose(path, leaf) for s in selectors)


def slashed(path: Any) -> str:
    """Join a key path by slashes: `encoder/layers/0/kernel`.

    A box around an array, such as a variable of Flax, adds nothing: its attribute
    `value` at the end of a path is left out.
    """
    if path and getattr(path[-1], "name", None) == "value":
        path = path[:-1]
    return jax.tree_util.keystr(path, simple=True, separator="/")


def resolve_mask(mask: Any, tree: Any) -> Any:
    """Return `mask` as a tree of Python bools of the structure of `tree`.

    Args:
      mask: a tree of bools like `tree`, or a prefix of it, or a function from a tree
        to such a mask.
      tree: parameters or updates.

    Raises:
      ArgumentError: if the mask does not fit the tree, or holds anything but bools
        whose values are known.
    """
    if isinstance(tree, EveryParam):
        return tree
    seen = as_shapes(tree)
    leaves = jax.tree.leaves(mask)
    if callable(mask) and all(
        map(callable, leaves)
    ):  # a module of bools is no function
        mask = mask(seen)
    mask = unpack(mask)
    spread = spread_prefix(mask, seen, "mask")
    return repack(jax.tree_util.tree_map_with_path(_flag, spread), tree)


def spread_prefix(prefix: Any, tree: Any, name: str) -> Any:
    """Return `prefix` repeated to the structure of `tree`.

    Args:
      prefix: a tree of which `tree` is a refinement.
      tree: parameters or updates.
      name: what the prefix is called in an error.

    Raises:
      ArgumentError: if `prefix` does not fit, saying where.
    """
    if isinstance(tree, EveryParam):
        return tree
    try:
        return jax.tree.map(
            lambda value, part: jax.tree.map(lambda _: value, part), prefix, tree
        )
    except ValueError as error:
        raise ArgumentError(
            f"{name} must have the structure of the parameters or of a prefix of them. "
            "A function of the parameters, such as path_matches(...) or "
            f"label_paths(...), always fits. {' '.join(str(error).split())}"
        ) from None


def _flag(path: Any, value: Any) -> bool:
    if isinstance(value, Tracer):
        raise ArgumentError(
            f"mask{jax.tree_util.keystr(path)} is traced. A mask decides what is "
            "compiled: give Python bools, or a function of paths and shapes."
        )
    if not (isinstance(value, bool) or jnp.result_type(value) == jnp.bool_):
        raise ArgumentError(
            f"mask{jax.tree_util.keystr(path)} must be a bool, got {value!r}."
        )
    return bool(value)
