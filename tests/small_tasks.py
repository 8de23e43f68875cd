"""Sizes, devices and generators that the tests of tasks and networks share."""

from __future__ import annotations

import pytest
import torch

# The folder of each set in a data root.
SETS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "cifar10", "char_lm": "tinyshakespeare"}
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
    ),
]


def seeded(seed: int = 0, device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)
