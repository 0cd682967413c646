"""The how-to page lists metrics and shows tables as the code has them."""

import pathlib
import re

import jax
import jax.numpy as jnp

import gradtx
from gradtx import telemetry

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "how-to" / "telemetry.md"


def rows() -> list[str]:
    """Return the rows that the table on the page must have."""
    made = []
    for name, metric in telemetry.METRICS.items():
        tells = metric.tells.replace("|", "\\|")
        made.append(f"| `{name}` | {metric.kind} | {metric.unit} | {tells} |")
    return made


def test_the_page_lists_every_metric_with_kind_unit_and_meaning():
    text = PAGE.read_text(encoding="utf-8")
    there = re.findall(
        r"^\| `\w+` \| (?:gauge|counter|histogram|text) \|.*$", text, re.M
    )
    # where METRICS has changed: print("\n".join(rows())) is the new table
    assert there == rows()


def test_the_page_shows_what_is_explained_and_summed_up():
    shapes = {"encoder": {"kernel": (4, 3)}, "head": {"kernel": (3, 2), "bias": (2,)}}
    params = jax.tree.map(jnp.zeros, shapes, is_leaf=lambda x: isinstance(x, tuple))
    tx = gradtx.chain(
        gradtx.clip_by_global_norm(1.0),
        gradtx.adamw(0.01, mask=gradtx.ndim_at_least(2)),
    )
    text = PAGE.read_text(encoding="utf-8")
    for table in (gradtx.explain(tx, params), gradtx.summary(tx, params)):
        top, _, rest = str(table).partition("\n\n")
        assert top == repr(tx)
        assert f"```text\n{rest}\n```" in text
