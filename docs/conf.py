"""Configure the site: what Sphinx loads, when cells run, how docstrings are read."""

import hashlib
import inspect
import os
import pathlib
import re
import shutil

os.environ["JAX_PLATFORMS"] = "cpu"  # kernels inherit it: the same numbers everywhere

import jax

import gradtx

HERE = pathlib.Path(__file__).parent

project = "gradtx"
release = version = gradtx.__version__
html_title = f"gradtx {release}"
html_theme = "furo"
html_copy_source = False
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "jupyter_execute"]
toc_object_entries_show_parents = "hide"
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True
myst_heading_anchors = 3

# Cells are cached by their text, by the text of the library and by the version of JAX.
SOURCES = sorted(pathlib.Path(gradtx.__file__).parent.rglob("*.py"))
STATE = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()[:12]
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / f"cells-{STATE}-jax-{jax.__version__}")
nb_execution_timeout = 120
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_merge_streams = True
nb_output_stderr = "remove-warn"

# Notebooks live at the root, where they are run from; the site shows copies.
NOTEBOOKS = sorted((HERE.parent / "notebooks").glob("*.ipynb"))
(HERE / "notebooks").mkdir(exist_ok=True)
for notebook in NOTEBOOKS:
    shutil.copy(notebook, HERE / "notebooks")
if not NOTEBOOKS:
    suppress_warnings = ["toc.not_readable"]

autodoc_typehints = "none"  # types stand with the arguments, as the source spells them
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Source", ("Fields", "params_style")]

#: Where the site documents each public name.
HOMES = {
    name: f"{spelling}.{name}"
    for spelling, room in [
        ("gradtx.core", gradtx.core),
        ("gradtx.tree", gradtx.tree),
        ("gradtx", gradtx),
    ]
    for name in vars(room)
    if not name.startswith("_") and not inspect.ismodule(getattr(room, name))
}


def setup(app):
    """Read docstrings as Markdown, before napoleon looks for their sections."""
    app.connect("autodoc-process-docstring", as_rst, priority=400)


def as_rst(app, what, name, obj, options, lines):
    """Turn the Markdown of a docstring into reStructuredText, and add the types."""
    signed = what in ("function", "class") and callable(obj)
    parameters = inspect.signature(obj).parameters if signed else {}
    roles = gradtx.roles(obj) if what == "class" else {}
    # an argument that is called like a public name means itself
    local = set() if roles else set(parameters)

    def argument(match):
        indent, star, name = match.groups()
        kind = parameters[name].annotation if name in parameters else None
        kind = roles[name].name.title().replace("_", "") if name in roles else kind
        return f"{indent}{star}{name} ({kind}):" if kind else match[0]

    def code(match):
        link = match[1] in HOMES and match[1] not in local
        return f":py:obj:`~{HOMES[match[1]]}`" if link else f"``{match[1]}``"

    text = "\n".join(lines)
    if roles and "Attributes:" not in text:
        text += "\nAttributes:\n" + "".join(f"  {field}: \n" for field in roles)
    text = re.sub(r"^Attributes:", "Fields:", text, flags=re.M)
    text = re.sub(r"^(  )(\**)(\w+):", argument, text, flags=re.M)
    text = re.sub(r"^```\n(.*?)^```$", block, text, flags=re.M | re.S)
    text = re.sub(r"(?:^\|.*\n)+", table, text, flags=re.M)
    text = re.sub(r"(?<![`\\:])`([^`]+)`(?!`)", code, text)
    text = re.sub(r"arXiv:([\d.]*\d)", r"`arXiv:\1 <https://arxiv.org/abs/\1>`__", text)
    text = re.sub(r"^Source: (.)((?:.+\n?)+)", source, text, flags=re.M)
    text = re.sub(
        r"^(Differs from (?:[^:\n]+(?=:)|[\w.]+))", r"**\1**", text, flags=re.M
    )
    lines[:] = text.split("\n")


def block(fence):
    """Turn a fence into a literal block."""
    return "::\n\n" + re.sub(r"^", "  ", fence[1], flags=re.M)


def table(pipes):
    """Turn a table of pipes into a list table."""
    head, _, *body = (row.strip("| ").split("|") for row in pipes[0].splitlines())
    rows = ["   * - " + "\n     - ".join(map(str.strip, row)) for row in (head, *body)]
    return "\n".join([".. list-table::", "   :header-rows: 1", "", *rows, ""])


def source(paragraph):
    """Turn the paragraph into a section that napoleon knows."""
    text = paragraph[1].upper() + paragraph[2]
    return "Source:\n" + re.sub(r"^", "  ", text, flags=re.M)
