"""The digits script learns, on one device and on eight, and resumes bit for bit."""

import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import jax
import matplotlib.image
import numpy as np
import pytest
from flax.jax_utils import replicate

from gradtx import checkpoint, telemetry

ROOT = Path(__file__).parents[2]
ONE = ("--devices", "1", "--optimizer", "rms", "--epochs", "12", "--stop-after", "10")
EIGHT = ("--devices", "8", "--epochs", "8", "--batch-size", "60")  # shares of 7.5


def start(out: Path, *options: str) -> subprocess.Popen[str]:
    """Start the script as a user does, with warnings as errors."""
    script = str(ROOT / "examples" / "digits.py")
    return subprocess.Popen(
        [sys.executable, "-W", "error", script, "--out", str(out), *options],
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], status: int = 0) -> tuple[str, str]:
    """Return what the script printed, once it has ended with `status`."""
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == status, errors
    return printed, errors


def saved(out: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the newest checkpoint: its record, and the hashes of its arrays by path."""
    manifest = checkpoint.latest_good(out / "checkpoints").manifest
    return manifest.record, {
        f"{tree}{leaf.path}": leaf.sha256
        for tree, leaves in manifest.trees.items()
        for leaf in leaves
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders and output of two whole runs, and of one interrupted on its way."""
    out = tmp_path_factory.mktemp("runs")
    interrupted = start(out / "interrupted", *EIGHT)
    one = start(out / "one", *ONE)
    while interrupted.poll() is None:
        if (out / "interrupted" / "checkpoints" / "step_00000002").exists():
            interrupted.send_signal(signal.SIGINT)
            break
        time.sleep(0.01)
    printed = {"interrupted": finish(interrupted, 130)}
    shutil.copytree(out / "interrupted", out / "watched")
    eight = start(out / "eight", *EIGHT)
    return out, printed | {"one": finish(one), "eight": finish(eight)}


@pytest.mark.parametrize(("name", "least"), [("one", 0.94), ("eight", 0.92)])
def test_run_learns_and_reports(runs, name, least):
    # they reach 0.972 and 0.967
    out, printed = runs
    record, _ = saved(out / name)
    assert record["tests"][-1]["accuracy"] >= least
    for words in ("chain(pmean_gradients(", "max_norm", "replicas bit-identical │ yes"):
        assert words in printed[name][0]
    assert printed[name][1] == ""


def test_stop_leaves_the_schedule_as_it_is(runs):
    record, _ = saved(runs[0] / "one")
    rates = [step["learning_rate"] for step in record["steps"]]
    assert record["epoch"] == 10
    assert rates[-1] > 0.06 * max(rates)  # half a cosine, two twelfths before its end


def test_curves_are_drawn(runs):
    picture = matplotlib.image.imread(runs[0] / "eight" / "curves.png")
    assert picture.shape == (960, 1500, 4)
    assert picture[..., :3].std() > 0.05


def test_interrupted_run_is_resumed_to_the_bits_of_a_whole_run(runs):
    out, printed = runs
    assert printed["interrupted"][1].count("\n") == 1
    assert 2 <= saved(out / "interrupted")[0]["epoch"] < 8
    resumed = start(out / "interrupted", *EIGHT, "--resume", "--quiet")
    assert finish(resumed) == ("", "")
    assert saved(out / "interrupted") == saved(out / "eight")


def test_changed_settings_are_named_and_refused(runs):
    changed = ("--resume", "--clip", "0.5", "--seed", "1")
    _, errors = finish(start(runs[0] / "eight", *EIGHT, *changed), 1)
    first, *changes, advice = errors.splitlines()
    assert "other settings" in first
    assert changes == ["  seed: 0 -> 1", "  clip_by_global_norm.max_norm: 1.0 -> 0.5"]
    assert "--allow-change" in advice


def test_run_with_telemetry_goes_on_to_the_same_bits_and_says_where_all_is(runs):
    out, _ = runs
    before, _ = saved(out / "watched")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        options = ("--resume", "--telemetry", "--port", port)
        printed, errors = finish(start(out / "watched", *EIGHT, *options))
    # so a checkpoint does not tell whether there was telemetry: each resumes the other
    assert saved(out / "watched") == saved(out / "eight")
    assert errors.startswith(f"digits.py: port {port} is taken")
    assert errors.count("\n") == 1
    assert "replicas bit-identical │ yes" in printed
    assert " 0 lost writes" in printed
    folder = out / "watched" / "telemetry"
    assert f"tensorboard --logdir {folder / 'tensorboard'}\n" in printed
    for picture in ("metrics.png", "effective_learning_rate.png"):
        assert matplotlib.image.imread(folder / picture)[..., :3].std() > 0.05
    assert list((folder / "tensorboard").iterdir())

    records = telemetry.read_jsonl(folder / "metrics.jsonl")
    seen = [record for record in records if "loss" in record]
    begun = len(before["steps"])
    assert [record["step"] for record in seen] == [*range(begun + 10, 193, 10)]
    told, last = saved(out / "eight")[0]["steps"], seen[-1]
    # the command that is printed shows a record of the optimizer, not of a checkpoint
    command = next(x for x in printed.splitlines() if x.startswith("  grep "))
    shown = subprocess.run(command, shell=True, capture_output=True, text=True).stdout
    assert json.loads(shown)["update_norm"] == last["update_norm"]
    for name in ("loss", "accuracy", "gradient_norm", "learning_rate"):
        assert last[name] == told[last["step"] - 1][name]
    assert last["replica_drift"] == 0
    assert last["gradient_noise_scale"] > 0
    assert last["update_norm/group/convolutions"] > 0
    assert last["effective_learning_rate/leaf/Dense_1/kernel"] > 0
    assert last["gradient_histogram"].counts.sum() > 0
    assert records[-1]["checkpoint_saves"] == 8 - before["epoch"]
    assert records[-1]["checkpoint_restores"] == 1


@pytest.fixture(scope="module")
def digits():
    """The script as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "examples")
        yield importlib.import_module("digits")


def test_batches_hold_each_example_once(digits):
    data, _ = digits.load_data(seed=0)
    data = data._replace(label=np.arange(1437))
    order = np.random.default_rng(0).permutation(1437)
    parts = list(digits.batches(data, order, size=100, devices=8))
    assert {part.image.shape for part in parts} == {(8, 13, 8, 8, 1)}
    real = [part.label[part.weight == 1] for part in parts]
    assert [len(labels) for labels in real] == [100] * 14 + [37]
    np.testing.assert_array_equal(np.concatenate(real), order)
    assert sum(part.weight.sum() for part in parts) == 1437


def test_eight_devices_update_and_measure_as_one(digits, lenient, monkeypatch):
    monkeypatch.setattr(digits, "shifted", lambda key, image: image)
    monkeypatch.setattr(sys, "argv", ["digits.py"])
    tx = digits.make_optimizer(digits.parse_options(), epoch_steps=10)
    data, test_data = digits.load_data(seed=0)
    network, key = digits.Network(), jax.random.key(0)
    params = jax.jit(network.init)(key, data.image[:1])["params"]
    fresh = digits.TrainState.create(
        apply_fn=network.apply, params=params, tx=tx, key=key
    )
    results = []
    for devices in (jax.devices()[:1], jax.devices()):
        pmap = partial(jax.pmap, axis_name="data", devices=devices)
        split = partial(digits.batches, size=60, devices=len(devices))
        # 29 examples: four devices get eight, eight, eight and five, four get none
        (batch,) = split(data, np.arange(29))
        state = replicate(fresh, devices, "data")
        state, metrics = pmap(digits.train_step, out_axes=(0, None))(state, batch)
        assert digits.replicas_equal((state.params, state.opt_state))
        tested = digits.evaluate(
            pmap(digits.test_step, out_axes=None), state, split(test_data)
        )
        first_moment = jax.tree.map(lambda x: x[0], state.opt_state.scale_by_adam.mu)
        results.append((metrics, first_moment, tested))
    # sums of 29 float32 numbers in another order
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-7), *results)


def test_telemetry_is_served_and_begins_anew_with_a_new_run(digits, tmp_path, lenient):
    params = {"Conv": np.ones(3, np.float32), "Dense": np.ones(2, np.float32)}
    tx = digits.gradtx.chain(
        digits.gradtx.pmean_gradients("data"), digits.gradtx.sgd(0.5)
    )
    state = digits.TrainState.create(
        apply_fn=None, params=params, tx=tx, key=jax.random.key(0)
    )
    state = digits.watch(state)
    update = jax.pmap(state.tx.update, axis_name="data", devices=jax.devices()[:1])
    grads, opt_state, params = replicate(
        (params, state.opt_state, params), jax.devices()[:1], "data"
    )
    _, opt_state = update(grads, opt_state, params)
    for empty, lines in ((True, 1), (False, 2), (True, 1)):
        with digits.open_telemetry(tmp_path, 0, tx, params, empty=empty) as recorder:
            for step in range(10):
                recorder.record(step, opt_state)
            assert recorder.flush()
            *_, curl = digits.where_to_look(recorder).values()
            with urllib.request.urlopen(curl.split()[-1]) as answer:
                page = answer.read().decode()
        path = tmp_path / "telemetry" / "metrics.jsonl"
        assert len(telemetry.read_jsonl(path)) == lines
    assert 'gradtx_param_norm{field="",group="convolutions",leaf=""} 1.732' in page
    assert recorder.dropped == 0


def test_replicas_that_differ_are_noticed(digits):
    devices = jax.devices()
    same = replicate({"w": np.ones(3, np.float32)}, devices)
    assert digits.replicas_equal(same)
    drifted = {"w": same["w"].at[5, 2].add(np.float32(1e-7))}
    assert not digits.replicas_equal(drifted)


def test_devices_that_are_not_there_are_refused(digits, monkeypatch):
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)
    with pytest.raises(digits.Refused, match="--devices 9: there are 8"):
        digits.use_devices(9)
