"""Compute metrics in NumPy float64, from nothing but what their documentation says."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Tree = Any
Leaves = dict[str, np.ndarray]

# A number that went through four roundings of float32: sums are taken in float64, the
# norm of a leaf, that of a row, and their quotients are rounded.
ROUNDED = 4 * 2.0**-24
# A sum of n float32 numbers is off by n·2^-24 at most; a norm by half of that.
SUMMED = 64 * 2.0**-24

_METRICS = ("gradient", "update", "param")


def leaves_of(tree: Tree, path: str = "") -> Leaves:
    """Return the inexact leaves by path: keys of dicts sorted, lists by position."""
    if tree is None:
        return {}
    if isinstance(tree, Mapping):
        items = [(str(key), tree[key]) for key in sorted(tree)]
    elif isinstance(tree, (list, tuple)):
        items = [(str(i), x) for i, x in enumerate(tree)]
    else:
        x = np.asarray(tree)
        if x.dtype.name == "bfloat16":
            x = x.astype(np.float32)
        return {path or "params": x} if x.dtype.kind in "fc" else {}
    found: Leaves = {}
    for key, x in items:
        found |= leaves_of(x, f"{path}/{key}" if path else key)
    return found


def norm(arrays: Any) -> float:
    """Return the norm of all elements of some arrays."""
    return math.sqrt(sum(float(np.sum(_squares(x))) for x in arrays))


def _squares(x: np.ndarray) -> np.ndarray:
    wide = np.asarray(x).astype(np.complex128 if x.dtype.kind == "c" else np.float64)
    return wide.real**2 + wide.imag**2


def dot(a: Leaves, b: Leaves) -> float:
    """Return the inner product of two trees."""
    with np.errstate(invalid="ignore"):  # of infinities
        parts = [np.real(a[k].conj() * b[k].astype(complex)) for k in a]
        return sum(float(np.sum(x)) for x in parts)


def edges() -> np.ndarray:
    """Return the bounds of bins: an eighth of an octave each from 2^-40 to 2^24."""
    inside = [2.0**e * (1 + k / 8) for e in range(-40, 24) for k in range(8)]
    return np.array([0.0, *inside, 2.0**24, 2.0**128])


def spaced(x: np.ndarray) -> np.ndarray:
    """Return at most 4,096 evenly spaced elements.

    The axis with the most elements left is thinned, by steps without a factor of 2, 3,
    5 or 7.
    """
    steps, left = [1] * x.ndim, list(x.shape)
    while math.prod(left) > 4096:
        axis = left.index(max(left))
        steps[axis] = next(
            n for n in range(steps[axis] + 1, 10**6) if all(n % k for k in (2, 3, 5, 7))
        )
        left[axis] = len(range(0, x.shape[axis], steps[axis]))
    return x[tuple(slice(None, None, n) for n in steps)].reshape(-1)


class Counts:
    """Magnitudes in bins, each sampled element for as many as it stands for."""

    def __init__(self) -> None:
        self.bounds = edges()
        self.counts = np.zeros(len(self.bounds) - 1)
        self.sums = np.zeros(len(self.bounds) - 1)

    def add(self, sample: np.ndarray, stands: float) -> None:
        size = np.abs(sample).astype(np.float32).astype(np.float64)
        size = size[np.isfinite(size)]
        place = np.searchsorted(self.bounds, size, side="right") - 1
        np.add.at(self.counts, place, stands)
        np.add.at(self.sums, place, stands * size)

    def percentile(self, share: float) -> float:
        """Return the mean of the bin below whose end this share lies."""
        total = self.counts.sum()
        if total == 0:
            return math.nan
        bin_ = next(
            i for i, c in enumerate(np.cumsum(self.counts)) if c >= share * total
        )
        return self.sums[bin_] / self.counts[bin_]


@dataclasses.dataclass
class Truth:
    """What an observer should tell, from the trees that went by.

    Attributes:
      label: gives the group of a leaf by its path, if there are groups.
    """

    every: int = 1
    label: Callable[[str], str] | None = None
    per_leaf: bool = False
    effective: bool = True
    histograms: bool = False
    successive: bool = False
    window: int = 100

    def __post_init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.measured: dict[str, Any] = {}
        self.pairs: list[tuple[float, float] | None] = []

    def see(
        self,
        grads: Tree,
        updates: Tree,
        params: Tree = None,
        moments: Mapping[str, Tree] | None = None,
        clipped: bool | None = None,
    ) -> None:
        """Take notice of one update; `params` are those before it."""
        g = leaves_of(grads)
        size = norm(g.values())
        finite = math.isfinite(size)
        due = len(self.steps) == 0 or (len(self.steps) + 1) % self.every == 0
        before = self.steps[-1]["g"] if self.steps else None
        self.steps.append({"g": g, "norm": size, "finite": finite, "clipped": clipped})
        if self.successive and due:
            self.pairs.append(_pair(before, g))
        if due or not finite:
            trees = {"gradient": g, "update": leaves_of(updates)}
            trees |= {"param": leaves_of(params)} if params is not None else {}
            self.measured = self._measured(trees, moments or {})
            if self.successive:
                cosine = _cosine(before, g) if due else math.nan
                self.measured["gradient_cosine"] = cosine

    def read(self) -> dict[str, Any]:
        """Return what is told now, by name; histograms as counts."""
        recent = self.steps[-self.window :]
        norms = [s["norm"] for s in recent if s["finite"]]
        found = {
            "updates": len(self.steps),
            "gradient_norm": self.steps[-1]["norm"],
            "gradient_norm_mean": float(np.mean(norms)) if norms else math.nan,
            "gradient_norm_variance": float(np.var(norms)) if norms else math.nan,
            "nonfinite_updates": sum(not s["finite"] for s in self.steps),
        }
        if self.steps[-1]["clipped"] is not None:
            found["clipped_updates"] = sum(s["clipped"] for s in self.steps)
            found["clipped_fraction"] = float(np.mean([s["clipped"] for s in recent]))
        if self.successive:
            known = [p for p in self.pairs[-self.window :] if p is not None]
            variance, square = np.mean(known, axis=0) if known else (math.nan,) * 2
            found["gradient_variance"] = variance
            found["gradient_noise_scale"] = (
                variance / square if square > 0 else math.nan
            )
        return found | self.measured

    def _rows(self, paths: Any) -> dict[str, list[str]]:
        rows = {"": list(paths)}
        if self.label:
            for name in sorted({self.label(p) for p in paths}):
                rows[f"/group/{name}"] = [p for p in paths if self.label(p) == name]
        if self.per_leaf:
            rows |= {f"/leaf/{p}": [p] for p in paths}
        return rows

    def _measured(self, trees: Mapping[str, Leaves], moments: Any) -> dict[str, Any]:
        paths = list(trees["gradient"])
        found: dict[str, Any] = {"measured_update": len(self.steps)}
        bad = {
            kind: {p: int(np.sum(~np.isfinite(x))) for p, x in tree.items()}
            for kind, tree in trees.items()
        }
        for row, inside in self._rows(paths).items():
            norms = {
                kind: norm(tree[p] for p in inside) for kind, tree in trees.items()
            }
            for kind in _METRICS:
                there = kind in trees
                if kind != "gradient" or row:
                    found[f"{kind}_norm{row}"] = norms.get(kind, math.nan)
                count = sum(bad[kind][p] for p in inside) if there else math.nan
                found[f"{kind}_nonfinite{row}"] = count
                if self.histograms and "/leaf/" not in row:
                    pick = [trees[kind][p] for p in inside] if there else []
                    found[f"{kind}_histogram{row}"] = _counts(pick, spaced).counts
            with np.errstate(divide="ignore", invalid="ignore"):
                found[f"update_to_param_ratio{row}"] = np.float64(
                    norms["update"]
                ) / norms.get("param", math.nan)
            if self.effective:
                pairs = [(trees["update"][p], trees["gradient"][p]) for p in inside]
                rates = _counts(pairs, _rates)
                low, middle, high = map(rates.percentile, (0.1, 0.5, 0.9))
                name = "effective_learning_rate"
                found[f"{name}{row}"] = middle
                found[f"{name}_p10{row}"] = low
                found[f"{name}_p90{row}"] = high
                found[f"{name}_spread{row}"] = high / low if low else math.nan
                if self.histograms and "/leaf/" not in row:
                    found[f"{name}_histogram{row}"] = rates.counts
        wrong = [p for p in paths if any(bad[kind][p] for kind in trees)]
        found["first_nonfinite"] = wrong[0] if wrong else ""
        for field, tree in moments.items():
            kept = leaves_of(tree)
            for row, inside in self._rows(paths).items():
                here = [kept[p] for p in inside if p in kept]
                if self.histograms and "/leaf/" not in row:
                    name = f"moment_histogram/field/{field}{row}"
                    found[name] = _counts(here, spaced).counts
                if sum(x.size for x in here):
                    size = sum(x.size for x in here)
                    found[f"moment_norm/field/{field}{row}"] = norm(here)
                    rms = norm(here) / math.sqrt(size)
                    found[f"moment_rms/field/{field}{row}"] = rms
        return found


def _counts(arrays: Any, sample: Callable[..., np.ndarray]) -> Counts:
    made = Counts()
    for x in arrays:
        parts = x if isinstance(x, tuple) else (x,)
        seen = sample(*parts)
        if spaced(parts[0]).size:
            made.add(seen, parts[0].size / spaced(parts[0]).size)
    return made


def _rates(update: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    u, g = (np.abs(spaced(x)).astype(np.float32) for x in (update, gradient))
    moved = (g > 0) & np.isfinite(g)  # the others have no such ratio
    with np.errstate(over="ignore"):
        return u[moved] / g[moved]


def _pair(before: Leaves | None, g: Leaves) -> tuple[float, float] | None:
    """Return the variance and the squared mean that two gradients show."""
    if before is None:
        return None
    # E|g − g'|² is twice the trace of the covariance, E g·g' the square of the mean
    with np.errstate(invalid="ignore"):
        apart = norm(g[k].astype(complex) - before[k] for k in g) ** 2 / 2
    square = dot(before, g)
    return (apart, square) if math.isfinite(apart) and math.isfinite(square) else None


def _cosine(before: Leaves | None, g: Leaves) -> float:
    if before is None:
        return math.nan
    both = norm(g.values()) * norm(before.values())
    return dot(before, g) / both if both > 0 and math.isfinite(both) else math.nan


def tolerance(name: str, truth: Mapping[str, Any], size: float = 1.0) -> dict[str, Any]:
    """Return how far a value may be from the truth, as arguments of `assert_allclose`.

    Args:
      name: the name of the value.
      truth: all values.
      size: the square of the largest gradient norm.
    """
    metric = name.split("/")[0]
    cancelled = 8 * 2.0**-24 * size  # two squares in float32, and their difference
    if metric == "gradient_norm_variance":
        # the deviation of each from the mean is off by the error of a norm
        return {"rtol": 0, "atol": 2 * SUMMED * size}
    if metric == "gradient_variance":
        return {"rtol": 0, "atol": cancelled}
    if metric == "gradient_noise_scale":
        variance, scale = truth["gradient_variance"], truth[name]
        square = variance / scale if scale else size  # of equal gradients
        return {"rtol": 0, "atol": (1 + abs(scale)) * cancelled / square}
    if metric == "gradient_cosine":
        return {"rtol": 0, "atol": ROUNDED}
    if metric.startswith("effective_") or metric.startswith("gradient_norm"):
        return {"rtol": SUMMED, "atol": 0}
    return {"rtol": ROUNDED, "atol": 0}


def assert_tells(
    found: Mapping[str, Any], truth: Mapping[str, Any], size: float = 1.0
) -> None:
    """Compare what was read with the truth, name by name.

    Args:
      found: what `telemetry.read` gives.
      truth: what `Truth.read` gives, with whatever else is known.
      size: the square of the largest gradient norm.
    """
    assert set(found) == set(truth)
    for name, expected in truth.items():
        value = found[name]
        if name.split("/")[0].endswith("_histogram"):
            np.testing.assert_allclose(
                value.counts, expected, rtol=2.0**-24, err_msg=name
            )
        elif isinstance(expected, str):
            assert value == expected, name
        else:
            within = tolerance(name, truth, size)
            np.testing.assert_allclose(value, expected, err_msg=name, **within)
