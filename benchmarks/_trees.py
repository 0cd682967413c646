"""The parameter trees that everything is measured on, as shapes by name."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

Shapes = dict[str, tuple[int, ...]]

#: What each tree stands for; `shapes` builds it, at three sizes.
TREES = {
    "one": "one array of 64M elements",
    "gpt2": "GPT-2-small, 124M parameters in 148 leaves",
    "many": "2,000 leaves of 1–16k elements, 11M parameters",
    "mlp": "a ten-leaf MLP, 245k parameters",
    "layers": "the matrices of two layers of GPT-2, for Muon",
}


def shapes(tree: str, size: str = "normal") -> Shapes:
    """Return the shapes of a tree's leaves.

    Args:
      tree: a name in `TREES`.
      size: "normal"; "quick", which has fewer or smaller leaves; or "tiny", for tests.
    """
    small = {"normal": 0, "quick": 1, "tiny": 2}[size]
    if tree == "one":
        return {"w": ((64, 16, 1)[small] * 2**20 // (1, 1, 16)[small],)}
    if tree == "gpt2":
        width = (768, 384, 64)[small]
        return gpt2(width, (12, 4, 12)[small], vocabulary=(50257, 25129, 509)[small])
    if tree == "layers":
        matrices = gpt2((768, 192, 64)[small], layers=2, vocabulary=1)
        return {k: s for k, s in matrices.items() if k[0] == "h" and len(s) == 2}
    if tree == "many":
        return many((2000, 100, 50)[small])
    if tree == "mlp":
        return mlp((784, 256, 128, 64, 32, 10))
    raise ValueError(f"no tree {tree!r}; there are {', '.join(TREES)}.")


def gpt2(width: int, layers: int, vocabulary: int) -> Shapes:
    """Return the shapes of GPT-2: two embeddings, twelve leaves a layer, a norm."""
    block = {
        "ln_1/g": (width,),
        "ln_1/b": (width,),
        "attn/c_attn/w": (width, 3 * width),
        "attn/c_attn/b": (3 * width,),
        "attn/c_proj/w": (width, width),
        "attn/c_proj/b": (width,),
        "ln_2/g": (width,),
        "ln_2/b": (width,),
        "mlp/c_fc/w": (width, 4 * width),
        "mlp/c_fc/b": (4 * width,),
        "mlp/c_proj/w": (4 * width, width),
        "mlp/c_proj/b": (width,),
    }
    found: Shapes = {"wte": (vocabulary, width), "wpe": (1024, width)}
    for layer in range(layers):
        found |= {f"h{layer:02}/{name}": shape for name, shape in block.items()}
    return found | {"ln_f/g": (width,), "ln_f/b": (width,)}


def many(leaves: int, distinct: int = 48, seed: int = 0) -> Shapes:
    """Return `leaves` shapes of 1 to 16k elements, of which `distinct` differ.

    Sizes are 2¹⁴·u² with u spread evenly, 5.5k on average: many small ones, as biases
    and norms are. Two of three are matrices.
    """
    kinds: list[tuple[int, ...]] = []
    for index in range(distinct):
        elements = max(1, round(2**14 * ((index + 0.5) / distinct) ** 2))
        rows = 2 ** (index % 5 + 2)
        matrix = index % 3 and elements >= 4 * rows
        kinds.append((rows, elements // rows) if matrix else (elements,))
    picks = np.random.default_rng(seed).permutation(np.arange(leaves) % distinct)
    return {f"leaf{index:05}": kinds[pick] for index, pick in enumerate(picks)}


def mlp(widths: tuple[int, ...]) -> Shapes:
    """Return the weights and biases of a fully connected network."""
    found: Shapes = {}
    for index, (rows, columns) in enumerate(itertools.pairwise(widths)):
        found |= {f"{index}/w": (rows, columns), f"{index}/b": (columns,)}
    return found


def count(tree: Shapes) -> int:
    """Return the number of parameters."""
    return sum(math.prod(shape) for shape in tree.values())


def arrays(tree: Shapes, scale: float, seed: int) -> dict[str, np.ndarray]:
    """Return normal numbers of a tree's shapes, float32.

    A block of a million is repeated: what is timed does not depend on the numbers,
    and drawing 124M of them takes longer than the step.
    """
    block = np.random.default_rng(seed).standard_normal(2**20 + 7, np.float32) * scale

    def numbers(shape: tuple[int, ...]) -> np.ndarray:
        size = math.prod(shape)
        # `resize` keeps a whole copy of the block behind each array, however small
        flat = block[:size].copy() if size <= len(block) else np.resize(block, size)
        return flat.reshape(shape)

    return {name: numbers(shape) for name, shape in tree.items()}


def abstract(tree: Shapes) -> dict[str, Any]:
    """Return the shapes as JAX knows them, without numbers."""
    import jax

    return {k: jax.ShapeDtypeStruct(s, np.float32) for k, s in tree.items()}
