"""Every notebook runs from top to bottom, and none is stored with its outputs."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return read(request.param)


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_notebook_runs_without_errors_or_warnings(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    place = {"metadata": {"path": str(tmp_path)}}
    # raises CellExecutionError, with the cell and its traceback, where a cell fails
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources=place
    ).execute()
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    assert outputs
    assert [o.text for o in outputs if o.get("name") == "stderr"] == []


def test_notebook_is_stored_clean(notebook):
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
