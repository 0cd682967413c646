"""Dashboards and alert rules load, ask for what there is, and fire when they should."""

import collections
import itertools
import json
import math
import pathlib
import re
import urllib.request

import jax.numpy as jnp
import numpy as np
import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

import gradtx
from gradtx.telemetry import METRICS, Recorder, prometheus
from gradtx.telemetry._dashboards import dashboards
from tests.telemetry._promql import Evaluator, Rules, Storage, labels_of, render

ROOT = pathlib.Path(__file__).parents[2]
SHIPPED = ROOT / "gradtx" / "telemetry" / "_dashboard_files"
BOARDS = {path.stem: json.loads(path.read_text()) for path in SHIPPED.glob("*.json")}
ALERT_GROUPS, RECORDING_GROUPS = (
    yaml.safe_load((SHIPPED / name).read_text())["groups"]
    for name in ("alerts.yaml", "recording.yaml")
)
RULES = [rule for g in [*RECORDING_GROUPS, *ALERT_GROUPS] for rule in g["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}

# --- what there is to ask for

OWN = {"field", "group", "leaf", "job", "instance"}
#: The labels of every series, by name.
SERIES = {
    "gradtx_step": {"job", "instance"},
    "gradtx_last_write_timestamp_seconds": {"job", "instance"},
    "up": {"job", "instance"},
    "ALERTS": {"alertname", "alertstate", "severity", "job"},
    **{name: {"job"} for name in RECORDED},
}
COUNTERS = set()
for _name, _metric in METRICS.items():
    if _metric.kind == "counter":
        SERIES[f"gradtx_{_name}_total"] = OWN
        COUNTERS.add(f"gradtx_{_name}_total")
    elif _metric.kind == "text":
        SERIES[f"gradtx_{_name}_info"] = OWN | {"path"}
    elif _metric.kind == "histogram":
        SERIES[f"gradtx_{_name}_bucket"] = OWN | {"le"}
        SERIES |= {f"gradtx_{_name}_{end}": OWN for end in ("gcount", "gsum")}
    else:
        SERIES[f"gradtx_{_name}"] = OWN

#: What Grafana fills in itself.
BUILT_IN = {"__rate_interval": "5m", "__all": ""}
VALUES = {"job": "a", "group": ".+", "leaf": ".+", "field": ".+", "top": "10"}
VARIABLE = re.compile(r"\$\{?(\w+)\}?")


def _panels(board):
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def _raw(board):
    """Yield where an expression stands and its text, with variables."""
    for panel in _panels(board):
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for annotation in board["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"])
            assert found, variable["definition"]
            yield (
                f"variable {variable['name']}",
                f"count by (job, {found[2]}) ({found[1]})",
            )


def _filled(text):
    return VARIABLE.sub(lambda found: (BUILT_IN | VALUES)[found[1]], text)


EXPRESSIONS = [
    pytest.param(_filled(text), id=f"{name}: {where}, {number}")
    for name, board in BOARDS.items()
    for number, (where, text) in enumerate(_raw(board))
] + [
    pytest.param(rule["expr"], id=rule.get("alert") or rule["record"]) for rule in RULES
]


def _nodes(text):
    """Return all nodes of an expression."""
    found = []

    def visit(node):
        found.append(node)
        return True

    promql.walk(promql.parse(text), visit)
    return found


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_expression_asks_for_series_and_labels_that_there_are(text):
    for node in _nodes(text):
        if isinstance(node, promql.VectorSelector):
            assert node.name in SERIES
            for matcher in node.matchers.matchers:
                assert matcher.name in SERIES[node.name], f"{node.name}: {matcher.name}"


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_expression_takes_rates_of_counters_only(text):
    for node in _nodes(text):
        if isinstance(node, promql.Call) and node.func.name in ("rate", "increase"):
            assert node.args[0].vector_selector.name in COUNTERS
        if isinstance(node, promql.Call) and node.func.name in ("delta", "deriv"):
            assert node.args[0].vector_selector.name not in COUNTERS


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_expression_keeps_jobs_apart(text):
    nodes = _nodes(text)
    names = {n.name for n in nodes if isinstance(n, promql.VectorSelector)}
    known = set().union(*(SERIES[name] for name in names))
    for node in nodes:
        if isinstance(node, promql.AggregateExpr):
            assert node.modifier, "an aggregation over all jobs"
            assert node.modifier.type == promql.AggModifierType.By
            assert "job" in node.modifier.labels
            assert set(node.modifier.labels) <= known
        if isinstance(node, promql.BinaryExpr) and node.modifier:
            matching = node.modifier.matching
            if matching is not None:
                assert matching.type == promql.LabelModifierType.Include
                assert "job" in matching.labels


# --- dashboards


def test_there_are_three_dashboards_with_names_of_their_own():
    uids = {name: board["uid"] for name, board in BOARDS.items()}
    assert uids == {
        "executive": "gradtx-executive",
        "on-call": "gradtx-on-call",
        "debug": "gradtx-debug",
    }
    assert all(board["schemaVersion"] >= 39 for board in BOARDS.values())
    assert all("id" not in board for board in BOARDS.values())


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_links_to_the_other_two(name):
    board = BOARDS[name]
    linked = {link["url"].removeprefix("/d/") for link in board["links"]}
    assert linked == {b["uid"] for b in BOARDS.values()} - {board["uid"]}
    assert all(link["keepTime"] and link["includeVars"] for link in board["links"])


@pytest.mark.parametrize("name", BOARDS)
def test_panels_have_ids_and_places_of_their_own(name):
    panels = BOARDS[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(p["x"] >= 0 and p["x"] + p["w"] <= 24 and p["h"] > 0 for p in places)
    for a, b in itertools.combinations(places, 2):
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, (a, b)


@pytest.mark.parametrize("name", BOARDS)
def test_panels_say_what_to_look_at_and_in_what_unit(name):
    for panel in _panels(BOARDS[name]):
        assert len(panel["description"]) > 30, panel["title"]
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"], panel["title"]
        values = [step["value"] for step in defaults["thresholds"]["steps"]]
        assert values[0] is None, panel["title"]
        assert values[1:] == sorted(values[1:])
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)
        if panel["type"] == "heatmap":
            assert {target["format"] for target in panel["targets"]} == {"heatmap"}


@pytest.mark.parametrize("name", BOARDS)
def test_variables_resolve_and_are_used(name):
    board = BOARDS[name]
    text = json.dumps(
        [board["panels"], board["annotations"], board["templating"]["list"]]
    )
    defined = [variable["name"] for variable in board["templating"]["list"]]
    assert len(set(defined)) == len(defined)
    # what Grafana asks first must not wait for what it asks later
    assert defined[:2] == ["datasource", "job"]
    used = {v for v in VARIABLE.findall(text) if v not in BUILT_IN}
    assert used == set(defined)


@pytest.mark.parametrize("name", BOARDS)
def test_no_data_source_is_fixed(name):
    found = []

    def visit(value):
        if isinstance(value, dict):
            found.extend(v for k, v in value.items() if k == "datasource")
            value = list(value.values())
        if isinstance(value, list):
            for item in value:
                visit(item)

    visit(BOARDS[name])
    assert len(found) > 10
    assert all(f == {"type": "prometheus", "uid": "${datasource}"} for f in found)


def test_leaves_are_drawn_by_the_largest_only():
    for board in BOARDS.values():
        for panel in _panels(board):
            for target in panel["targets"]:
                if "leaf)" in target["expr"]:
                    assert target["expr"].startswith("topk by (job) ($top, ")


# --- copying out


def test_files_are_written_and_a_second_time_changes_nothing(tmp_path):
    paths = dashboards(tmp_path / "new" / "directory")
    assert [path.name for path in paths] == sorted(p.name for p in SHIPPED.iterdir())
    for path in paths:
        assert path.read_bytes() == (SHIPPED / path.name).read_bytes()
    assert dashboards(str(tmp_path / "new" / "directory")) == paths


def test_edits_are_not_overwritten_unless_that_is_wanted(tmp_path):
    edited = tmp_path / "debug.json"
    edited.write_text("{}")
    with pytest.raises(FileExistsError, match=r"debug\.json .*overwrite=True"):
        dashboards(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["debug.json"]
    assert edited.read_text() == "{}"
    assert edited in dashboards(tmp_path, overwrite=True)
    assert json.loads(edited.read_text())["uid"] == "gradtx-debug"


# --- the evaluator, against what Prometheus documents and does


def _store(samples, name="x", step=15.0, **labels):
    storage = Storage()
    for i, value in enumerate(samples):
        storage.add(i * step, value, labels_of(name, **labels))
    return storage


def _number(storage, text, time):
    found = Evaluator(storage).query(text, time)
    if not isinstance(found, dict):
        return found
    (value,) = found.values()
    return value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 * 3", 7),
        ("2 ^ 3 ^ 2", 512),
        ("-(2) ^ 2", -4),
        ("7 % 4", 3),
        ("-7 % 4", -3),
        ("1 / 0", math.inf),
        ("1 > bool 2", 0),
        ("time() - 10", 80),
        ("scalar(vector(3))", 3),
    ],
)
def test_scalars(text, expected):
    assert _number(Storage(), text, 90.0) == expected


def test_increase_extrapolates_to_the_ends_of_the_range():
    # samples at 15, 30, …, 60 in (0, 60]: 3 intervals seen, the range holds 4
    storage = _store([0, 10, 20, 30, 40])
    assert _number(storage, "increase(x[1m])", 60) == pytest.approx(40)
    assert _number(storage, "rate(x[1m])", 60) == pytest.approx(40 / 60)
    # at 65 the last sample is 5 s back, the first 10 s after the start
    assert _number(storage, "increase(x[1m])", 65) == pytest.approx(30 * 60 / 45)


def test_increase_does_not_extrapolate_far_nor_below_zero():
    # 5 minutes hold samples of the first minute only: half an interval at either end,
    # but where the counter was 0 there is nothing before
    storage = _store([0, 10, 20, 30, 40])
    assert _number(storage, "increase(x[5m])", 200) == pytest.approx(40 * 67.5 / 60)
    storage = _store([1000, 1010, 1020, 1030, 1040])
    assert _number(storage, "increase(x[5m])", 200) == pytest.approx(40 * 75 / 60)
    # one sample is no increase
    assert Evaluator(storage).query("increase(x[10s])", 60) == {}


def test_increase_adds_what_a_reset_lost():
    storage = _store([100, 110, 4, 14, 24])  # 10 + 4 + 10 + 10 between the first, last
    assert _number(storage, "increase(x[75s])", 60) == pytest.approx(34 * 75 / 60)
    assert _number(storage, "resets(x[75s])", 60) == 1
    assert _number(storage, "delta(x[75s])", 60) == pytest.approx(-76 * 75 / 60)
    assert _number(storage, "changes(x[75s])", 60) == 4


def test_ranges_are_open_on_the_left():
    storage = _store([1, 2, 3, 4, 5])
    assert _number(storage, "count_over_time(x[1m])", 60) == 4
    assert _number(storage, "min_over_time(x[1m])", 60) == 2
    assert _number(storage, "avg_over_time(x[1m])", 60) == 3.5
    assert _number(storage, "sum_over_time(x[1m])", 60) == 14
    assert _number(storage, "last_over_time(x[1m] offset 15s)", 60) == 4
    assert _number(storage, "stddev_over_time(x[1m])", 60) == pytest.approx(1.25**0.5)


def test_an_instant_looks_five_minutes_back_and_stops_at_a_marker():
    storage = _store([1, 2])
    assert _number(storage, "x", 15 + 299) == 2
    assert Evaluator(storage).query("x", 15 + 300) == {}
    storage.add(30, None, labels_of("x"))
    assert Evaluator(storage).query("x", 30) == {}
    assert _number(storage, "x offset 10s", 30) == 2
    assert _number(storage, "count_over_time(x[1m])", 30) == 2
    assert _number(storage, "absent(x)", 30) == 1


def test_absent_has_the_labels_that_the_selector_asks_for():
    found = Evaluator(Storage()).query('absent(x{job="a",leaf=~"b"})', 0)
    assert found == {labels_of(job="a"): 1}


@pytest.mark.parametrize(
    ("share", "expected"), [(0, 1), (0.5, 2.5), (0.9, 3.7), (1, 4), (2, math.inf)]
)
def test_quantiles_are_interpolated(share, expected):
    storage = _store([4, 1, 3, 2])
    text = f"quantile_over_time({share}, x[1m])"
    assert _number(storage, text, 45) == pytest.approx(expected)


def test_nan_is_unlike_itself_and_last_among_extremes():
    storage = _store([1, math.nan])
    assert math.isnan(_number(storage, "x != x", 15))
    assert Evaluator(storage).query("x == x", 15) == {}
    assert Evaluator(storage).query("x > 0", 15) == {}
    assert _number(storage, "max_over_time(x[1m])", 15) == 1
    assert _number(storage, "changes(x[1m])", 15) == 1
    storage.add(30, math.nan, labels_of("x"))
    assert _number(storage, "changes(x[1m])", 30) == 1


def test_a_subquery_steps_at_multiples_of_its_resolution():
    storage = _store([0, 1, 2, 3, 4, 5, 6, 7, 8])
    # (10, 70] at 30 and 60
    assert _number(storage, "count_over_time(x[1m:30s])", 70) == 2
    assert _number(storage, "sum_over_time((x * 2)[1m:30s])", 70) == 12


@pytest.fixture
def several():
    """Return an evaluator over series of two jobs, as in the documentation."""
    storage = Storage()
    rows = {
        ("errors", "a", "500"): 24,
        ("errors", "a", "404"): 30,
        ("errors", "b", "404"): 3,
        ("requests", "a", ""): 600,
        ("requests", "b", ""): 120,
        ("limits", "a", ""): 50,
    }
    for (name, job, code), value in rows.items():
        storage.add(0, value, labels_of(name, job=job, code=code))
    return Evaluator(storage)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # documentation, "Vector matching", with on and ignoring
        ('errors{code="500"} / ignoring (code) requests', {"a": 0.04}),
        ("errors / on (job) group_left requests", {"a404": 0.05, "a500": 0.04, "b404": 0.025}),
        ("sum by (job) (errors)", {"a": 54, "b": 3}),
        ("sum without (code) (errors)", {"a": 54, "b": 3}),
        ("count by (code) (errors)", {"404": 2, "500": 1}),
        ("max by (job) (errors) > 10", {"a": 30}),
        ("max by (job) (errors) > bool 10", {"a": 1, "b": 0}),
        ("10 < max by (job) (errors)", {"a": 30}),
        ("requests > on (job) limits", {"a": 600}),
        ("requests and on (job) limits", {"a": 600}),
        ("requests unless on (job) limits", {"b": 120}),
        ("limits or on (job) requests", {"a": 50, "b": 120}),
        ("topk by (job) (1, errors)", {"a404": 30, "b404": 3}),
        ("bottomk(1, errors)", {"b404": 3}),
        ("quantile by (job) (0.5, errors)", {"a": 27, "b": 3}),
        ("abs(-limits)", {"a": 50}),
        ("clamp_min(limits, 60)", {"a": 60}),
        ('errors{code!="500",job=~"a|c"}', {"a404": 30}),
        ('requests{code=""}', {"a": 600, "b": 120}),
    ],
)  # fmt: skip
def test_vectors(several, text, expected):
    found = several.query(text, 0)
    named = {
        "".join(dict(k).get(label, "") for label in ("job", "code")): v
        for k, v in found.items()
    }
    assert named == pytest.approx(expected)
    assert len(named) == len(found)


def test_names_stay_under_a_filter_and_go_under_arithmetic(several):
    assert several.query("limits > 1", 0) == {labels_of("limits", job="a"): 50}
    assert several.query("limits * 1", 0) == {labels_of(job="a"): 50}
    assert several.query("limits and requests", 0) == {labels_of("limits", job="a"): 50}


@pytest.mark.parametrize(
    "text", ["errors / on (job) requests", "requests / on (job) errors"]
)
def test_ambiguous_matches_raise(several, text):
    with pytest.raises(AssertionError, match="many-to"):
        several.query(text, 0)


def test_quantile_of_buckets():
    storage = Storage()
    for le, count in (("1", 2), ("2", 6), ("4", 10), ("+Inf", 10)):
        storage.add(0, count, labels_of("b", job="a", le=le))
    # rank 5 of 10: three quarters of the way from 1 to 2
    assert _number(storage, "histogram_quantile(0.5, b)", 0) == pytest.approx(1.75)
    assert _number(storage, "histogram_quantile(0.1, b)", 0) == pytest.approx(0.5)
    assert _number(storage, "histogram_quantile(1, b)", 0) == 4


def test_an_alert_waits_and_begins_anew_after_a_gap():
    rule = {
        "alert": "High",
        "expr": "x > 5",
        "for": "1m",
        "labels": {"severity": "page"},
    }
    rule["annotations"] = {"summary": "{{ $labels.job }} at {{ $value | humanize }}"}
    rules = Rules([{"rules": [rule]}], storage := Storage())
    fires = []
    for i, value in enumerate([9, 9, 1, 9, 9, 7000, 9, 1]):
        storage.add(i * 30.0, value, labels_of("x", job="a"))
        found = rules.evaluate(i * 30.0)
        fires.append(bool(found))
        if i == 5:
            assert found[0].annotations == {"summary": "a at 7k"}
            assert found[0].labels == {
                "alertname": "High",
                "job": "a",
                "severity": "page",
            }
    assert fires == [False, False, False, False, False, True, True, False]
    assert [alert.active for alert in rules.history] == [90]


def test_a_recorded_series_ends_when_its_source_does():
    rules = Rules(
        [{"rules": [{"record": "job:x:max", "expr": "max by (job) (x)"}]}],
        storage := Storage(),
    )
    for time, value in ((0.0, 3), (30.0, None), (60.0, None)):
        storage.add(time, value, labels_of("x", job="a", instance="b"))
        rules.evaluate(time)
    evaluator = Evaluator(storage)
    assert evaluator.query("job:x:max", 29) == {labels_of("job:x:max", job="a"): 3}
    assert evaluator.query("job:x:max", 30) == {}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ $labels.job }} is at {{ $value }}", "run is at 7384.5"),
        ("{{ $labels.job | urlquery }}", "run"),
        ("{{ $labels.path | urlquery }}", "w%2Fb+%26c"),
        ("{{ $value | humanize }}", "7.385k"),
        ("{{ $value | humanizeDuration }}", "2h 3m 4s"),
        ("{{ $value | humanizePercentage }}", "7.384e+05%"),
        ("a{{ with printf `x{job=%q}` $labels.job | query }} at {{ . | first | label \"path\" }}!{{ end }}", "a at w/b!"),
        ("a{{ with printf `y{job=%q}` $labels.job | query }} at {{ . | first | label \"path\" }}!{{ end }}", "a"),
    ],
)  # fmt: skip
def test_templates(template, expected):
    evaluator = Evaluator(_store([1], job="run", path="w/b"))
    found = render(template, {"job": "run", "path": "w/b &c"}, 7384.5, evaluator, 0)
    assert found == expected


# --- recorded runs

MINUTE, HOUR = 60.0, 3600.0


class Run:
    """What scrapes of one training run see, a minute apart; healthy, until edited.

    Two steps a second, ten minutes of warm-up, cosine decay over six hours, noise, a
    checkpoint every half hour, one skipped update in some thousands, after which a
    guard halves a hundred updates, and an overflow of a loss scale now and then.
    """

    def __init__(self, job="run", hours=4.0, start=0.0, seed=0, step=0, every=MINUTE):
        rng = np.random.default_rng(seed)
        self.job, self.instance = job, "host:9464"
        self.t = t = np.arange(start, start + hours * HOUR, every)
        self.up = np.ones(len(t), bool)
        age = t - start
        noise = lambda size: np.exp(size * rng.normal(size=len(t)))
        count = np.floor(step + 2 * age)
        part = np.clip(count / (2 * 6 * HOUR), 0, 1)
        warm = np.minimum(1, (count + 1) / 1200)
        rate = 3e-4 * warm * (0.5 * (1 + np.cos(np.pi * part)) + 1e-3)
        curve = 2.2 + 8 * np.exp(-count / 1500) + 0.5 * np.exp(-count / 20000)
        norm = 0.4 + 4 * np.exp(-count / 1000)
        seldom = np.floor(count / 4000)
        spikes = np.floor(count / 9000)
        backed_off = (count % 4000 < 100) & (count >= 4000)
        self.values = {
            "gradtx_step": count,
            "gradtx_last_write_timestamp_seconds": t - 1.0,
            "gradtx_updates_total": count,
            "gradtx_skipped_updates_total": seldom + spikes,
            "gradtx_bad_gradients_total": seldom,
            "gradtx_bad_losses_total": 0 * t,
            "gradtx_bad_updates_total": 0 * t,
            "gradtx_spikes_total": spikes,
            "gradtx_consecutive_skips": 0 * t,
            "gradtx_update_factor": np.where(backed_off, 0.5, 1.0),
            "gradtx_back_offs_total": seldom,
            "gradtx_roll_backs_total": 0 * t,
            "gradtx_exhausted": 0 * t,
            "gradtx_loss_scale": 2.0 ** (15 + count // 2000 % 2),
            "gradtx_loss_scale_overflows_total": np.floor(count / 4000),
            "gradtx_loss_scale_underflows_total": 0 * t,
            "gradtx_loss_scale_at_minimum": 0 * t,
            "gradtx_nonfinite_updates_total": seldom,
            "gradtx_clipped_updates_total": np.floor(count / 20),
            "gradtx_loss": curve * noise(0.03),
            "gradtx_loss_smoothed": curve * noise(0.005),
            "gradtx_validation_loss": curve * noise(0.01) + 0.1,
            "gradtx_learning_rate": rate,
            "gradtx_gradient_norm": norm * noise(0.2),
            "gradtx_gradient_norm_mean": norm * noise(0.05),
            "gradtx_gradient_norm_variance": (0.2 * norm) ** 2,
            "gradtx_clipped_fraction": np.clip(0.05 + 0.9 * (1 - warm), 0, 1),
            "gradtx_param_norm": 50 + 0 * t,
            "gradtx_update_norm": 50 * rate * 5 * noise(0.1),
            "gradtx_update_to_param_ratio": rate * 5 * noise(0.1),
            "gradtx_effective_learning_rate": rate * noise(0.1),
            "gradtx_effective_learning_rate_p10": rate / 5 * noise(0.1),
            "gradtx_effective_learning_rate_p90": rate * 6 * noise(0.1),
            "gradtx_effective_learning_rate_spread": 30 * noise(0.2),
            "gradtx_gradient_cosine": 0.1 * rng.normal(size=len(t)),
            "gradtx_gradient_variance": norm * noise(0.3),
            "gradtx_gradient_noise_scale": 4 * noise(0.3),
            "gradtx_replica_drift": 0 * t,
            "gradtx_measured_update": 100 * np.floor(count / 100),
            "gradtx_step_seconds": 0.5 * noise(0.02),
            "gradtx_steps_per_second": 2 * noise(0.02),
            "gradtx_optimizer_share": 0.02 * noise(0.1),
            "gradtx_state_bytes": 1e9 + 0 * t,
            "gradtx_checkpoint_saves_total": np.floor(age / 1800),
            "gradtx_checkpoint_failures_total": 0 * t,
            "gradtx_checkpoint_seconds": 20 * noise(0.1),
            "gradtx_checkpoint_age_seconds": age % 1800,
            "gradtx_dropped_writes_total": 0 * t,
        }
        for kind in ("gradient", "update", "param"):
            self.values[f"gradtx_{kind}_nonfinite"] = 0 * t
        #: Where a metric is not written, by its name.
        self.absent = {"gradtx_checkpoint_age_seconds": age < 1800}
        #: Series of groups, leaves, fields, buckets and texts.
        self.more = {}

    def __getitem__(self, metric):
        return self.values[f"gradtx_{metric}"]

    def __setitem__(self, metric, value):
        self.values[f"gradtx_{metric}"] = value

    def after(self, hours, until=math.inf):
        """Return which samples lie in an interval, in hours since the run began."""
        age = (self.t - self.t[0]) / HOUR
        return (age >= hours) & (age < until)

    def lines(self):
        """Yield each series: its labels and samples."""
        here = {"job": self.job, "instance": self.instance}
        for name, values in self.values.items():
            yield labels_of(name, **here), values
        for (name, more), values in self.more.items():
            yield labels_of(name, **here, **dict(more)), values


def _scrapes(runs):
    """Return what each scrape adds, by time; what ends is marked as stale."""
    ticks = collections.defaultdict(list)
    for run in runs:
        up = labels_of("up", job=run.job, instance=run.instance)
        for t, is_up in zip(run.t, run.up):
            ticks[t].append((up, float(is_up)))
        for labels, values in run.lines():
            there = False
            gone = ~run.up | run.absent.get(dict(labels)["__name__"], False)
            for t, value, out in zip(run.t.tolist(), values.tolist(), gone.tolist()):
                if not out:
                    ticks[t].append((labels, value))
                elif there:
                    ticks[t].append((labels, None))
                there = not out
    return ticks


def play(*runs, groups=(*RECORDING_GROUPS, *ALERT_GROUPS), since=0.0):
    """Evaluate rules over recorded runs; return the rules and all alerts.

    Args:
      since: hours before which alerts are not evaluated; recording rules always are.
      only: names of the alerts to evaluate, or all.
    """
    recording = [{"rules": [r for g in groups for r in g["rules"] if "record" in r]}]
    alerts = [r for g in groups for r in g["rules"] if "alert" in r]
    storage = Storage()
    first, then = Rules(recording, storage), Rules([{"rules": alerts}], storage)
    for t, samples in sorted(_scrapes(runs).items()):
        for labels, value in samples:
            storage.add(t, value, labels)
        first.evaluate(t)
        if t >= since * HOUR:
            then.evaluate(t)
    return then


def fired(rules):
    """Return the alerts that fired: name, job and minute, in order."""
    return [
        (alert.labels["alertname"], alert.labels["job"], alert.fired / MINUTE)
        for alert in rules.history
    ]


@pytest.mark.parametrize(("seed", "every"), [(0, 60.0), (1, 30.0), (2, 15.0)])
def test_nothing_fires_on_a_healthy_run(seed, every):
    # the schedule ends after six hours: the learning rate is near zero for a while
    rules = play(Run(hours=6.5, seed=seed, every=every))
    assert fired(rules) == []
    assert {labels["job"] for labels in map(dict, rules.storage.names["up"])} == {"run"}


def burst(run):
    bad = run.after(2.5)
    run["nonfinite_updates_total"] = run["nonfinite_updates_total"] + np.cumsum(
        bad * 60
    )
    run.more["gradtx_first_nonfinite_info", labels_of(path="decoder/w")] = 1 + 0 * run.t
    run.absent["gradtx_first_nonfinite_info"] = ~bad


def skips(run):
    # six in a hundred updates, for good: no NaN, so that nothing else tells
    bad = np.cumsum(run.after(2.5) * 8.0)
    for name in ("skipped_updates_total", "spikes_total"):
        run[name] = run[name] + bad


def skips_all_of_few(run):
    # a step a minute
    for name in ("step", "updates_total"):
        run[name] = np.floor(run[name] / 120)
    row = np.cumsum(run.after(2.5))
    run["skipped_updates_total"] = run["consecutive_skips"] = 1.0 * row


def is_exhausted(run):
    run["exhausted"] = 1.0 * run.after(2.5)


def gives_up(run):
    # one scrape sees it before `guard.check` ends the process
    is_exhausted(run)
    run.up = ~run.after(2.51)


def rolls_back(run):
    run["roll_backs_total"] = 1.0 * run.after(2.5)


def stays_backed_off(run):
    run["update_factor"] = np.where(run.after(2.5), 0.25, run["update_factor"])


def overflows_at_the_minimum(run):
    run["loss_scale_at_minimum"] = np.cumsum(run.after(2.5) * 120.0)
    run["loss_scale"] = np.where(run.after(2.5), 1.0, run["loss_scale"])


def overflows_often(run):
    # every tenth step, for good: the scale halves, but never down to its smallest
    bad = np.cumsum(run.after(2.5) * 12.0)
    name = "loss_scale_overflows_total"
    run[name] = run[name] + bad


def lost(run):
    run["loss"] = np.where(run.after(2.5), np.nan, run["loss"])


def infinite(run):
    run["loss"] = np.where(run.after(2.5), np.inf, run["loss"])


def diverges(run):
    hours = np.clip((run.t - run.t[0]) / HOUR - 2.5, 0, None)
    run["loss_smoothed"] = run["loss_smoothed"] + np.minimum(20 * hours, 5)


def climbs_slowly(run):
    hours = np.clip((run.t - run.t[0]) / HOUR - 2.5, 0, None)
    run["loss_smoothed"] = run["loss_smoothed"] + 3 * hours


def explodes(run):
    run["gradient_norm_mean"] = run["gradient_norm_mean"] * np.where(
        run.after(2.5), 30, 1
    )


def fails_to_save(run):
    run["checkpoint_failures_total"] = np.where(run.after(2.5), 1.0, 0.0)


def fails_from_the_start(run):
    run["checkpoint_failures_total"] = 1 + 0 * run.t
    run.absent["gradtx_checkpoint_failures_total"] = ~run.after(2.5)


def stops_saving(run):
    age = (run.t - run.t[0]) / HOUR
    run["checkpoint_age_seconds"] = np.where(
        age < 1, run["checkpoint_age_seconds"], (age - 1) * HOUR
    )


def stalls(run):
    at = np.argmax(run.after(2.5))
    for values in run.values.values():
        values[at:] = values[at]


def stalls_with_long_steps(run):
    for name in ("step", "last_write_timestamp_seconds"):
        run[name] = run[name][np.arange(len(run.t)) // 30 * 30]
    run["step_seconds"] = 1800 + 0 * run.t
    at = np.argmax(run.after(1.0))
    for name in ("step", "last_write_timestamp_seconds"):
        run[name][at:] = run[name][at]


def stands_still_and_writes(run):
    age = (run.t - run.t[0]) / HOUR
    run["checkpoint_age_seconds"] = np.where(
        age < 1.5, run["checkpoint_age_seconds"], (age - 1.5) * HOUR
    )
    at = np.argmax(run.after(2.5))
    run["step"][at:] = run["step"][at]


def goes(run):
    run.up = ~run.after(2.5)


def slows(run):
    run["steps_per_second"] = run["steps_per_second"] * np.where(run.after(2.5), 0.7, 1)


def clips(run):
    run["clipped_fraction"] = np.where(run.after(2.0), 0.9, run["clipped_fraction"])


def strides(run):
    run["update_to_param_ratio"] = np.where(
        run.after(2.0), 0.03, run["update_to_param_ratio"]
    )


def creeps(run):
    run["update_to_param_ratio"] = np.where(
        run.after(2.0), 2e-5, run["update_to_param_ratio"]
    )


def spreads(run):
    run["effective_learning_rate_spread"] = run[
        "effective_learning_rate_spread"
    ] * np.where(run.after(2.0), 50, 1)


def drifts(run):
    run["replica_drift"] = np.where(run.after(2.5), 1e-6, 0.0)


def drops(run):
    run["dropped_writes_total"] = np.cumsum(run.after(2.5) * 3.0)


#: What goes wrong after 2 or 2.5 hours, and all that fires then, at which minute.
MUST = [
    (burst, {"GradtxNonfiniteBurst": 151}),
    (skips, {"GradtxSkippedBurst": 155}),
    (skips_all_of_few, {"GradtxSkippedBurst": 165}),
    (is_exhausted, {"GradtxRunExhausted": 151}),
    (gives_up, {"GradtxRunExhausted": 151, "GradtxRunGone": 161}),
    (overflows_at_the_minimum, {"GradtxLossScaleAtMinimum": 152}),
    (rolls_back, {"GradtxRolledBack": 151}),
    (stays_backed_off, {"GradtxBackedOffLong": 210}),
    (overflows_often, {"GradtxOverflowBurst": 154}),
    (lost, {"GradtxLossNotFinite": 155}),
    (infinite, {"GradtxLossNotFinite": 155}),
    (diverges, {"GradtxLossDiverged": 159}),
    (climbs_slowly, {"GradtxLossDiverged": 180}),
    (explodes, {"GradtxGradientExploding": 155}),
    (fails_to_save, {"GradtxCheckpointFailed": 151}),
    (fails_from_the_start, {"GradtxCheckpointFailed": 151}),
    (stops_saving, {"GradtxCheckpointOld": 185}),
    (stalls, {"GradtxRunStalled": 170}),
    (stalls_with_long_steps, {"GradtxRunStalled": 245}),
    (stands_still_and_writes, {"GradtxRunStalled": 170}),
    (goes, {"GradtxRunGone": 160}),
    (slows, {"GradtxSlow": 190}),
    (clips, {"GradtxClippedOften": 196}),
    (strides, {"GradtxUpdateRatioHigh": 190}),
    (creeps, {"GradtxUpdateRatioLow": 209}),
    (spreads, {"GradtxEffectiveRateSpread": 186}),
    (drifts, {"GradtxReplicaDrift": 155}),
    (drops, {"GradtxWritesDropped": 165}),
]


@pytest.mark.parametrize(
    ("fault", "alerts"), MUST, ids=lambda x: getattr(x, "__name__", "")
)
def test_a_fault_fires_its_alert_for_its_job_only_and_in_time(fault, alerts):
    bad, good = Run("bad", hours=4.25, seed=1), Run("good", hours=4.25, seed=2)
    fault(bad)
    rules = play(bad, good, since=1.5)
    expected = [(n, "bad", pytest.approx(at, abs=1.5)) for n, at in alerts.items()]
    assert fired(rules) == expected
    for alert in rules.history:
        rule = ALERTS[alert.labels["alertname"]]
        assert alert.labels == {
            "alertname": rule["alert"],
            "job": "bad",
            **rule["labels"],
        }
        assert alert.annotations["summary"].startswith("bad: ")
        assert alert.annotations["dashboard"] == "/d/gradtx-on-call?var-job=bad"
        assert not any("{{" in text for text in alert.annotations.values())


def test_every_alert_is_fired_by_some_fault():
    covered = {name for _, alerts in MUST for name in alerts}
    assert covered | {"GradtxRulesMissing"} == set(ALERTS)


def test_alerts_without_the_recording_rules_say_so():
    rules = play(Run(hours=1.0), groups=ALERT_GROUPS)
    assert fired(rules) == [("GradtxRulesMissing", "run", 10)]


def test_a_guard_and_a_loss_scale_serve_what_their_alerts_and_panels_ask_for():
    tx = gradtx.dynamic_loss_scaling(
        gradtx.guarded(gradtx.sgd(1.0), back_off=0.5, roll_back_after=1, raise_after=2),
        initial=1,
    )
    params, bad = jnp.ones(2), jnp.full(2, jnp.nan)
    state, storage = tx.init(params), Storage()
    with Recorder([sink := prometheus(port=0)]) as recorder:
        for i in range(21):  # a quarter of an hour and more, a minute apart
            if i == 16:
                for _ in range(2):
                    _, state = tx.update(bad, state, params)
            recorder.record(i, state)
            assert recorder.flush()
            with urllib.request.urlopen(sink.address, timeout=5) as answer:
                text = answer.read().decode()
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    labels = labels_of(sample.name, job="a", **sample.labels)
                    storage.add(i * MINUTE, sample.value, labels)
    evaluator, end = Evaluator(storage), 20 * MINUTE
    for alert, value in {
        "GradtxRunExhausted": 1,
        "GradtxLossScaleAtMinimum": 2,
        "GradtxRolledBack": 2,
        "GradtxBackedOffLong": None,  # it was 1 in this half hour
    }.items():
        found = evaluator.query(ALERTS[alert]["expr"], end)
        assert found == ({} if value is None else {labels_of(job="a"): value}), alert
    panels = _panels(BOARDS["on-call"])
    names = [panel["title"] for panel in panels]
    for panel in panels[names.index("Left out by a guard, by kind, in 15 minutes") :]:
        for target in panel["targets"]:
            assert evaluator.query(_filled(target["expr"]), end), target["expr"]


def test_the_text_of_a_burst_names_the_leaf_if_it_is_known():
    known, unknown = Run("known", hours=3.0), Run("unknown", hours=3.0)
    burst(known)
    burst(unknown)
    unknown.more.clear()
    texts = {
        alert.labels["job"]: alert.annotations["description"]
        for alert in play(known, unknown, since=2.0).history
    }
    assert "The first leaf with one is decoder/w. Look at" in texts["known"]
    assert "not finite. Look at" in texts["unknown"]
    assert re.match(r"In the last 5 minutes \d+(\.\d+)? updates had", texts["known"])


def test_the_text_of_a_burst_that_is_over_names_the_leaf_seen_most():
    storage = Storage()
    for path, minutes in (("decoder/w", [0, 1, 2, 3]), ("a/b", [4])):
        labels = labels_of("gradtx_first_nonfinite_info", job="run", path=path)
        for minute in minutes:
            storage.add(minute * MINUTE, 1.0, labels)
        storage.add((minutes[-1] + 1) * MINUTE, None, labels)  # a good measurement
    text = ALERTS["GradtxNonfiniteBurst"]["annotations"]["description"]
    at = lambda minute: render(
        text, {"job": "run"}, 9.0, Evaluator(storage), minute * MINUTE
    )
    assert "The first leaf with one is decoder/w. Look at" in at(10)
    assert "are not finite. Look at" in at(25)
    panel = next(
        p for p in _panels(BOARDS["on-call"]) if p["title"].startswith("First")
    )
    query = panel["targets"][0]["expr"].replace("$job", "run")
    shown = Evaluator(storage).query(query, 10 * MINUTE)
    assert {dict(labels)["path"] for labels in shown} == {"decoder/w", "a/b"}


def test_the_text_of_an_old_checkpoint_tells_its_age():
    run = Run(hours=3.5)
    stops_saving(run)
    (alert,) = play(run, since=2.5).history
    assert alert.annotations["summary"] == (
        "run: the last good checkpoint is 2h 29m 0s old"
    )


# near misses: what is short, or what is usual


def one_bad_step(run):
    at = np.argmax(run.after(2.5))
    for name in ("loss", "gradient_norm", "gradient_norm_mean"):
        run[name][at] = np.nan
    for name in ("nonfinite_updates_total", "skipped_updates_total"):
        run[name] = run[name] + run.after(2.5)


def a_few_skips_in_a_row(run):
    # seven bad batches; the guard backs off to 1/128, and needs 700 good ones
    at = np.argmax(run.after(2.5))
    for name in ("skipped_updates_total", "bad_losses_total", "back_offs_total"):
        run[name] = run[name] + 7 * run.after(2.5)
    run["consecutive_skips"][at] = 7
    run["update_factor"][at : at + 7] = 2.0 ** np.arange(-7, 0)


def a_few_spikes_in_a_hundred(run):
    for name in ("skipped_updates_total", "spikes_total"):
        run[name] = run[name] + np.cumsum(run.after(2.5) * 4.0)


def a_factor_that_recovers_late(run):
    run["update_factor"] = np.where(run.after(2.5, 3.4), 0.5, run["update_factor"])


def a_factor_that_comes_back_now_and_then(run):
    run["update_factor"] = np.where(run.t // MINUTE % 20 == 0, 1.0, 0.5)


def an_overflow_at_the_smallest_scale(run):
    run["loss_scale_at_minimum"][np.argmax(run.after(2.5))] = 1


def a_scale_that_grows_soon(run):
    # an overflow in 30 steps
    run["loss_scale_overflows_total"] = np.floor(run["step"] / 30)


def a_scale_that_is_found_slowly(run):
    # two overflows a minute at a step in 30 seconds, in the first ten minutes
    for name in ("step", "updates_total"):
        run[name] = np.floor(run[name] / 60)
    age = run.t - run.t[0]
    run["loss_scale_overflows_total"] = np.minimum(age / 30, 20)


def seldom_bad_steps(run):
    # half a percent of the updates: half precision while a loss scale grows
    run["nonfinite_updates_total"] = np.floor(run["updates_total"] / 200)


def an_outlier(run):
    between = run.after(2.5, 2.55)
    for name in ("loss", "loss_smoothed", "gradient_norm", "gradient_norm_mean"):
        run[name] = run[name] * np.where(between, 100, 1)


def a_small_rise(run):
    run["loss_smoothed"] = run["loss_smoothed"] + 0.5 * run.after(2.5)


def a_noisy_loss_near_zero(run):
    rng = np.random.default_rng(3)
    run["loss_smoothed"] = 1e-3 * np.exp(0.5 * rng.normal(size=len(run.t)))


def a_dip(run):
    run["steps_per_second"] = run["steps_per_second"] * np.where(
        run.after(2.5, 2.75), 0.5, 1
    )


def a_little_slower(run):
    run["steps_per_second"] = run["steps_per_second"] * np.where(run.after(2.5), 0.9, 1)


def a_long_validation(run):
    between = run.after(2.5, 2.7)
    at = np.argmax(between)
    for values in run.values.values():
        values[between] = values[at]


def long_steps(run):
    held = np.arange(len(run.t)) // 20 * 20  # one in 20 minutes
    for name in ("step", "updates_total", "last_write_timestamp_seconds"):
        run[name] = run[name][held]
    run["step_seconds"] = 1200 + 0 * run.t


def one_save_missed(run):
    age = run.t - run.t[0]
    late = run.after(2.5, 3.0)
    run["checkpoint_age_seconds"] = age % 1800 + 1800 * late


def much_clipping_for_a_while(run):
    run["clipped_fraction"] = np.where(
        run.after(2.5, 3.2), 0.9, run["clipped_fraction"]
    )


def large_updates_for_a_while(run):
    run["update_to_param_ratio"] = np.where(
        run.after(2.5, 3.2), 0.03, run["update_to_param_ratio"]
    )


def a_long_warm_up(run):
    hours = (run.t - run.t[0]) / HOUR
    run["learning_rate"] = 1e-5 * hours
    run["update_to_param_ratio"] = 2e-5 * hours


def a_wider_spread(run):
    run["effective_learning_rate_spread"] = run[
        "effective_learning_rate_spread"
    ] * np.where(run.after(2.0), 4, 1)


def a_spread_that_settles_in_the_first_hour(run):
    run["effective_learning_rate_spread"] = run[
        "effective_learning_rate_spread"
    ] * np.where(run.after(0.8), 1, 1 / 20)


def drift_at_one_measurement(run):
    run["replica_drift"] = np.where(run.after(2.5, 2.53), 1e-6, 0.0)


def one_write_lost(run):
    run["dropped_writes_total"] = 1.0 * run.after(2.5)


def two_minutes_out_of_reach(run):
    run.up = ~run.after(2.5, 2.53)


def end_with_its_target(run):
    at = np.argmax(run.after(2.5))
    run.t, run.up = run.t[:at], run.up[:at]
    run.values = {name: values[:at] for name, values in run.values.items()}
    run.absent = {name: where[:at] for name, where in run.absent.items()}


NEAR = [
    one_bad_step,
    a_few_skips_in_a_row,
    a_few_spikes_in_a_hundred,
    a_factor_that_recovers_late,
    a_factor_that_comes_back_now_and_then,
    an_overflow_at_the_smallest_scale,
    a_scale_that_grows_soon,
    a_scale_that_is_found_slowly,
    seldom_bad_steps,
    an_outlier,
    a_small_rise,
    a_noisy_loss_near_zero,
    a_dip,
    a_little_slower,
    a_long_validation,
    long_steps,
    one_save_missed,
    much_clipping_for_a_while,
    large_updates_for_a_while,
    a_long_warm_up,
    a_wider_spread,
    a_spread_that_settles_in_the_first_hour,
    drift_at_one_measurement,
    one_write_lost,
    two_minutes_out_of_reach,
    end_with_its_target,
]


@pytest.mark.parametrize("usual", NEAR, ids=lambda x: x.__name__)
def test_nothing_fires_when_it_is_short_or_usual(usual):
    run = Run(hours=4.25, seed=1)
    usual(run)
    assert fired(play(run, since=1.0)) == []


def test_nothing_fires_on_a_run_that_has_just_started():
    run = Run(hours=0.75)
    run["gradient_norm_mean"] = run["gradient_norm_mean"] * (1 + 50 * run.after(0.2))
    run["loss_smoothed"][:3] = [2.0, 30.0, 11.0]
    run["step"][:12] = 1.0  # it compiles its validation
    assert fired(play(run)) == []


def _dies(run):
    """Let a process be out of reach in its last two minutes."""
    run.up[-2:] = False
    return run


def test_a_restart_from_a_checkpoint_with_lower_counters_fires_nothing():
    old, new = _dies(Run(hours=2.5)), Run(hours=2.0, start=2.5 * HOUR, step=14000)
    # the first process had much to count: 70 bad updates, a save that failed
    for name in ("nonfinite_updates_total", "skipped_updates_total"):
        old[name] = np.floor(old["updates_total"] / 250)
        new[name] = np.floor(new["updates_total"] / 250)
    old["checkpoint_failures_total"] = 2.0 * old.after(0.5)
    assert old["nonfinite_updates_total"][-1] > new["nonfinite_updates_total"][0] > 50
    # and went back three times, the last of them after the checkpoint was saved
    old["roll_backs_total"] = 2.0 + old.after(0.5)
    new["roll_backs_total"] = 2 + 0 * new.t
    assert fired(play(old, new, since=1.0)) == []


def test_a_run_that_is_begun_anew_under_its_name_fires_nothing():
    old, new = _dies(Run(hours=2.5)), Run(hours=2.0, start=2.5 * HOUR, seed=1)
    assert new["loss_smoothed"][0] > 3 * old["loss_smoothed"][-1]
    new["gradient_norm_mean"] = new["gradient_norm_mean"] * 3
    assert fired(play(old, new, since=1.0)) == []


def test_a_run_that_diverges_again_after_its_restart_fires_again():
    old = Run(hours=2.5)
    new = Run(hours=2.0, start=2.5 * HOUR, seed=1, step=14000)
    new["loss_smoothed"] = new["loss_smoothed"] + 5 * new.after(0.5)
    ((name, _, minute),) = fired(play(_dies(old), new, since=1.0))
    assert name == "GradtxLossDiverged"
    assert minute == pytest.approx(185, abs=1.5)


def test_a_target_that_is_no_training_fires_nothing():
    run = Run(hours=1.0)
    other = Run("node-exporter", hours=1.0)
    other.values = {}
    other.up[:] = False
    assert fired(play(run, other)) == []


def test_many_hosts_of_one_job_fire_once():
    first, second = Run(hours=3.0), Run(hours=3.0, seed=1)
    second.instance = "other:9464"
    burst(first)
    burst(second)
    assert [name for name, *_ in fired(play(first, second, since=2.0))] == [
        "GradtxNonfiniteBurst"
    ]


# --- the files of rules


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_grave_it_is_and_what_to_do(name):
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert promql.parse_duration(rule["for"])
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook", "dashboard"}
    assert notes["summary"].startswith("{{ $labels.job }}: ")
    assert len(notes["summary"]) <= 100
    assert re.search(r"[Ll]ook (at|for|whether)|The log", notes["description"])
    assert "$value" in notes["summary"] + notes["description"] or name == (
        "GradtxCheckpointFailed"
    )
    named = set(re.findall(r"gradtx_\w+", notes["description"]))
    assert named <= set(SERIES), "a metric that there is not"
    assert notes["runbook"] == f"docs/how-to/dashboards.md#{name.lower()}"


def test_the_page_has_a_section_for_each_alert_and_no_other():
    text = (ROOT / "docs" / "how-to" / "dashboards.md").read_text()
    assert re.findall(r"^### (Gradtx\w+)$", text, re.M) == list(ALERTS)
    for name, rule in ALERTS.items():
        section = text.split(f"### {name}\n")[1].split("\n#")[0]
        assert f"**{rule['labels']['severity']}.**" in section.lower(), name
    for metric in re.findall(r"`(gradtx_\w+)[`{]", text):
        assert metric in SERIES, metric


def test_alerts_and_records_have_names_of_their_own_in_groups_of_one_severity():
    assert len(ALERTS) + len(RECORDED) == len(RULES)
    for group in ALERT_GROUPS:
        severities = {rule["labels"]["severity"] for rule in group["rules"]}
        assert {f"gradtx-{s}" for s in severities} == {group["name"]}
    assert {group["interval"] for group in [*ALERT_GROUPS, *RECORDING_GROUPS]} == {
        "30s"
    }


# --- the dashboards on a recorded run


@pytest.fixture(scope="module")
def recorded():
    """Return an evaluator over a run with all there is to draw."""
    run = Run("a", hours=2.75)
    burst(run)
    run["seconds_to_target"] = 5000 + 0 * run.t
    add = lambda metric, values, **labels: run.more.update(
        {(f"gradtx_{metric}", labels_of(**labels)): values}
    )
    tables = "gradient_norm update_norm param_norm update_to_param_ratio replica_drift"
    tables += " gradient_nonfinite effective_learning_rate"
    tables += " effective_learning_rate_spread"
    for metric, (kind, n) in itertools.product(
        tables.split(), [("group", 3), ("leaf", 30)]
    ):
        for i in range(n):
            add(metric, run[metric] * (i + 1), **{kind: f"{kind}{i}"})
    for field in ("adam.mu", "adam.nu"):
        add("state_bytes", 4e8 + 0 * run.t, field=field)
        for metric, group in itertools.product(
            ("moment_rms", "moment_norm"), ("", "group0")
        ):
            add(metric, 1e-3 + 0 * run.t, field=field, group=group)
    for metric in METRICS:
        if metric.endswith("_histogram"):
            field = "adam.mu" * (metric == "moment_histogram")
            for le, group in itertools.product(("0.5", "1.0", "+Inf"), ("", "group0")):
                add(
                    f"{metric}_bucket", 9.0 + 0 * run.t, le=le, group=group, field=field
                )
    rules = play(run, since=2.0)
    at = run.t[-1]
    for alert in rules.history:
        state = alert.labels | {"alertstate": "firing"}
        rules.storage.add(at, 1.0, labels_of("ALERTS", **state))
    return Evaluator(rules.storage), at


@pytest.mark.parametrize(
    "text",
    [_filled(text) for board in BOARDS.values() for _, text in _raw(board)],
)
def test_a_panel_shows_something_of_a_recorded_run(recorded, text):
    evaluator, at = recorded
    found = evaluator.query(text, at)
    assert found
    # topk, alerts and variables aside, one screen holds what a panel draws
    assert len(found) <= 10 or text.startswith("count by (job, ")
