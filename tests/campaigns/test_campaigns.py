"""A sample of each campaign finds nothing; all of it runs with `-m slow`."""

import dataclasses
import os
import sys
import time

import pytest

from gradtx import checkpoint
from gradtx.checkpoint._json import parsed
from gradtx.checkpoint._manifest import sealed, unsealed
from gradtx.core import DamagedError
from tests.campaigns import bytes as byte_faults, crashes, kills, manifests, resume
from tests.campaigns._figures import total
from tests.campaigns._processes import Server, compiler


@pytest.mark.parametrize(
    "cases", [200, pytest.param(byte_faults.CASES, marks=pytest.mark.slow)]
)
def test_damage_to_bytes_is_noticed(cases, tmp_path):
    done = total("", byte_faults.campaign(cases, 1, tmp_path, whole=60))
    assert not done.failures
    assert done.detected == done.walked == cases - done.harmless
    assert done.harmless < cases / 20


def test_a_directory_in_place_of_the_manifest_is_damage(tmp_path):
    step = tmp_path / "step_00000001"
    (step / "manifest.json").mkdir(parents=True)
    with pytest.raises(DamagedError, match="regular file"):
        checkpoint.verify(step)


def test_quotes_that_never_close_take_no_time():
    raw = b'"' + rb"\"" * 300_000
    for text in (raw, b"{}\n" + raw + b"\n"):
        began = time.process_time()
        with pytest.raises(DamagedError):
            parsed(text) if text is raw else unsealed(text)
        assert time.process_time() - began < 1  # with one pattern for all: hours


@pytest.mark.parametrize(
    "cases", [1_000, pytest.param(manifests.CASES, marks=pytest.mark.slow)]
)
def test_odd_manifests_are_damage(cases, tmp_path):
    rows = manifests.campaign(cases, 0)
    rows += manifests.campaign_used(cases // 10, 2, tmp_path)
    assert not total("", rows).failures
    for row in rows:
        assert row.detected + row.harmless == row.cases > 0


def test_an_empty_array_too_large_for_numpy_is_damage():
    made = manifests.example()
    shape = {"shape": (0, 2**62)}
    leaf = dataclasses.replace(made.trees["params"][0], spec=None, **shape)
    odd = dataclasses.replace(made, trees={"params": (leaf,)}, states=())
    with pytest.raises(DamagedError, match="larger than any memory"):
        unsealed(sealed(odd, None))


@pytest.fixture(scope="module")
def server():
    if not hasattr(os, "fork") or sys.platform != "linux":
        pytest.skip("needs processes that fork, and Linux to count their threads")
    with Server(shim=compiler() is not None) as server:
        yield server


@pytest.mark.skipif(compiler() is None, reason="needs a C compiler, cc, and Linux")
@pytest.mark.parametrize("cases", [10, pytest.param(None, marks=pytest.mark.slow)])
def test_a_save_survives_what_breaks_it(cases, server, tmp_path):
    rows = crashes.campaign(server, cases, 3, tmp_path)
    assert not total("", rows).failures
    assert sum(row.detected for row in rows) > sum(row.harmless for row in rows)


@pytest.mark.parametrize(
    "cases", [3, pytest.param(kills.CASES, marks=pytest.mark.slow)]
)
def test_killed_training_goes_on_from_what_was_acknowledged(cases, server, tmp_path):
    done = total("", kills.campaign(server, cases, 4, tmp_path))
    assert not done.failures
    assert done.walked == cases


def test_transformations_resume_bit_for_bit(server, tmp_path):
    names = resume.sample(4, 5)
    done = total("", resume.campaign(server, names, tmp_path, (4,), ("float32",)))
    assert not done.failures
    assert done.harmless == len(names)


@pytest.mark.slow
def test_every_transformation_resumes_bit_for_bit(server, tmp_path):
    done = total("", resume.campaign(server, resume.sample(0, 0), tmp_path))
    assert not done.failures
    assert done.harmless == done.cases == 6 * len(resume.sample(0, 0))
