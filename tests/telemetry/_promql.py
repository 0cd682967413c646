"""Evaluate PromQL and alert rules over recorded series, as Prometheus 3 does.

Prometheus has `promtool` for this, which is no Python package. Expressions are parsed by
`promql_parser`; what is evaluated here follows promql/engine.go and promql/functions.go:

- ranges are open on the left: a sample at `t - range` is outside;
- an instant selector takes the newest sample of the last five minutes, unless that is a
  staleness marker (`None` here);
- `rate` and `increase` add what was lost at a reset and extrapolate to the ends of the
  range by at most 1.1 mean intervals, else by half of one, and never below zero;
- a label with an empty value is a label that is not there.

Whatever is not implemented raises: native histograms, `@`, `group_right`,
`keep_firing_for`, templated labels. Times are in seconds.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
import operator
import re
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import promql_parser as ast

#: Labels in order of their names, `__name__` among them.
Labels = tuple[tuple[str, str], ...]
Vector = dict[Labels, float]
#: A series of a range: labels, times, values.
Matrix = list[tuple[Labels, list[float], list[float]]]
LOOKBACK = 300.0


def labels_of(name: str = "", **labels: str) -> Labels:
    """Return labels as the storage keeps them."""
    if name:
        labels["__name__"] = name
    return tuple(sorted((k, v) for k, v in labels.items() if v))


class Storage:
    """Series in memory: for each set of labels, samples in order of time.

    Args:
      closed: whether a sample at `t - range` is inside, as in Prometheus 2.
    """

    def __init__(self, closed: bool = False):
        self.closed = closed
        self.names: dict[str, dict[Labels, tuple[list[float], list]]] = {}
        self.size = 0

    def add(self, time: float, value: float | None, labels: Labels) -> None:
        """Append a sample; `None` marks the series as stale."""
        of_name = self.names.setdefault(dict(labels).get("__name__", ""), {})
        times, values = of_name.setdefault(labels, ([], []))
        assert not times or times[-1] < time, f"{labels}: out of order at {time}"
        times.append(time)
        values.append(value)
        self.size += 1

    def series(self, wanted: Callable[[Labels], bool], name: str):
        """Yield labels, times and values of the series of a name that are wanted."""
        places = [self.names.get(name, {})] if name else self.names.values()
        for place in places:
            for labels, (times, values) in place.items():
                if wanted(labels):
                    yield labels, times, values


def _wanted(selector: Any) -> Callable[[Labels], bool]:
    """Return whether labels satisfy all matchers of a selector."""
    assert not selector.matchers.or_matchers, "or between matchers"
    tests: list[tuple[str, Callable[[str], bool]]] = []
    for matcher in selector.matchers.matchers:
        kind, text = str(matcher.op).rpartition(".")[2], matcher.value
        if kind in ("Re", "NotRe"):
            found = re.compile(text).fullmatch
            want = kind == "Re"
            tests.append(
                (matcher.name, lambda v, f=found, w=want: (f(v) is not None) == w)
            )
        else:
            same = operator.eq if kind == "Equal" else operator.ne
            tests.append((matcher.name, lambda v, s=same, t=text: s(v, t)))

    known: dict[Labels, bool] = {}

    def wanted(labels: Labels) -> bool:
        if labels not in known:
            values = dict(labels)
            known[labels] = all(test(values.get(name, "")) for name, test in tests)
        return known[labels]

    return wanted


def _seconds(delta: Any) -> float:
    return delta.total_seconds() if delta is not None else 0.0


def _nameless(labels: Labels) -> Labels:
    return tuple(pair for pair in labels if pair[0] != "__name__")


# --- functions of a range


def _increase(times, values, start, end, counter=True):
    """Return what promql/functions.go calls extrapolatedRate, not yet per second."""
    if len(values) < 2:
        return None
    result = values[-1] - values[0]
    if counter:
        result += sum(a for a, b in itertools.pairwise(values) if b < a)
    sampled = times[-1] - times[0]
    between = sampled / (len(values) - 1)
    to_start, to_end = times[0] - start, end - times[-1]
    if to_start >= 1.1 * between:
        to_start = between / 2
    if counter and result > 0 and values[0] >= 0:
        to_start = min(to_start, sampled * values[0] / result)
    if to_end >= 1.1 * between:
        to_end = between / 2
    return result * (sampled + to_start + to_end) / sampled


def _numbers(values: list[float]) -> list[float]:
    """Leave out what is NaN."""
    if math.isnan(sum(values)):
        return [v for v in values if not math.isnan(v)]
    return values


def quantile(share: float, values: list[float]) -> float:
    """Return a quantile by linear interpolation; NaN counts as the smallest number."""
    ordered = sorted(_numbers(values))
    ordered = [math.nan] * (len(values) - len(ordered)) + ordered
    if not ordered or math.isnan(share):
        return math.nan
    if not 0 <= share <= 1:
        return math.copysign(math.inf, share)
    rank = share * (len(ordered) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    part = rank - low
    if part == 0:
        return ordered[low]
    return ordered[low] * (1 - part) + ordered[high] * part


def _stddev(values):
    mean = sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))


def _extreme(pick):
    def function(values):
        numbers = _numbers(values)
        return pick(numbers) if numbers else math.nan

    return function


def _changes(values):
    return float(
        sum(a != b and not (a != a and b != b) for a, b in itertools.pairwise(values))
    )


def _rate(times, values, start, end):
    increase = _increase(times, values, start, end)
    return None if increase is None else increase / (end - start)


#: Functions of times, values, start and end of a range.
OVER_RANGE: dict[str, Callable[..., float | None]] = {
    "rate": _rate,
    "increase": _increase,
    "delta": lambda *a: _increase(*a, counter=False),
}
#: Functions of the values of a range.
OVER_VALUES: dict[str, Callable[[list[float]], float]] = {
    "avg_over_time": lambda v: sum(v) / len(v),
    "min_over_time": _extreme(min),
    "max_over_time": _extreme(max),
    "sum_over_time": sum,
    "count_over_time": lambda v: float(len(v)),
    "stddev_over_time": _stddev,
    "last_over_time": lambda v: v[-1],
    "present_over_time": lambda v: 1.0,
    "changes": _changes,
    "resets": lambda v: float(sum(b < a for a, b in itertools.pairwise(v))),
}
#: Functions of a number.
OF_NUMBER: dict[str, Callable[..., float]] = {
    "abs": lambda v: abs(v),
    "sqrt": lambda v: math.sqrt(v) if v >= 0 else math.nan,
    "clamp_min": lambda v, low: v if math.isnan(v) else max(v, low),
    "clamp_max": lambda v, high: v if math.isnan(v) else min(v, high),
}
AGGREGATIONS: dict[str, Callable[[list[float]], float]] = {
    "sum": sum,
    "min": _extreme(min),
    "max": _extreme(max),
    "avg": lambda v: sum(v) / len(v),
    "count": lambda v: float(len(v)),
    "group": lambda v: 1.0,
    "stddev": _stddev,
}


def _divide(a, b):
    if b == 0:
        if a == 0 or math.isnan(a):
            return math.nan
        return math.copysign(math.inf, a) * math.copysign(1.0, b)
    return a / b


ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divide,
    "%": lambda a, b: math.fmod(a, b) if b else math.nan,
    "^": lambda a, b: a**b,
}
COMPARISON: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}


# --- expressions

#: What an expression becomes: a function of the time.
Compiled = Callable[[float], Any]


class Evaluator:
    """Evaluate expressions over a storage."""

    def __init__(self, storage: Storage):
        self.storage = storage
        self._compiled: dict[str, Compiled] = {}

    def query(self, text: str, time: float) -> Any:
        """Return the value of an expression: a number, a string or a vector."""
        if text not in self._compiled:
            self._compiled[text] = self._compile(ast.parse(text))
        return self._compiled[text](time)

    def _compile(self, node: Any) -> Compiled:
        """Compile a node, once for all places where it stands."""
        text = f"{type(node).__name__} {node.prettify()}"
        if text not in self._compiled:
            inner = getattr(self, "_" + type(node).__name__)(node)
            self._compiled[text] = self._remembering(inner)
        return self._compiled[text]

    def _remembering(self, inner: Compiled) -> Compiled:
        """Compute anew only at another time or when there are more samples."""
        last: Any = None, None

        def evaluate(t):
            nonlocal last
            if last[0] != (t, self.storage.size):
                last = (t, self.storage.size), inner(t)
            return last[1]

        return evaluate

    def _NumberLiteral(self, node) -> Compiled:
        value = node.val
        return lambda t: value

    def _StringLiteral(self, node) -> Compiled:
        value = node.val
        return lambda t: value

    def _ParenExpr(self, node) -> Compiled:
        return self._compile(node.expr)

    def _UnaryExpr(self, node) -> Compiled:
        inner = self._compile(node.expr)

        def evaluate(t):
            value = inner(t)
            if isinstance(value, dict):
                return {_nameless(k): -v for k, v in value.items()}
            return -value

        return evaluate

    def _VectorSelector(self, node) -> Compiled:
        assert node.at is None, "@"
        wanted, name, offset = _wanted(node), node.name or "", _seconds(node.offset)
        begins = operator.ge if self.storage.closed else operator.gt

        def evaluate(t):
            result, now = {}, t - offset
            for labels, times, values in self.storage.series(wanted, name):
                at = bisect.bisect_right(times, now) - 1
                there = at >= 0 and begins(times[at], now - LOOKBACK)
                if there and values[at] is not None:
                    result[labels] = values[at]
            return result

        return evaluate

    def _range(self, node) -> Callable[[float], tuple[Matrix, float, float]]:
        """Compile what a function of a range reads: series, start and end."""
        if isinstance(node, ast.SubqueryExpr):
            return self._subquery(node)
        selector, span = node.vector_selector, _seconds(node.range)
        assert selector.at is None, "@"
        wanted, name = _wanted(selector), selector.name or ""
        offset = _seconds(selector.offset)
        begin = bisect.bisect_left if self.storage.closed else bisect.bisect_right

        def evaluate(t):
            matrix, end = [], t - offset
            for labels, times, values in self.storage.series(wanted, name):
                low = begin(times, end - span)
                high = bisect.bisect_right(times, end)
                inside, at = values[low:high], times[low:high]
                if None in inside:
                    at = [x for x, v in zip(at, inside) if v is not None]
                    inside = [v for v in inside if v is not None]
                if inside:
                    matrix.append((labels, at, inside))
            return matrix, end - span, end

        return evaluate

    def _subquery(self, node):
        assert node.at is None, "@"
        inner, span, offset = (
            self._compile(node.expr),
            _seconds(node.range),
            _seconds(node.offset),
        )
        step = _seconds(node.step)
        assert step, "a subquery without its resolution"

        def evaluate(t):
            end, found = t - offset, {}
            # steps are multiples of the resolution, whatever the time
            tick = math.floor((end - span) / step) * step + step
            while tick <= end:
                for labels, value in inner(tick).items():
                    times, values = found.setdefault(labels, ([], []))
                    times.append(tick)
                    values.append(value)
                tick += step
            return [(k, *v) for k, v in found.items()], end - span, end

        return evaluate

    def _Call(self, node) -> Compiled:
        name, args = node.func.name, node.args
        if name == "time":
            return lambda t: t
        if name in OVER_RANGE or name in OVER_VALUES or name == "quantile_over_time":
            return self._over_range(name, args)
        inner = [self._compile(arg) for arg in args]
        if name == "vector":
            return lambda t: {(): inner[0](t)}
        if name == "scalar":

            def scalar(t):
                values = list(inner[0](t).values())
                return values[0] if len(values) == 1 else math.nan

            return scalar
        if name == "absent":
            return self._absent(args[0], inner[0])
        if name == "histogram_quantile":
            return lambda t: _histogram_quantile(inner[0](t), inner[1](t))
        function = OF_NUMBER[name]

        def evaluate(t):
            vector, *rest = (arg(t) for arg in inner)
            return {_nameless(k): function(v, *rest) for k, v in vector.items()}

        return evaluate

    def _over_range(self, name, args) -> Compiled:
        read = self._range(args[-1])
        share = self._compile(args[0]) if name == "quantile_over_time" else None

        def evaluate(t):
            matrix, start, end = read(t)
            result = {}
            for labels, times, values in matrix:
                if share:
                    value = quantile(share(t), values)
                elif name in OVER_VALUES:
                    value = OVER_VALUES[name](values)
                else:
                    value = OVER_RANGE[name](times, values, start, end)
                if value is not None:
                    key = labels if name == "last_over_time" else _nameless(labels)
                    assert key not in result, "the same labelset twice"
                    result[key] = value
            return result

        return evaluate

    def _absent(self, node, inner) -> Compiled:
        labels = ()
        if isinstance(node, ast.VectorSelector):
            labels = labels_of(
                **{
                    m.name: m.value
                    for m in node.matchers.matchers
                    if str(m.op) == "MatchOp.Equal"
                }
            )
        return lambda t: {} if inner(t) else {labels: 1.0}

    def _AggregateExpr(self, node) -> Compiled:
        op, inner = str(node.op), self._compile(node.expr)
        param = self._compile(node.param) if node.param is not None else None
        key = _grouping(node.modifier)

        def evaluate(t):
            groups: dict[Labels, Vector] = {}
            for labels, value in inner(t).items():
                groups.setdefault(key(labels), {})[labels] = value
            if op in ("topk", "bottomk"):
                assert param
                return _top(groups.values(), int(param(t)), op == "topk")
            if op == "quantile":
                assert param
                return {
                    k: quantile(param(t), list(v.values())) for k, v in groups.items()
                }
            return {k: AGGREGATIONS[op](list(v.values())) for k, v in groups.items()}

        return evaluate

    def _BinaryExpr(self, node) -> Compiled:
        op, left, right = str(node.op), self._compile(node.lhs), self._compile(node.rhs)
        modifier = node.modifier
        returns_bool = modifier is not None and modifier.return_bool
        if op in ("and", "or", "unless"):
            signature = _matching(modifier)
            return lambda t: _set_operation(op, left(t), right(t), signature)

        def compute(a, b):
            """Return the value and whether the element stays."""
            if op in ARITHMETIC:
                return ARITHMETIC[op](a, b), True
            holds = COMPARISON[op](a, b)
            return (float(holds), True) if returns_bool else (a, holds)

        filters = op in COMPARISON and not returns_bool

        def evaluate(t):
            a, b = left(t), right(t)
            if isinstance(a, dict) and isinstance(b, dict):
                return _match(a, b, compute, modifier, filters)
            if not isinstance(a, dict) and not isinstance(b, dict):
                assert not filters, "a comparison of two numbers needs bool"
                return compute(a, b)[0]
            result = {}
            for labels, value in (a if isinstance(a, dict) else b).items():
                pair = (value, b) if isinstance(a, dict) else (a, value)
                number, stays = compute(*pair)
                if stays:
                    kept = value if filters else number
                    result[labels if filters else _nameless(labels)] = kept
            return result

        return evaluate


def _grouping(modifier: Any) -> Callable[[Labels], Labels]:
    """Return what makes the group of an element: `by`, `without` or nothing."""
    if modifier is None:
        return lambda labels: ()
    listed = set(modifier.labels)
    if str(modifier.type).endswith(("By", "Include")):
        return lambda labels: tuple(p for p in labels if p[0] in listed)
    return lambda labels: tuple(
        p for p in labels if p[0] not in listed and p[0] != "__name__"
    )


def _matching(modifier: Any) -> Callable[[Labels], Labels]:
    """Return what two elements must share: `on`, `ignoring` or all but the name."""
    if modifier is None or modifier.matching is None:
        return _nameless
    return _grouping(modifier.matching)


def _top(groups: Iterable[Vector], count: int, largest: bool) -> Vector:
    result = {}
    for group in groups:
        # a NaN comes last either way
        order = sorted(
            group.items(),
            key=lambda kv: (math.isnan(kv[1]), -kv[1] if largest else kv[1]),
        )
        result.update(order[:count])
    return result


def _set_operation(op, left: Vector, right: Vector, signature) -> Vector:
    if op == "or":
        there = {signature(k) for k in left}
        return left | {k: v for k, v in right.items() if signature(k) not in there}
    there = {signature(k) for k in right}
    return {k: v for k, v in left.items() if (signature(k) in there) == (op == "and")}


def _match(left: Vector, right: Vector, compute, modifier, filters) -> Vector:
    """Combine elements of two vectors that have the labels of the matching alike."""
    signature = _matching(modifier)
    card = "OneToOne" if modifier is None else str(modifier.card).rpartition(".")[2]
    assert card in ("OneToOne", "ManyToOne"), card
    ones: dict[Labels, Labels] = {}
    for labels in right:
        assert signature(labels) not in ones, f"many-to-many at {signature(labels)}"
        ones[signature(labels)] = labels
    on = modifier is not None and modifier.matching is not None
    result = {}
    for labels, value in left.items():
        other = ones.get(signature(labels))
        if other is None:
            continue
        number, stays = compute(value, right[other])
        if not stays:
            continue
        if card == "ManyToOne":
            included = modifier.group_labels or () if modifier else ()
            taken = {k: dict(other).get(k, "") for k in included}
            key = labels if filters else _nameless(labels)
            key = labels_of(**(dict(key) | taken))
        elif on:
            key = signature(labels)
        else:
            key = labels if filters else _nameless(labels)
        assert key not in result, f"many-to-one at {key}"
        result[key] = number
    return result


def _histogram_quantile(share: float, vector: Vector) -> Vector:
    groups: dict[Labels, list[tuple[float, float]]] = {}
    for labels, value in vector.items():
        rest = tuple(p for p in labels if p[0] not in ("le", "__name__"))
        groups.setdefault(rest, []).append((float(dict(labels)["le"]), value))
    result = {}
    for labels, buckets in groups.items():
        buckets.sort()
        total = buckets[-1][1]
        assert buckets[-1][0] == math.inf, "no bucket +Inf"
        if total == 0 or len(buckets) < 2:
            result[labels] = math.nan
            continue
        rank = share * total
        at = next(i for i, (_, count) in enumerate(buckets) if count >= rank)
        if at == len(buckets) - 1:
            result[labels] = buckets[-2][0]
            continue
        high, upper = buckets[at]
        if at == 0 and high <= 0:
            result[labels] = high
            continue
        low, below = buckets[at - 1] if at else (0.0, 0.0)
        result[labels] = low + (high - low) * (rank - below) / (upper - below)
    return result


# --- rules


@dataclasses.dataclass
class Alert:
    """One alert: since when its expression holds, and since when it fires."""

    labels: dict[str, str]
    active: float
    fired: float | None
    value: float
    annotations: dict[str, str]


class Rules:
    """Evaluate groups of recording and alert rules, one after the other."""

    def __init__(self, groups: Iterable[Mapping[str, Any]], storage: Storage):
        self.evaluator, self.storage = Evaluator(storage), storage
        self.rules = [rule for group in groups for rule in group["rules"]]
        for rule in self.rules:
            unknown = set(rule) - {"record", "alert", "expr", "for"}
            assert unknown <= {"labels", "annotations"}, unknown
        self._recorded: dict[str, set[Labels]] = {}
        self._active: dict[tuple[str, Labels], Alert] = {}
        #: Every alert that has fired, in order.
        self.history: list[Alert] = []

    def evaluate(self, time: float) -> list[Alert]:
        """Evaluate all rules at a time; return the alerts that fire then."""
        for rule in self.rules:
            vector = self.evaluator.query(rule["expr"], time)
            if "record" in rule:
                self._record(rule, vector, time)
            else:
                self._alert(rule, vector, time)
        return [alert for alert in self._active.values() if alert.fired is not None]

    def _record(self, rule, vector: Vector, time: float) -> None:
        name = rule["record"]
        static = rule.get("labels", {})
        now = {labels_of(name, **(dict(_nameless(k)) | static)): k for k in vector}
        for labels, key in now.items():
            self.storage.add(time, vector[key], labels)
        for labels in self._recorded.get(name, set()) - set(now):
            self.storage.add(time, None, labels)
        self._recorded[name] = set(now)

    def _alert(self, rule, vector: Vector, time: float) -> None:
        name, static = rule["alert"], rule.get("labels", {})
        assert not any("{{" in text for text in static.values()), "templated label"
        hold = _seconds(ast.parse_duration(rule.get("for", "0s")))
        now = {}
        for key, value in vector.items():
            own = dict(_nameless(key))
            now[labels_of(**(own | static), alertname=name)] = own, value
        for key in [k for k in self._active if k[0] == name and k[1] not in now]:
            del self._active[key]
        for labels, (own, value) in now.items():
            alert = self._active.setdefault(
                (name, labels), Alert(dict(labels), time, None, value, {})
            )
            alert.value = value
            alert.annotations = {
                key: render(text, own, value, self.evaluator, time)
                for key, text in rule.get("annotations", {}).items()
            }
            if alert.fired is None and time - alert.active >= hold:
                alert.fired = time
                self.history.append(alert)


def _plain(value: float) -> str:
    """Return a number as Go prints it; those of 1e17 and more look otherwise there."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value).removesuffix(".0")


def _humanize(value: float) -> str:
    if math.isnan(value) or math.isinf(value):
        return _plain(value)
    if value == 0:
        return "0"
    prefixes, index = "yzafpnum kMGTPEZY", 8
    scaled = abs(value)
    while scaled >= 1000 and index < 16:
        scaled, index = scaled / 1000, index + 1
    while scaled < 1 and index > 0:
        scaled, index = scaled * 1000, index - 1
    return f"{math.copysign(scaled, value):.4g}{prefixes[index].strip()}"


def _humanize_duration(value: float) -> str:
    if math.isnan(value) or math.isinf(value) or abs(value) < 1:
        return f"{_humanize(value)}s"
    sign, whole = "-" if value < 0 else "", int(abs(value))
    days, hours = divmod(whole // 3600, 24)
    minutes, seconds = whole // 60 % 60, whole % 60
    if days:
        return f"{sign}{days}d {hours}h {minutes}m {seconds}s"
    if hours:
        return f"{sign}{hours}h {minutes}m {seconds}s"
    if minutes:
        return f"{sign}{minutes}m {seconds}s"
    return f"{sign}{abs(value):.4g}s"


FILTERS: dict[str, Callable[[float], str]] = {
    "humanize": _humanize,
    "humanizeDuration": _humanize_duration,
    "humanizePercentage": lambda v: f"{100 * v:.4g}%",
}
WITH = re.compile(
    r"\{\{ with printf `([^`]*)` \$labels\.(\w+) \| query \}\}(.*?)"
    r"\{\{ \. \| first \| label \"(\w+)\" \}\}(.*?)\{\{ end \}\}",
    re.S,
)


def render(
    text: str,
    labels: Mapping[str, str],
    value: float,
    evaluator: Evaluator,
    time: float,
) -> str:
    """Fill in an annotation: labels, the value through a filter, a query's label."""

    def query(found: re.Match) -> str:
        printf, by, before, wanted, after = found.groups()
        quoted = '"' + labels.get(by, "").replace("\\", "\\\\") + '"'
        vector = evaluator.query(printf.replace("%q", quoted), time)
        if not vector:
            return ""
        return before + dict(next(iter(vector)))[wanted] + after

    def fill(found: re.Match) -> str:
        name, *filters = (part.strip() for part in found[1].split("|"))
        if name.startswith("$labels."):
            text = labels.get(name.removeprefix("$labels."), "")
            assert filters in ([], ["urlquery"]), filters
            return urllib.parse.quote_plus(text) if filters else text
        assert name == "$value", f"unknown in a template: {name}"
        if not filters:
            return _plain(value)
        (only,) = filters
        return FILTERS[only](value)

    return re.sub(r"\{\{(.*?)\}\}", fill, WITH.sub(query, text))
