"""The site names every public name, its links lead somewhere, its examples run."""

import doctest
import inspect
import itertools
import pathlib
import re
import types
from typing import Any

import jax.numpy as jnp
import pytest

import gradtx
import gradtx.testing

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    page
    for page in DOCS.rglob("*.md")
    if page.relative_to(DOCS).parts[0] not in ("_build", "notebooks")
)
ROOMS = {
    name: room
    for name, room in vars(gradtx).items()
    if hasattr(room, "__path__") and not name.startswith("_")
}
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def _spaces(room):
    """Return a room and the modules that it shows, such as experimental.aggregating.

    Programs, such as testing.compare, are there only once something has run them.
    """
    shown = [
        m
        for name, m in vars(room).items()
        if not name.startswith("_") and not hasattr(m, "main")
    ]
    return [room, *(m for m in shown if isinstance(m, types.ModuleType))]


def _name(page):
    return str(page.relative_to(DOCS))


def _documented(page):
    """Return the dotted names that the directives of an API page document."""
    names, module = [], ""
    for kind, name in re.findall(r"^\.\. ([\w:]+):: ([\w.]+)", page.read_text(), re.M):
        if kind == "currentmodule":
            module = name
        else:
            names.append(f"{module}.{name}")
    return names


def _fences(text):
    """Yield the language and the text of each fenced block, in order."""
    for fence in re.finditer(r"^```(\S*)[^\n]*\n(.*?)^```$", text, re.M | re.S):
        yield fence[1], fence[2]


def _anchors(page):
    """Return the anchors of a page's headings, spelled as GitHub spells them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    plain = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"\s", "-", heading) for heading in plain}


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_every_public_name_of_a_room_is_on_its_api_page(room):
    public = {
        name
        for space in _spaces(ROOMS[room])
        for name, value in vars(space).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    page = DOCS / "api" / f"{room}.md"
    written = {name.rpartition(".")[2] for name in _documented(page)}
    assert public <= written, f"{_name(page)} lacks {sorted(public - written)}"


@pytest.mark.parametrize("page", sorted(DOCS.glob("api/*.md")), ids=_name)
def test_an_api_page_names_only_what_there_is(page):
    for name in _documented(page):
        found = gradtx
        for part in name.split(".")[1:]:
            found = getattr(found, part)
        homes = _spaces(ROOMS[page.stem])
        last = name.rpartition(".")[2]
        assert any(getattr(home, last, None) is found for home in homes), name


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_internal_links_lead_to_a_page_and_a_heading(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.is_file(), target
        assert not anchor or anchor in _anchors(there), target


def test_every_page_is_in_a_table_of_contents():
    listed = {DOCS / "index.md"}
    for page in PAGES:
        for language, text in _fences(page.read_text()):
            if language == "{toctree}":
                entries = re.findall(r"^(?!:)(\S+)$", text, re.M)
                listed |= {(page.parent / f"{entry}.md").resolve() for entry in entries}
    assert {_name(page) for page in PAGES if page.resolve() not in listed} == set()


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name
)
@pytest.mark.usefixtures("lenient")
def test_examples_of_a_page_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    for number, (language, text) in zip(itertools.count(1), _fences(page.read_text())):
        where = f"{page.name}, block {number}"
        if language == "python":
            exec(compile(text, where, "exec"), namespace)
        elif language == "pycon":
            test = doctest.DocTestParser().get_doctest(text, namespace, where, None, 0)
            report = []
            runner.run(test, out=report.append, clear_globs=False)
            namespace.update(test.globs)
            assert runner.failures == 0, "".join(report)


#: What some optimizers want besides a learning rate.
REQUIRED: dict[str, dict[str, Any]] = {
    "dpsgd": {"l2_norm_clip": 1.0, "noise_multiplier": 1.0, "seed": 0},
    "noisy_sgd": {"key": 0},
}


def test_the_table_of_optimizers_tells_chains_and_states():
    text = (DOCS / "concepts" / "optimizers.md").read_text()
    rows = {}
    for row in re.findall(r"^\| `\w+` .*\|$", text, re.M):
        # what parentheses hold is there under other arguments only
        cells = re.sub(r"\(.*?\)", "", row).split("|")[1:4]
        (name,), *parts = (re.findall(r"`(\w+)`", cell) for cell in cells)
        rows[name] = parts
    for name, factory in vars(gradtx.optimizers).items():
        if name.startswith(("scale_by", "hutchinson")) or not inspect.isfunction(
            factory
        ):
            continue
        arguments = REQUIRED.get(name, {})
        rate = 1e-3 if "learning_rate" in inspect.signature(factory).parameters else 1.0
        state = factory(rate, **arguments).init({"w": jnp.zeros(())})
        if not gradtx.core.is_chain_state(state):  # the links are told in words
            assert rows.pop(name)[1] == list(state._fields), name
            continue
        links = list(state._fields)
        if links[-1] == "scale_by_learning_rate":  # so do most, and it goes unsaid
            links.pop()
        silent = "scale_by_learning_rate"
        fields = [
            field
            for link, name_ in zip(state, state._fields, strict=True)
            for field in link._fields
            if name_ != silent
        ]
        assert rows.pop(name, None) == [links, fields], name
    assert not rows, "rows of optimizers that there are not"


def test_every_departure_from_optax_is_on_the_page_about_it():
    text = (DOCS / "how-to" / "from-optax.md").read_text()
    for name, value in vars(gradtx).items():
        differs = re.search(r"Differs\s+from[^:]*\boptax\b", value.__doc__ or "")
        if differs and inspect.isfunction(value):
            assert re.search(rf"\b{name}\b", text), name
