"""Handwritten digits, in batches that devices share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


class Batch(NamedTuple):
    """Examples, filled up by others of weight 0 to a number that devices can share."""

    image: Any  # (*batch, 8, 8, 1), float32 in [0, 1]
    label: Any  # (*batch,), int32 in [0, 10)
    weight: Any  # (*batch,), float32, 1 or 0


def load_data(seed: int) -> tuple[Batch, Batch]:
    """Return 1437 digits to train on and 360 to test on, each kind in equal shares."""
    pixels, label = load_digits(return_X_y=True)
    image = np.float32(pixels / 16).reshape(-1, 8, 8, 1)
    data = image, np.int32(label), np.ones(len(label), np.float32)
    parts = train_test_split(*data, test_size=360, random_state=seed, stratify=label)
    return Batch(*parts[::2]), Batch(*parts[1::2])


def batches(
    data: Batch, order: np.ndarray | None = None, *, size: int, devices: int
) -> Iterator[Batch]:
    """Yield each example once, in batches of shape (devices, share, ...).

    Where the devices cannot share a batch evenly, and in a short last batch, other
    examples fill the gaps with weight 0.

    Args:
      data: all examples.
      order: their numbers in the order of use; by default as they come.
      size: how many make up a batch, over all devices.
      devices: how many devices share a batch.
    """
    order = np.arange(len(data.label)) if order is None else order
    share = -(-size // devices)  # rounded up
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        filled = np.pad(chosen, (0, share * devices - len(chosen)))
        batch = Batch(*(x[filled] for x in data))
        batch.weight[len(chosen) :] = 0
        yield Batch(*(x.reshape(devices, share, *x.shape[1:]) for x in batch))
