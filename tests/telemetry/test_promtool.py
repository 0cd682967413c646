"""Prometheus itself, where its `promtool` is, says the same of the rules as we do."""

import collections
import itertools
import json
import math
import re
import shutil
import subprocess

import pytest

from tests.telemetry import test_dashboards as recorded
from tests.telemetry._promql import Rules, Storage

PROMTOOL = shutil.which("promtool")
pytestmark = pytest.mark.skipif(
    PROMTOOL is None,
    reason="no promtool, which PyPI has not: test_dashboards evaluates the same series",
)


def _promtool(*arguments):
    """Return how promtool ended and what it said."""
    done = subprocess.run(
        [str(PROMTOOL), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout


def _sample(value):
    if value is None:
        return "stale"
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    return repr(float(value))


def _series(labels, samples):
    """Return a series as promtool's tests spell it, one sample a minute."""
    named = dict(labels)
    name = named.pop("__name__")
    inside = ",".join(f"{key}={json.dumps(text)}" for key, text in named.items())
    return {
        "series": f"{name}{{{inside}}}",
        "values": " ".join("_" if s == "_" else _sample(s) for s in samples),
    }


def _firing(ticks, closed):
    """Return the alerts that fire at each time, by name, as promtool lists them."""
    storage, found = Storage(closed), {}
    first = Rules(recorded.RECORDING_GROUPS, storage)
    then = Rules(recorded.ALERT_GROUPS, storage)
    for t, samples in sorted(ticks.items()):
        for labels, value in samples:
            storage.add(t, value, labels)
        first.evaluate(t)
        of_time = found[t] = collections.defaultdict(list)
        for alert in then.evaluate(t):
            labels = {k: v for k, v in alert.labels.items() if k != "alertname"}
            of_time[alert.labels["alertname"]].append(
                {"exp_labels": labels, "exp_annotations": alert.annotations}
            )
    return found


def _telling(firing):
    """Return every tenth time, and both around each at which it is others that fire."""
    times = sorted(firing)
    chosen = set(times[::10])
    fire = {
        t: {
            (name, a["exp_labels"]["job"])
            for name in firing[t]
            for a in firing[t][name]
        }
        for t in times
    }
    for before, after in itertools.pairwise(times):
        if fire[before] != fire[after]:
            chosen |= {before, after}
    return sorted(chosen)


def test_rules_pass_the_check_and_its_lint():
    files = [recorded.SHIPPED / name for name in ("alerts.yaml", "recording.yaml")]
    code, said = _promtool("check", "rules", "--lint-fatal", *files)
    assert code == 0, said
    assert f"{len(recorded.ALERTS)} rules found" in said


@pytest.mark.parametrize("usual", [False, True])
def test_alerts_fire_in_the_same_minutes_with_the_same_texts(usual, tmp_path):
    faults = recorded.NEAR if usual else [fault for fault, _ in recorded.MUST]
    runs = [recorded.Run(fault.__name__, hours=4.25, seed=1) for fault in faults]
    for fault, run in zip(faults, runs, strict=True):
        fault(run)
    ticks = recorded._scrapes(runs)
    series = collections.defaultdict(dict)
    for t, samples in ticks.items():
        for labels, value in samples:
            series[labels][t] = value
    _, version = _promtool("--version")
    closed = int(re.findall(r"version (\d+)", version)[0]) < 3
    expected = _firing(ticks, closed)
    names = {name for of_time in expected.values() for name in of_time}
    assert names == (set() if usual else set(recorded.ALERTS) - {"GradtxRulesMissing"})
    test = {
        "interval": "1m",
        "input_series": [
            _series(labels, [at.get(t, "_") for t in sorted(ticks)])
            for labels, at in series.items()
        ],
        "alert_rule_test": [
            {
                "eval_time": f"{t:.0f}s",
                "alertname": name,
                "exp_alerts": expected[t].get(name, []),
            }
            for t in _telling(expected)
            for name in recorded.ALERTS
        ],
    }
    path = tmp_path / "test.yaml"
    whole = {
        "rule_files": [
            str(recorded.SHIPPED / name) for name in ("recording.yaml", "alerts.yaml")
        ],
        "evaluation_interval": "1m",
        "group_eval_order": ["gradtx-recording", "gradtx-page", "gradtx-ticket"],
        "tests": [test],
    }
    path.write_text(json.dumps(whole))  # YAML holds JSON
    code, said = _promtool("test", "rules", path)
    assert code == 0, said[-6000:]
