"""Links, devices and pipes are refused, and nothing in the room runs what a file says."""

import ast
import os
import shutil
import signal
import socket
from pathlib import Path

import jax.numpy as jnp
import pytest

import gradtx
from gradtx import checkpoint
from gradtx.checkpoint import _files, _manifest

ROOM = Path(checkpoint.__file__ or "").parent
PARAMS = {"w": jnp.arange(6, dtype=jnp.float32), "b": jnp.ones(3)}
RUNS_CODE = {
    *("pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "importlib"),
    *("runpy", "ctypes", "subprocess", "code"),
}
CALLS = {"eval", "exec", "compile", "__import__", "getattr_static", "load_module"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A good step."""
    return checkpoint.save(tmp_path_factory.mktemp("run"), 1, params=PARAMS)


@pytest.fixture
def step(saved, tmp_path):
    """A copy of the good step to harm."""
    return shutil.copytree(saved, tmp_path / "run" / saved.name)


def refused(path, match):
    """Check that a step is refused wherever it is looked at."""
    with pytest.raises(gradtx.DamagedError, match=match):
        checkpoint.verify(path)
    with pytest.raises(gradtx.DamagedError, match=match):
        checkpoint.restore(path, params=PARAMS)
    with pytest.raises(gradtx.NoCheckpointError, match=match):
        checkpoint.latest_good(path.parent)


def an_array_file(step):
    """Return the largest file of arrays."""
    files = [p for p in (step / "arrays").rglob("*") if p.is_file()]
    return max(files, key=lambda p: p.stat().st_size)


@pytest.mark.parametrize("path", sorted(ROOM.glob("*.py")), ids=lambda p: p.name)
def test_nothing_here_can_run_what_a_file_says(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module or "").partition(".")[0]}
        elif isinstance(node, ast.Call):
            function = node.func
            name = getattr(function, "id", getattr(function, "attr", ""))
            # re.compile is no compiler of Python
            owner = getattr(getattr(function, "value", None), "id", "")
            assert name not in CALLS or owner == "re", f"{name} in line {node.lineno}"
            if name == "imported":
                assert isinstance(node.args[0], ast.Constant), node.lineno
            if name == "load":
                assert owner != "np", node.lineno
            continue
        else:
            continue
        assert not names & RUNS_CODE, f"{names} in line {node.lineno}"


def test_a_link_in_place_of_the_step_is_refused(step, tmp_path):
    link = tmp_path / "other" / step.name
    link.parent.mkdir()
    link.symlink_to(step)
    refused(link, "no link to one. Give the path that it leads to")


@pytest.mark.parametrize("what", ["manifest", "arrays", "file"])
def test_a_link_inside_the_step_is_refused(what, step, tmp_path):
    target = {
        "manifest": step / "manifest.json",
        "arrays": step / "arrays",
        "file": an_array_file(step),
    }[what]
    moved = tmp_path / "moved"
    os.rename(target, moved)
    target.symlink_to(moved)
    refused(step, "no link to one|Too many levels|a link or a device")


@pytest.fixture
def soon():
    """Fail what waits for a pipe, rather than to wait for ever."""

    def late(*_):
        pytest.fail("waits for a pipe")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("what", ["manifest", "file"])
@pytest.mark.parametrize("kind", ["pipe", "socket", "directory"])
@pytest.mark.usefixtures("soon")
def test_what_is_no_regular_file_is_refused_at_once(what, kind, step, monkeypatch):
    target = step / "manifest.json" if what == "manifest" else an_array_file(step)
    target.unlink()
    if kind == "pipe":
        os.mkfifo(target)
    elif kind == "directory":
        target.mkdir()
    else:
        monkeypatch.chdir(target.parent)  # the names of sockets are short
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(target.name)
    refused(step, "regular|link or a device|missing|No such device")


def test_a_device_is_refused(step):
    with (
        pytest.raises(gradtx.DamagedError, match="regular file"),
        _files.opened(Path("/dev/zero")),
    ):
        pass
    with pytest.raises(gradtx.DamagedError, match="regular file"):
        _files.read_small(Path("/dev/zero"), 10)


def test_a_file_that_was_added_is_refused(step):
    (step / "arrays" / "more").write_bytes(b"x")
    refused(step, "more: no such file was written. Move it away")


def test_a_file_that_is_missing_is_named(step):
    file = an_array_file(step)
    file.unlink()
    refused(step, f"{file.name}: the file is missing")


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "arrays/../../secret",
        "arrays/..",
        "../secret",
        "arrays//d",
        "arrays/.hidden",
        "arrays/a\x00b",
        "arrays/a\\b",
        "manifest.json",
        "arrays/" + "d/" * 9 + "x",
        "arrays/" + "x" * 2000,
        "arrays",
        "",
        3,
    ],
)
def test_names_that_lead_elsewhere_are_refused_though_the_manifest_is_sealed(
    name, step
):
    manifest = _manifest.read_manifest(step)
    files = (manifest.files[0]._replace(name=name), *manifest.files[1:])
    object.__setattr__(manifest, "files", files)
    (step / "manifest.json").write_bytes(_manifest.sealed(manifest, None))
    refused(step, "a file's name leads elsewhere")


def test_a_manifest_of_another_version_is_refused(step, monkeypatch):
    manifest = _manifest.read_manifest(step)
    monkeypatch.setattr(_manifest, "VERSION", 2)
    raw = _manifest.sealed(manifest, None)
    monkeypatch.undo()
    (step / "manifest.json").write_bytes(raw)
    refused(step, "version 2 is not the 1 that this gradtx reads")


def test_errors_while_reading_are_of_the_file(tmp_path):
    with pytest.raises(gradtx.DamagedError, match="No such file"):
        _files.read_small(tmp_path / "none", 10)
    (tmp_path / "long").write_bytes(b"x" * 11)
    with pytest.raises(gradtx.DamagedError, match="11 bytes, where at most 10"):
        _files.read_small(tmp_path / "long", 10)
    with pytest.raises(gradtx.DamagedError, match="No such file"):
        _files.files_below(tmp_path / "none")


def test_a_new_file_never_replaces_one(tmp_path):
    _files.write_new(tmp_path / "a", b"first")
    with pytest.raises(FileExistsError):
        _files.write_new(tmp_path / "a", b"second")
    (tmp_path / "b").symlink_to(tmp_path / "c")
    with pytest.raises(FileExistsError):
        _files.write_new(tmp_path / "b", b"through the link")
    assert (tmp_path / "a").read_bytes() == b"first"
