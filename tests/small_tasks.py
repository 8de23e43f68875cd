"""Sizes, devices and generators that the tests of tasks and networks share."""

from __future__ import annotations

import struct

import numpy as np
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


def idx_bytes(array: np.ndarray) -> bytes:
    """An idx file of uint8."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def seeded(seed: int = 0, device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)
