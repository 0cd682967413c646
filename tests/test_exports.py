"""Every public name has one home, a shortcut and a docstring."""

import inspect
import re
import sys
import types

import pytest

import gradtx
import gradtx.testing
from gradtx.core import _call

#: Everything one can look into: rooms, which are packages, and windows, plain modules
#: that show names of the rooms under optax's spelling.
MODULES = {
    name: module
    for name, module in vars(gradtx).items()
    if isinstance(module, types.ModuleType) and not name.startswith("_")
}
ROOMS = {name: room for name, room in MODULES.items() if hasattr(room, "__path__")}
#: Rooms whose names are too short or too special to stand alone.
LONG = {"core", "tree", "interop", "testing", "telemetry", "guard"}
LONG |= {"assignment", "checkpoint", "perturbations", "precision", "second_order"}
FACTORIES = {
    name: factory
    for name, factory in _call.registered().items()
    if name.startswith("gradtx.")
    and hasattr(sys.modules[factory.__module__], factory.__name__)  # no doctest's
}
SECTIONS = ["Args:", "Returns:", "Raises:", "Example:", "Source:", "Differs"]


def _public(module):
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }


@pytest.mark.parametrize("room", sorted(set(ROOMS) - LONG))
def test_every_name_of_a_room_has_a_shortcut(room):
    for name, value in _public(ROOMS[room]).items():
        if name != "plot":  # what it plots, the room says
            assert getattr(gradtx, name, None) is value, f"{room}.{name}"


def test_every_shortcut_lives_in_a_room():
    homes = [_public(module) for module in MODULES.values()]
    for name, value in _public(gradtx).items():
        assert any(home.get(name) is value for home in homes), name


@pytest.mark.parametrize("name", sorted(FACTORIES))
def test_registered_factory_is_public_under_its_name(name):
    assert getattr(gradtx, name.removeprefix("gradtx.")) is FACTORIES[name]


@pytest.mark.parametrize("name", sorted(FACTORIES))
def test_factory_documents_itself(name):
    factory = FACTORIES[name]
    doc = inspect.getdoc(factory) or ""
    first = doc.split("\n\n")[0]
    assert first.endswith("."), "the first paragraph is one sentence"
    assert "Source:" in doc
    found = [s for line in doc.splitlines() for s in SECTIONS if line.startswith(s)]
    order = sorted(found, key=SECTIONS.index)
    assert found == order, f"sections out of order: {found}"
    for parameter in inspect.signature(factory).parameters.values():
        star = "\\*" if parameter.kind is parameter.VAR_POSITIONAL else ""
        entry = rf"^\s+([\w*]+, )*{star}{parameter.name}(, [\w*]+)*: \S"
        assert re.search(entry, doc, re.M), parameter.name


@pytest.mark.parametrize(
    "name",
    [n for n, v in _public(gradtx).items() if callable(v) and hasattr(v, "__doc__")],
)
def test_public_name_has_a_docstring(name):
    value = getattr(gradtx, name)
    if getattr(value, "__module__", "").startswith("gradtx"):
        assert value.__doc__
        assert "Alias for field" not in value.__doc__


def test_typing_marker_is_shipped():
    from importlib import resources

    assert resources.files(gradtx).joinpath("py.typed").is_file()
