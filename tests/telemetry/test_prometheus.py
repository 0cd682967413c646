"""A scrape over HTTP has what was written last, and nothing that Prometheus refuses."""

import socket
import sys
import urllib.request

import numpy as np
import prometheus_client
import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from gradtx.core import ArgumentError
from gradtx.telemetry import METRICS, Histogram, bin_edges
from gradtx.telemetry._prometheus import prometheus


@pytest.fixture
def sink():
    with prometheus(port=0) as sink:
        yield sink


def _get(sink, accept="text/plain"):
    assert sink.flush()
    request = urllib.request.Request(sink.address, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.read().decode()


def _scrape(sink):
    """Return the samples by name and labels; there is one of each."""
    samples = {}
    for family in text_string_to_metric_families(_get(sink)):
        for sample in family.samples:
            labels = {k: v for k, v in sample.labels.items() if v}
            key = (sample.name, *sorted(labels.items()))
            assert key not in samples, key
            samples[key] = sample.value
    return samples


def test_scrape_has_the_last_values(sink):
    sink.write(1, {"loss": 3.0, "updates": 1})
    sink.write(
        2,
        {
            "loss": 2.5,
            "updates": 7,
            "moment_norm/field/scale_by_adam.mu/group/encoder": 0.5,
            "update_norm/leaf/encoder/kernel": np.inf,
            'update_norm/leaf/a"b\\c\nd': 1.0,
            "param_norm": float("nan"),
        },
        time=123.5,
    )
    found = _scrape(sink)
    assert np.isnan(found.pop(("gradtx_param_norm",)))
    assert found == {
        ("gradtx_loss",): 2.5,
        ("gradtx_updates_total",): 7,
        (
            "gradtx_moment_norm",
            ("field", "scale_by_adam.mu"),
            ("group", "encoder"),
        ): 0.5,
        ("gradtx_update_norm", ("leaf", "encoder/kernel")): np.inf,
        ("gradtx_update_norm", ("leaf", 'a"b\\c\nd')): 1.0,
        ("gradtx_step",): 2,
        ("gradtx_last_write_timestamp_seconds",): 123.5,
    }
    text = _get(sink)
    assert "# TYPE gradtx_updates_total counter" in text
    assert "# TYPE gradtx_loss gauge" in text
    assert f"# HELP gradtx_loss {METRICS['loss'].tells}" in text
    assert 'gradtx_loss{field="",group="",leaf=""} 2.5' in text
    assert sink.dropped == 0


def test_text_is_a_series_that_moves_and_goes(sink):
    sink.write(1, {"first_nonfinite": "a/b", "note": "first"})
    found = _scrape(sink)
    assert found[("gradtx_first_nonfinite_info", ("path", "a/b"))] == 1
    assert found[("gradtx_note_info", ("text", "first"))] == 1
    sink.write(2, {"first_nonfinite": "c"})
    found = _scrape(sink)
    assert [k for k in found if "nonfinite" in k[0]] == [
        ("gradtx_first_nonfinite_info", ("path", "c"))
    ]
    sink.write(3, {"first_nonfinite": ""})
    assert not [k for k in _scrape(sink) if "nonfinite" in k[0]]


def test_no_text_spoils_a_scrape(sink):
    odd = '\udcff\n\0"\\é'
    sink.write(1, {odd: 1.0, "note": odd + 5000 * "x", 5000 * "n": 2.0})
    sink.write(2, {"loss": 3.0, f"update_norm/leaf/{odd}": 4.0})
    found = _scrape(sink)
    assert found[("gradtx_loss",)] == 3
    (text,) = [dict(key[1:])["text"] for key in found if key[0] == "gradtx_note_info"]
    assert text.startswith('\\udcff\n\0"\\éx')
    assert len(text) == 1000
    assert len(_get(sink)) < 10_000
    assert {1.0, 2.0, 4.0} <= {*found.values()}
    assert sink.dropped == 0


def test_histogram_is_cumulative(sink):
    rng = np.random.default_rng(0)
    numbers = np.abs(rng.standard_cauchy(1000))
    counts = np.histogram(np.append(numbers, [0, 1e30]), bin_edges())[0]
    for _ in range(2):  # a gauge: it does not add up
        sink.write(1, {"gradient_histogram/group/all": Histogram(counts, bin_edges())})
    found = _scrape(sink)
    buckets = {
        float(dict(key[1:])["le"]): value
        for key, value in found.items()
        if key[0] == "gradtx_gradient_histogram_bucket"
    }
    assert len(buckets) == 66
    bounds = sorted(buckets)
    assert bounds[-1] == np.inf
    assert bounds[:-1] == [2.0**k for k in range(-40, 25)]
    for bound in bounds:
        assert buckets[bound] == (numbers < bound).sum() + 1 + (bound == np.inf)
    count = found[("gradtx_gradient_histogram_gcount", ("group", "all"))]
    assert count == 1002


def test_openmetrics_parser_takes_it_too(sink):
    histogram = Histogram(np.ones(514, np.int64), bin_edges())
    sink.write(
        1,
        {
            "gradient_histogram": histogram,
            "updates": 3,
            "loss": 1.0,
            "first_nonfinite": "a",
            "mine/x": 2,
        },
    )
    text = _get(sink, "application/openmetrics-text; version=1.0.0")
    kinds = {f.name: f.type for f in openmetrics.text_string_to_metric_families(text)}
    assert kinds == {
        "gradtx_gradient_histogram": "gaugehistogram",
        "gradtx_updates": "counter",
        "gradtx_loss": "gauge",
        "gradtx_first_nonfinite": "info",
        "gradtx_mine_x": "gauge",
        "gradtx_step": "gauge",
        "gradtx_last_write_timestamp_seconds": "gauge",
    }


def test_names_of_the_user_never_clash(sink):
    names = ["train/accuracy", "train.accuracy", "train_accuracy", "1st", "é", "step"]
    names += ["updates_total", "loss!", "loss_", "gradient_histogram_bucket"]
    sink.write(1, {name: float(i) for i, name in enumerate(names)} | {"updates": 99})
    found = _scrape(sink)
    assert found.pop(("gradtx_step",)) == 1
    assert found.pop(("gradtx_updates_total",)) == 99
    del found[("gradtx_last_write_timestamp_seconds",)]
    assert sorted(found.values()) == [float(i) for i in range(len(names))]
    assert found[("gradtx_train_accuracy",)] == 0
    again = _scrape(sink)
    assert found.items() <= again.items(), "a name keeps its series"


def test_series_are_bounded_and_the_loss_is_counted():
    with prometheus(port=0, max_series=3) as sink:
        sink.write(1, {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0, "e": 1.0})
        sink.write(2, {"a": 2.0})
        sink.write(3, {"h": Histogram(np.ones(2), np.arange(3.0)), "b": 3.0})
        found = _scrape(sink)
        assert sink.dropped == 2
        assert "max_series=3" in str(sink.last_error)
    values = {k[0]: v for k, v in found.items() if not k[0].startswith("gradtx_last")}
    expected = {"gradtx_a": 2, "gradtx_b": 3, "gradtx_c": 1, "gradtx_step": 3}
    assert values == expected


def test_only_this_machine_can_connect(sink):
    port = int(sink.address.rsplit(":", 1)[1].split("/")[0])
    assert sink.address == f"http://127.0.0.1:{port}/metrics"
    others = {a[4][0] for a in socket.getaddrinfo(socket.gethostname(), port)}
    others = {"127.0.0.2", *others} - {"127.0.0.1"}  # 127.0.0.2 is another one here
    for other in others:
        family = socket.AF_INET6 if ":" in other else socket.AF_INET
        with socket.socket(family) as probe:
            probe.settimeout(2)
            assert probe.connect_ex((other, port)) != 0, other


def test_taken_port_is_told_at_once(sink):
    port = int(sink.address.rsplit(":", 1)[1].split("/")[0])
    with pytest.raises(ArgumentError, match=rf"127.0.0.1:{port} .*port=0 picks"):
        prometheus(port=port)
    with pytest.raises(ArgumentError, match="expected a free port"):
        prometheus(port=0, address="192.0.2.1")


def test_closed_sink_frees_its_port_and_registry():
    registry = prometheus_client.CollectorRegistry()
    sink = prometheus(port=0, registry=registry)
    port = int(sink.address.rsplit(":", 1)[1].split("/")[0])
    sink.write(1, {"loss": 1.0})
    assert sink.flush()
    labels = {"field": "", "group": "", "leaf": ""}
    assert registry.get_sample_value("gradtx_loss", labels) == 1
    sink.close()
    assert sink.last_error is None
    assert not [*registry.collect()]
    prometheus(port=port, registry=registry).close()


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ImportError, match=r"pip install 'gradtx\[telemetry\]'"):
        prometheus()
