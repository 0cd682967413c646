"""Targets are written as XLA reads them."""

import pytest

from benchmarks.ahead_of_time import DEVICES, target


@pytest.mark.parametrize("device", DEVICES)
def test_target_is_balanced_text_with_every_figure(device):
    text = target(device)
    assert text.count("{") == text.count("}") == 3
    assert all(f"  {key}: {value}\n" in text for key, value in DEVICES[device].items())
