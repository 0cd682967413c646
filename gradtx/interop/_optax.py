"""Carry transformations and their states between gradtx and optax."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import (
    ArgumentError,
    Deferred,
    EveryParam,
    GradientTransformation,
    MaskedNode,
    Role,
    TreeMismatchError,
    bits,
    deferred_in,
    dtype_of,
    hyperparameters,
    imported,
    is_chain_state,
    is_registered,
    roles,
    shape_of,
)


def to_optax(tx: GradientTransformation) -> Any:
    """Return a transformation as one of optax's that takes extra arguments.

    gradtx's own value works in optax's chains and wrappers as it is; those that look
    at the type pass `value=` and the like on to what this returns only.

    Args:
      tx: a transformation.

    Raises:
      ImportError: if optax is not installed.

    Example:
      >>> import gradtx, optax
      >>> tx = gradtx.interop.to_optax(gradtx.adam(1e-3))
      >>> isinstance(tx, optax.GradientTransformationExtraArgs)
      True
    """
    optax = imported("optax", "optax")
    return optax.GradientTransformationExtraArgs(tx.init, tx.update)


def from_optax_state(
    tx: GradientTransformation, optax_state: Any, params: Any = None
) -> Any:
    """Return the state for `tx` that continues from a state of optax.

    The next step of `tx` is then the one that optax's transformation of the same name
    and arguments would make. What only gradtx keeps, such as the norm that was clipped
    or the learning rate in use, has its initial value until the next update.

    Args:
      tx: the transformation that goes on.
      optax_state: the state that optax's transformation had.
      params: the parameters, or `jax.ShapeDtypeStruct` like them. Needed where a state
        is not made of whole trees of parameters only, and to bring moments to the
        dtypes that gradtx gives them.

    Raises:
      TreeMismatchError: naming the link or field where the two states do not fit.

    Example:
      >>> import jax.numpy as jnp, gradtx, optax
      >>> params = {"w": jnp.zeros(2)}
      >>> old = optax.adam(1e-3).init(params)
      >>> gradtx.interop.from_optax_state(gradtx.adam(1e-3), old)[0].mu["w"].tolist()
      [0.0, 0.0]
    """
    way = _Direction(tx, into_optax=False, told=params is not None)
    return _converted(_fresh(tx, params), optax_state, way)


def to_optax_state(tx: GradientTransformation, state: Any, params: Any = None) -> Any:
    """Return the state for optax's transformation that continues from one of gradtx.

    Args:
      tx: the transformation that made the state. optax must have one of its name.
      state: its state.
      params: as in `from_optax_state`.

    Raises:
      ArgumentError: if optax has nothing of that name.
      TreeMismatchError: naming the link or field where the two states do not fit.
      ImportError: if optax is not installed.
    """
    way = _Direction(tx, into_optax=True, told=params is not None)
    return _converted(_fresh(twin(tx), params), state, way)


class _Direction:
    """Which way a state goes, and what must be known of the transformation."""

    def __init__(self, tx: GradientTransformation, into_optax: bool, told: bool):
        self.into_optax = into_optax
        self.told = told  # whether the parameters are known
        means = [
            v for k, v in hyperparameters(tx).items() if k.rpartition(".")[2] == "mean"
        ]
        self.means = iter(means)


def _fresh(tx: Any, params: Any) -> Any:
    if params is not None:
        return tx.init(
            jax.tree.map(lambda p: jnp.zeros(shape_of(p), dtype_of(p)), params)
        )
    try:
        return tx.init(EveryParam())
    except Exception as error:
        raise ArgumentError(
            f"this state cannot be told without the parameters ({error}). Give params=."
        ) from error


def twin(tx: Any) -> Any:
    """Return optax's transformation of the same name and arguments."""
    optax = imported("optax", "optax")
    if not isinstance(tx, GradientTransformation):
        return tx
    name, arguments = tx.call.factory.__name__, tx.call.arguments
    if tx.call.factory is GradientTransformation:
        return optax.GradientTransformationExtraArgs(tx.init, tx.update)
    if (inner := deferred_in(tx.call)) is not None:
        return _injected_twin(tx, inner)
    arguments = jax.tree.map(
        twin, dict(arguments), is_leaf=lambda x: isinstance(x, GradientTransformation)
    )
    if name == "accumulate":
        return optax.MultiSteps(
            arguments["inner"],
            arguments["every"],
            use_grad_mean=arguments["mean"],
            accumulator_dtype=arguments["accumulator_dtype"] or jnp.float32,
        )
    factory = _factory(name)
    taken = inspect.signature(tx.call.factory).parameters.values()
    if starred := [p.name for p in taken if p.kind is p.VAR_POSITIONAL]:
        return factory(*arguments[starred[0]])
    known = inspect.signature(factory).parameters
    return factory(**{k: v for k, v in arguments.items() if k in known})


def _factory(name: str) -> Any:
    optax, contrib = (
        imported("optax", "optax"),
        importlib.import_module("optax.contrib"),
    )
    factory = getattr(optax, name, getattr(contrib, name, None))
    if factory is None:
        raise ArgumentError(f"optax has no {name}: its state cannot be made.")
    return factory


def _injected_twin(tx: GradientTransformation, inner: Deferred) -> Any:
    factory, own = inner.call.factory, is_registered(inner.call.factory)
    made = _factory(factory.__name__) if own else factory
    known = inspect.signature(made).parameters
    arguments = jax.tree.map(
        twin,
        {k: v for k, v in inner.call.arguments.items() if k in known},
        is_leaf=lambda x: isinstance(x, GradientTransformation),
    )
    bound = inspect.BoundArguments(inspect.signature(made), arguments)
    settings = [tx.call.arguments[k] for k in ("static_args", "hyperparam_dtype")]
    injected = imported("optax", "optax").inject_hyperparams(made, *settings)
    return injected(*bound.args, **bound.kwargs)


def _converted(template: Any, source: Any, way: _Direction, path: str = "state") -> Any:
    """Return `source` in the form of `template`, field by field."""
    if isinstance(template, EveryParam):
        return jax.tree.map(
            lambda x: MaskedNode() if _is_mask(x) else jnp.array(x, copy=True),
            source,
            is_leaf=_is_mask,
        )
    if _is_mask(template) or template is None:
        return template
    if _is_sequence(template) and (_is_sequence(source) or isinstance(source, dict)):
        names = getattr(template, "_fields", range(len(template)))
        parts = list(source.values()) if isinstance(source, dict) else list(source)
        parts = _aligned(list(template), parts, path)
        made = [
            _converted(t, s, way, f"{path}.{n}")
            for n, t, s in zip(names, template, parts, strict=True)
        ]
        return type(template)(*made) if is_chain_state(template) else tuple(made)
    if isinstance(template, tuple) and hasattr(template, "_fields"):
        return _fields_converted(template, source, way, path)
    if isinstance(template, dict):
        missing = set(template) ^ set(source)
        if missing:
            raise TreeMismatchError(
                f"{path}: {sorted(map(str, missing))} is on one side."
            )
        return type(template)(
            (k, _converted(t, source[k], way, f"{path}[{k!r}]"))
            for k, t in template.items()
        )
    if jax.tree_util.treedef_is_leaf(jax.tree.structure(template)):
        return _leaf(template, source, path)
    if jax.tree.structure(template) != jax.tree.structure(source):
        raise TreeMismatchError(f"{path}: the two trees of parameters differ.")
    return jax.tree.map(lambda t, s: _leaf(t, s, path), template, source)


def _fields_converted(template: Any, source: Any, way: _Direction, path: str) -> Any:
    there = source._asdict() if hasattr(source, "_asdict") else {}
    kinds = roles(template) or roles(source)
    made = {}
    for name in template._fields:
        own = getattr(template, name)
        if name in there and name == "hyperparams":
            made[name] = _hyperparams(own, there[name], way, f"{path}.{name}")
        elif name in there:
            made[name] = _converted(own, there[name], way, f"{path}.{name}")
        elif kinds.get(name) in (Role.PER_PARAM, Role.FACTORED, Role.INNER, Role.KEY):
            raise TreeMismatchError(
                f"{path}.{name}: expected a {type(template).__name__}, got a "
                f"{type(source).__name__}, which has nothing of the kind."
            )
        else:
            made[name] = own  # what the other side does not keep
    unread = [
        name
        for name, kind in roles(source).items()
        if name not in made and kind not in (Role.COUNT, Role.SCALAR, Role.FLAG)
    ]
    if unread:
        raise TreeMismatchError(
            f"{path}: {unread[0]} of {type(source).__name__} has no place in "
            f"{type(template).__name__}."
        )
    converted = type(template)(**made)
    if type(template).__name__ == "MultiStepsState" and next(way.means, True):
        # optax keeps the mean of what it has seen, gradtx the sum
        seen = jnp.asarray(there["mini_step"])
        weight = jnp.where(seen > 0, seen, 1).astype(jnp.float32)
        factor = 1 / weight if way.into_optax else weight
        converted = converted._replace(
            acc_grads=jax.tree.map(
                lambda x: x * factor.astype(x.dtype), converted.acc_grads
            )
        )
    return converted


def _hyperparams(template: Any, source: Any, way: _Direction, path: str) -> Any:
    """Return injected numbers; optax has integers and masks among them, gradtx not."""
    floats = lambda there: {k for k, v in there.items() if bits(v)}
    if odd := floats(template) ^ floats(source):
        raise TreeMismatchError(f"{path}: {sorted(odd)} is on one side.")
    if not way.told:  # their dtype is that of the parameters
        template = {
            k: jnp.asarray(own, dtype_of(source.get(k, own)))
            for k, own in template.items()
        }
    return {
        k: _converted(own, source[k], way, f"{path}[{k!r}]") if k in source else own
        for k, own in template.items()
    }


def _aligned(template: list[Any], parts: list[Any], path: str) -> list[Any]:
    """Return the links' states in `parts`, one for each link of `template`.

    Where one side has more links, those without moments are filled up: optax has an
    empty one for each option that is off.
    """
    if len(template) == len(parts):
        return parts
    full = iter([part for part in parts if _has_moments(part)])
    thin = [part for part in parts if jax.tree.leaves(part) and not _has_moments(part)]
    made = []
    for link in template:
        if _has_moments(link):
            made.append(next(full, None))
        else:
            same = [part for part in thin if type(part).__name__ == type(link).__name__]
            made.append(same[0] if same else link)
    if None in made or next(full, None) is not None:
        raise TreeMismatchError(
            f"{path}: expected {len(template)} links, got {len(parts)}. Is the "
            "transformation the same as that which made the state?"
        )
    return made


def _has_moments(state: Any) -> bool:
    if type(state) in (tuple, list):
        return any(map(_has_moments, state))
    kinds = set(roles(state).values())
    if kinds or type(state).__name__ in _THIN or not hasattr(state, "_fields"):
        return bool(kinds - {Role.COUNT, Role.SCALAR, Role.FLAG})
    return bool(jax.tree.leaves(state))


#: States of optax that hold a count and nothing else; they have no roles.
_THIN = {"ScaleByScheduleState", "WeightDecaySchedule", "EmptyState"}


def _is_mask(x: Any) -> bool:
    return type(x).__name__ == "MaskedNode"


def _is_sequence(state: Any) -> bool:
    return is_chain_state(state) or type(state) in (tuple, list)


def _leaf(template: Any, source: Any, path: str) -> Any:
    is_key = [
        hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        for x in (template, source)
    ]
    if is_key == [False, True]:
        source = jax.random.key_data(source)
    elif is_key == [True, False]:
        source = jax.random.wrap_key_data(source, impl=jax.random.key_impl(template))
    if shape_of(template) != shape_of(source):
        raise TreeMismatchError(
            f"{path}: expected shape {shape_of(template)}, got {shape_of(source)}."
        )
    if is_key[0]:
        return source
    return jnp.array(source, dtype_of(template), copy=True)
