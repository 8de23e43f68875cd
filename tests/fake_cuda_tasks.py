"""The built-in tasks on a device that is not there, with blank data of their shapes and dtypes."""

from __future__ import annotations

import copy

import torch
from fake_cuda import CUDA

from optevo.tasks import Split, Task, get_task

#: Tenths of 12 steps end after all of them but the 3rd and the 9th: those two have no look.
STEPS, LOOKS, BATCH = 12, 10, 16
SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "fashion_mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
#: The other tasks have the code of these.
BLANK = (*SHAPES, "char_lm")


def made(name: str | Task) -> tuple[Task, dict[str, Split]]:
    """A task with blank data of its shapes and dtypes on the device."""
    task = get_task(name) if isinstance(name, str) else name
    task.normalise = copy.copy(task.normalise)  # whose constants are kept for good
    if task.name == "char_lm":
        text = torch.zeros(64 * BATCH + 1, dtype=torch.uint8)
        split = Split(text[:-1].clone(), text[1:].clone())
    else:
        images = torch.zeros(4 * BATCH, *SHAPES[task.name], dtype=torch.uint8)
        split = Split(images, torch.zeros(4 * BATCH, dtype=torch.int64))
    return task, {part: split.to(CUDA) for part in ("train", "validation")}
