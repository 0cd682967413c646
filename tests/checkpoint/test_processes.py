"""Two processes save one step together; two, or one alone, restore it."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import checkpoint
from gradtx.checkpoint import _manifest, _records
from tests.checkpoint import _worker

SECONDS = 120
ROOT = Path(__file__).parents[2]


def in_two(run, what, until=None):
    """Run the worker in two processes; return exit codes and what they wrote."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    logs = [run.with_name(f"{what}-{rank}.log") for rank in range(_worker.PROCESSES)]
    workers = []
    try:
        for rank, log in enumerate(logs):
            with log.open("w") as stream:
                workers.append(
                    subprocess.Popen(
                        [
                            *(sys.executable, str(_worker.__file__)),
                            *(port, str(rank), str(run), what),
                        ],
                        cwd=ROOT,
                        env=os.environ | {"PYTHONPATH": path},
                        stdout=stream,
                        stderr=subprocess.STDOUT,
                    )
                )
        end = time.monotonic() + SECONDS
        waiting = workers if until is None else [workers[until]]
        while time.monotonic() < end and any(w.poll() is None for w in waiting):
            time.sleep(0.1)
        codes = [worker.poll() for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return codes, "\n".join(log.read_text()[-3000:] for log in logs)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A step that two processes saved, with what they held beside the run."""
    path = tmp_path_factory.mktemp("processes") / "run"
    codes, written = in_two(path, "save")
    assert codes == [0, 0], written
    return path


def test_the_pieces_of_both_are_in_one_step(run):
    assert os.listdir(run) == ["step_00000002"]
    assert sorted(os.listdir(run / "step_00000002")) == ["arrays", "manifest.json"]
    manifest = checkpoint.verify(run / "step_00000002", arrays=True)
    assert manifest.processes == 2
    assert manifest.mesh == {"data": 4}
    by_path = {leaf.path: leaf for leaf in manifest.trees["params"]}
    pieces = by_path["['w']"].pieces
    assert [index for index, _ in pieces] == [
        [[row, row + 2], [0, 3]] for row in (0, 2, 4, 6)
    ]
    assert len({digest for _, digest in pieces}) == 4
    assert [leaf.spec for leaf in manifest.trees["params"]] == [(), ("data",)]


def test_one_process_restores_it_and_goes_on(run):
    for devices in (4, 1):
        now = _worker.params(jax.devices()[:devices])
        state = _worker.TX.init(now)
        back = checkpoint.restore(
            run, tx=_worker.TX, params=now, opt_state=state, epoch=jnp.asarray(0)
        )
        got = _worker.held((back["params"], back["opt_state"]))
        for rank in range(_worker.PROCESSES):
            with np.load(run.with_name(f"held-{rank}.npz")) as wanted:
                for name, x in wanted.items():
                    path, _, place = name.rpartition("@")
                    if devices == 4:
                        assert got[name].tobytes() == x.tobytes(), name
                    elif "['w']" in path:
                        row = int(place.strip("[]").split(",")[0])
                        whole = got[f"{path}@[0, 0]"]
                        assert whole[row : row + 2].tobytes() == x.tobytes(), name
        assert int(back["epoch"]) == 2
        assert back["params"]["w"].sharding == now["w"].sharding


@pytest.mark.slow  # those that saved it did so too
def test_two_new_processes_restore_it_and_go_on(run):
    codes, written = in_two(run, "restore")
    assert codes == [0, 0], written


def test_a_piece_that_was_changed_is_found(run, monkeypatch):
    manifest = _manifest.read_manifest(run / "step_00000002")
    number = [leaf.path for leaf in manifest.trees["params"]].index("['w']")
    leaf = manifest.trees["params"][number]
    pieces = ((leaf.pieces[0][0], "0" * 64), *leaf.pieces[1:])
    object.__setattr__(leaf, "pieces", pieces)
    object.__setattr__(leaf, "sha256", _records.digest_of_pieces(pieces))
    monkeypatch.setattr("gradtx.checkpoint._verify.read_manifest", lambda *_: manifest)
    with pytest.raises(gradtx.DamagedError, match=r"params\['w'\]: the elements"):
        checkpoint.restore(run, params=_worker.params(jax.devices()[:1]))


@pytest.mark.slow
def test_one_that_dies_in_a_save_leaves_the_step_before(run):
    codes, written = in_two(run, "die", until=1)
    assert codes[1] == 9, written
    assert checkpoint.steps(run).keys() == {2}
    assert checkpoint.latest_good(run).step == 2
    hidden = [name for name in os.listdir(run) if name.startswith(".step_00000003")]
    assert len(hidden) == 1
    checkpoint.Manager(run).close()  # the processes that wrote it are gone
    assert os.listdir(run) == ["step_00000002"]
