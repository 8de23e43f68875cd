"""Time of one optimizer step: a genome's eager and compiled updates beside torch's own optimizers.

    python -m analysis.benchmarks.step [--quick]

All are taken in turn in one process with one thread, so that a drift of the machine hits them alike.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from optevo.optim import PRESETS, ReferenceOptimizer
from optevo.tasks.models import cifar_cnn, small_cnn


def optimizers(model: nn.Module) -> dict[str, Callable[[], object]]:
    """A step function each, all on the same parameters and gradients."""
    evolved, params = PRESETS["evolved"], list(model.parameters())
    return {
        "evolved, compiled": evolved.optimizer(params, compiled=True).step,
        "evolved, foreach": evolved.optimizer(params, compiled=False).step,
        "evolved, Python loop": ReferenceOptimizer(params, evolved).step,
        "AdamW(fused=True)": torch.optim.AdamW(params, fused=True).step,
        "AdamW(foreach=True)": torch.optim.AdamW(params, foreach=True).step,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three rounds: does it run, not how fast")
    rounds = 3 if parser.parse_args().quick else 200
    torch.set_num_threads(1)
    console = Console(width=110)
    console.print(
        f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}, "
        f"one thread, {rounds} interleaved rounds, median [5 %, 95 %] in ms"
    )
    for make in (small_cnn, cifar_cnn):
        model = make(torch.Generator().manual_seed(0))
        for p in model.parameters():
            p.grad = 1e-2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
        steps = optimizers(model)
        times: dict[str, list[float]] = {name: [] for name in steps}
        for step in steps.values():  # state, compilation
            step()
        for _ in range(rounds):
            for name, step in steps.items():
                start = time.perf_counter()
                step()
                times[name].append(1e3 * (time.perf_counter() - start))
        medians = {name: statistics.median(values) for name, values in times.items()}
        count = sum(p.numel() for p in model.parameters())
        table = Table(
            "step", "ms", "", "of AdamW fused", "of AdamW foreach", title=f"{make.__name__}, {count:,}"
        )
        for name, values in times.items():
            low, *_, high = statistics.quantiles(values, n=20)
            table.add_row(
                name,
                f"{medians[name]:.2f}",
                f"[dim]{low:.2f} {high:.2f}[/dim]",
                f"{medians[name] / medians['AdamW(fused=True)']:.2f}",
                f"{medians[name] / medians['AdamW(foreach=True)']:.2f}",
            )
        console.print(table)


if __name__ == "__main__":
    main()
