"""What the benchmarks share: the line that says on what and with what, and how spread is written."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Column, Table

console = Console(width=120, markup=False, highlight=False)


def parser(doc: str | None, *, device: bool = False) -> argparse.ArgumentParser:
    """A parser that knows `--quick` and, with `device`, `--device`; `doc` is the script's docstring."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="does it run, not how fast")
    if device:
        made.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="cpu or cuda")
    return made


def print_header(how: str) -> None:
    """The machine, the versions, and how the figures below were measured."""
    versions = (f"{name} {importlib.metadata.version(name)}" for name in ("torch", "optuna"))
    console.print(f"{cpu()}, {cores()} cores, Python {platform.python_version()}, {', '.join(versions)}")
    for i in range(torch.cuda.device_count()):
        console.print(f"cuda:{i}: {torch.cuda.get_device_name(i)}")
    if hasattr(os, "getloadavg"):  # figures taken beside other work are no figures
        console.print(f"load before: {os.getloadavg()[0]:.1f}")
    console.print(f"measured: {how}")


def now(device: torch.device) -> float:
    """Seconds on a clock, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def cpu() -> str:
    """The processor's name as Linux gives it; elsewhere its architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def table(title: str, name: str, *columns: str) -> Table:
    """A table whose first column is words and the others figures, aligned right."""
    figures = (Column(column, justify="right") for column in columns)
    return Table(Column(name), *figures, title=title, title_justify="left")


def middle(values: Sequence[float], digits: int = 2) -> str:
    """The median with the 5 % and 95 % quantiles, or with the extremes where there are fewer than twenty."""
    low, high = min(values), max(values)
    if len(values) >= 20:
        low, *_, high = statistics.quantiles(values, n=20)
    return f"{statistics.median(values):,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}]"
