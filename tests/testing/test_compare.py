"""The comparison runs both libraries and says what it found."""

import pathlib
import re

import pytest

import gradtx
from gradtx.testing import PROPERTIES, catalogue, compare

PAGE = pathlib.Path(__file__).parents[2] / "docs/reliability.md"


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize(
    "name", ["adamw", "masked", "partition", "lookahead", "accumulate", "named_chain"]
)
def test_a_peer_is_the_same_call_in_optax(name):
    found = compare.peer(catalogue()[name])
    assert found is not None
    call, theirs = found
    assert call[0].__module__.startswith("optax")
    assert callable(theirs.init)


def test_what_optax_does_not_have_has_no_peer():
    assert compare.peer(gradtx.pmean_gradients("data")) is None


def test_the_tables_count_and_name(capsys):
    assert compare.main(["sgd", "adam", "--abstract"]) == 0
    out = capsys.readouterr().out
    assert "- **gradtx**: 2 transformations, 50 cells: 50 pass, 0 fail" in out
    row = next(line for line in out.split("\n") if line.startswith("| `adam`"))
    assert row.split("|")[2].strip() == "0 of 25"
    assert "P2" in row.split("|")[4]


def test_an_unknown_name_is_told():
    with pytest.raises(SystemExit):
        compare.main(["adma"])


def test_the_page_shows_every_property_and_no_failure():
    text = PAGE.read_text()
    for code, prop in PROPERTIES.items():
        row = next(x for x in text.split("\n") if x.startswith(f"| {code} |"))
        cells = [cell.strip() for cell in row.split("|")[1:-1]]
        assert cells[1] == prop.claim
        assert cells[2].split()[0] in ("0", "–")
    rows = re.findall(r"^\| `(\w+)` \| (\d+) of \d+ \|", text, re.M)
    assert len(rows) >= 40
    assert {name for name, _ in rows} >= {"sgd", "adamw", "lion", "muon", "chain"}
    assert {failed for _, failed in rows} == {"0"}
