"""Read what a state tells: every metric by name, without waiting where none is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core import (
    ArgumentError,
    Link,
    Params,
    as_shapes,
    as_transformation,
    fields,
)
from gradtx.telemetry._histogram import Histogram, bin_edges
from gradtx.telemetry._metrics import METRICS, Name, parse
from gradtx.telemetry._observe import ObserveState

#: What of an observer's state is read, which is not the state of what it observes.
_SEEN = ("count", "latest", "measured", "window", "groups", "leaves")


def read(state: Any) -> dict[str, Any]:
    """Return every metric that a state holds, by its name.

    Those of `observe`, and of single links: the learning rate in use, updates that were
    skipped, and what other states say by `Reading` that they tell. A name is
    `update_norm`, of one group `update_norm/group/encoder`, of one leaf
    `update_norm/leaf/encoder/kernel`, of what a state keeps
    `moment_norm/field/scale_by_adam.nu`; `telemetry.parse` takes it apart, `METRICS`
    says what each is. Waits until the state is computed, and copies nothing else.

    Args:
      state: the state of any optimizer, or a `TrainState` or `nnx.Optimizer` of Flax
        with it. Leading axes, such as those that `scan` or `pmap` give it, are those
        of every value.

    Returns:
      Python numbers, texts and values of `Histogram`; NumPy arrays where there are leading axes.
      What was not measured yet is NaN.

    Raises:
      ArgumentError: if nothing in the state is a metric.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> state = gradtx.adam(0.5).init({"w": jnp.zeros(1)})
      >>> gradtx.telemetry.read(state)
      {'learning_rate': 0.5}
    """
    return named(collect(state))


def names(tx: Link, params: Params) -> list[str]:
    """Return the names of all metrics that `read` will give, before training.

    Args:
      tx: the optimizer.
      params: a pytree of arrays or of `jax.ShapeDtypeStruct`; nothing is allocated.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.observe(gradtx.sgd(0.5), moments=False, effective=False)
      >>> gradtx.telemetry.names(tx, {"w": jnp.zeros(1)})[:3]
      ['updates', 'learning_rate', 'gradient_norm']
    """
    return list(named(_fresh(tx, params)))


def collect(state: Any) -> dict[str, Any]:
    """Return what of a state is read, as arrays where they are; does not wait.

    `named` turns it into metrics. A loop that donates its state copies it in between.

    Raises:
      ArgumentError: if nothing in it is a metric.
    """
    observers: dict[str, dict[str, Any]] = {}
    readings: dict[str, dict[str, Any]] = {}
    for field in fields(state):
        if field.state == ObserveState.__name__ and field.name in _SEEN:
            path = field.path.rpartition(".")[0]
            observers.setdefault(path, {})[field.name] = _unboxed(field.value)
        elif field.reading and field.reading != "clipped":  # which `observe` counts
            value = _unboxed(field.value)
            readings.setdefault(field.reading, {})[field.path] = value
    if not observers and not readings:
        raise ArgumentError(
            f"there is nothing to read in {type(state).__name__}. Give the state of an "
            "optimizer, and wrap what is to be measured: gradtx.observe(tx).",
            "read",
        )
    if observers:
        readings.pop("gradient_norm", None)  # an observer has it
    return {"observers": observers, "readings": readings}


def _unboxed(node: Any) -> Any:
    """Return arrays and dicts of them, without what Flax puts around each."""
    if isinstance(node, Mapping):
        return {key: _unboxed(value) for key, value in node.items()}
    leaves = jax.tree.leaves(node)
    return leaves[0] if len(leaves) == 1 else node


def named(collected: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `collect` found as metrics by name.

    Raises:
      ArgumentError: if it is traced.
    """
    if any(isinstance(x, Tracer) for x in jax.tree.leaves(dict(collected))):
        raise ArgumentError(
            "expected values, got tracers. Inside jit return telemetry.collect(state), "
            "and call telemetry.named on what comes out.",
            "read",
        )
    arrays = jax.device_get(dict(collected))
    found: dict[str, Any] = {}
    several = len(arrays["observers"]) > 1
    for path, seen in arrays["observers"].items():
        for name, value in _observed(seen, path if several else ""):
            found[str(name)] = value
    for metric, values in arrays["readings"].items():
        places = _places(values, list(arrays["observers"]))
        for path, value in values.items():
            name = Name(metric, places[path] if len(values) > 1 else "")
            found[str(name)] = _plain(value)
    order = {metric: i for i, metric in enumerate(METRICS)}
    place = lambda item: order.get(parse(item[0]).metric, len(order))
    return dict(sorted(found.items(), key=place))


def _places(paths: Iterable[str], observers: Sequence[str]) -> dict[str, str]:
    """Return for each path of a field that by which moments beside it are called.

    They are called by their place in what is observed, with that of the observer in
    front where there are several. A path remains where two would become the same.
    """
    made = {}
    for path in paths:
        made[path] = path
        for observer in sorted(observers, key=len):  # the innermost one counts
            inside = ".".join(filter(None, (observer, "inner_state")))
            if path.startswith((f"{inside}.", f"{inside}[")):
                rest = path.removeprefix(inside)
                front = observer if len(observers) > 1 else ""
                made[path] = f"{front}{rest}" if front else rest.removeprefix(".")
    return made if len({*made.values()}) == len(made) else {path: path for path in made}


def _observed(seen: Mapping[str, Any], path: str) -> Iterator[tuple[Name, Any]]:
    """Yield the metrics of one observer; `path` is empty where it is the only one."""
    latest, window = seen["latest"], seen["window"]
    measured = _measured(seen["measured"])
    groups, leaves = list(seen["groups"]), list(seen["leaves"])
    labels = [("", ""), *((g, "") for g in groups), *(("", leaf) for leaf in leaves)]

    def rows(metric: str, values: Any, field: str = "", skip: int = 0) -> Any:
        field = ".".join(filter(None, (path, field)))
        count = values.shape[-1]
        for row, (group, leaf) in list(enumerate(labels[:count]))[skip:]:
            yield Name(metric, field, group, leaf), _plain(values[..., row])

    def one(metric: str, value: Any) -> tuple[Name, Any]:
        return Name(metric, path), _plain(value)

    yield one("updates", seen["count"])
    for metric, value in latest.items():
        counts = np.issubdtype(np.asarray(value).dtype, np.integer)
        told = value if counts else np.where(seen["count"] > 0, value, np.nan)
        yield one(metric, told)
    norms = _known(window["gradient_norm"])
    yield one("gradient_norm_mean", _mean(norms))
    yield one("gradient_norm_variance", _mean((norms - _mean(norms)[..., None]) ** 2))
    if "clipped" in window:
        yield one("clipped_fraction", _mean(_known(window["clipped"])))

    yield one("measured_update", measured["measured_update"])
    for kind in ("gradient", "update", "param"):
        # that of all gradients is told of each update
        yield from rows(
            f"{kind}_norm", measured[f"{kind}_norm"], skip=kind == "gradient"
        )
        yield from rows(f"{kind}_nonfinite", measured[f"{kind}_nonfinite"])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = measured["update_norm"] / measured["param_norm"]
    yield from rows("update_to_param_ratio", ratio)
    if "replica_drift" in measured:
        yield from rows("replica_drift", measured["replica_drift"])
    first = np.asarray(measured["first_nonfinite"]).astype(int)
    paths = np.array([*leaves, ""])
    yield (
        Name("first_nonfinite", path),
        paths[first] if first.ndim else str(paths[first]),
    )

    for field, norm in measured.get("moment_norm", {}).items():
        rms = measured["moment_rms"][field]
        kept = ~(np.reshape(norm, (-1, norm.shape[-1]))[0] < 0)
        for metric, values in (("moment_norm", norm), ("moment_rms", rms)):
            every = rows(metric, values, field)
            yield from (item for item, keep in zip(every, kept, strict=False) if keep)
    if "effective_learning_rate" in measured:
        shares = measured["effective_learning_rate"]
        low, middle, high = np.moveaxis(shares, -1, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = high / low
        yield from rows("effective_learning_rate", middle)
        yield from rows("effective_learning_rate_p10", low)
        yield from rows("effective_learning_rate_p90", high)
        yield from rows("effective_learning_rate_spread", spread)
    if "gradient_cosine" in measured:
        yield one("gradient_cosine", measured["gradient_cosine"])
    if "pair" in window:
        variance, square, known = np.moveaxis(window["pair"], -1, 0)
        missing = np.where(known > 0, 0, np.nan)
        variance, square = _mean(variance + missing), _mean(square + missing)
        with np.errstate(divide="ignore", invalid="ignore"):
            # of noise alone the square of the mean may come out below 0
            scale = np.where(square > 0, variance / square, np.nan)
        yield one("gradient_variance", variance)
        yield one("gradient_noise_scale", scale)

    for metric, counts in measured.items():
        if METRICS.get(metric) and METRICS[metric].kind == "histogram":
            of_fields = counts if isinstance(counts, dict) else {"": counts}
            for field, table in of_fields.items():
                for row, (group, _) in enumerate(labels[: table.shape[-2]]):
                    at = ".".join(filter(None, (path, field)))
                    value = Histogram(table[..., row, :], bin_edges())
                    yield Name(metric, at, group), value


def _measured(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was measured with NaN where nothing was, and no path for none."""
    done = np.asarray(found["measured_update"]) > 0

    def known(values: Any, least: float) -> np.ndarray:
        there = done.reshape(done.shape + (1,) * (np.ndim(values) - done.ndim))
        return np.where(there & ~(values < least), values, np.nan)

    made = dict(found, first_nonfinite=np.where(done, found["first_nonfinite"], -1))
    for metric, values in found.items():
        if metric in ("moment_norm", "moment_rms"):
            # a norm of −1 says of which rows a state keeps anything
            made[metric] = {
                field: np.where(x < 0, x, known(x, 0)) for field, x in values.items()
            }
        elif _is_gauge(metric) and metric != "measured_update":
            made[metric] = known(values, -1.5 if metric == "gradient_cosine" else 0)
    return made


def _is_gauge(metric: str) -> bool:
    return metric in METRICS and METRICS[metric].kind == "gauge"


def _mean(values: Any) -> np.ndarray:
    """Return the mean over the last axis of what is no NaN; NaN of nothing."""
    there = ~np.isnan(values)
    count = there.sum(-1)
    total = np.where(there, values, 0).sum(-1, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _known(values: Any) -> np.ndarray:
    """Return numbers that are 0 or more, with NaN where a −1 says that there is none."""
    return np.where(np.asarray(values) < 0, np.nan, values)


def _plain(value: Any) -> Any:
    array = np.asarray(value)
    return array.item() if array.ndim == 0 else array


def _fresh(tx: Link, params: Params) -> Any:
    """Return what `read` looks at in a fresh state, computed without the rest."""
    tx = as_transformation(tx)
    shapes = as_shapes(jax.eval_shape(lambda p: p, params))

    @jax.jit
    def made() -> Any:
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return collect(tx.init(zeros))

    return made()
