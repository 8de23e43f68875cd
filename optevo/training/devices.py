"""Where to train: a device by its name, one for each worker, and a worker's part of it."""

from __future__ import annotations

import os

import psutil
import torch

from optevo.errors import UserError


def resolve_device(name: str) -> torch.device:
    """`auto`, or a device's name.

    Raises:
        UserError: There is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}; expected auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"device {name!r} was asked for, but torch sees no CUDA device; use --device cpu")
        if (device.index or 0) >= torch.cuda.device_count():
            raise UserError(f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices")
    elif device.type != "cpu":
        raise UserError(f"device {name!r} is not supported; expected auto, cpu, cuda or cuda:N")
    return device


def worker_devices(name: str, workers: int | None) -> list[str]:
    """A device for each worker process: `auto` and `cuda` spread them over the GPUs, where there are any.

    Args:
        name: As in `resolve_device`.
        workers: Processes. None: one a core on a CPU, one a GPU.
    """
    device = resolve_device(name)
    if device.type == "cpu":
        cores = len(psutil.Process().cpu_affinity() or [0]) if psutil.LINUX else os.cpu_count() or 1
        return ["cpu"] * (workers or cores)
    chosen = [str(device)]
    if device.index is None:
        chosen = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return [chosen[i % len(chosen)] for i in range(workers or len(chosen))]


def share_device(device: str, processes: int) -> None:
    """Limit this process to its part of a GPU's memory: one that asks for more fails, not the others."""
    if device != "cpu" and processes > 1:
        # A tenth is for the contexts.
        torch.cuda.set_per_process_memory_fraction(0.9 / processes, device)
