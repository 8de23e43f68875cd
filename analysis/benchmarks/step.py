"""Time of one optimizer step: a genome's eager and compiled updates beside torch's own optimizers.

    python -m analysis.benchmarks.step [--quick]

All are taken in one process with one thread, in an order shuffled each round, so that a drift of the machine
hits them alike. Each step follows a forward and backward pass, as in training: gradients are new and the
caches hold other things. The plain loop is how implementations of term genomes commonly write the update: one
parameter and one term after the other.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from optevo.optim import PRESETS, TermGenome
from optevo.tasks.models import cifar_cnn, small_cnn

BATCH = 16  # a short pass; the step does not depend on it
MODELS = {small_cnn: (BATCH, 1, 28, 28), cifar_cnn: (BATCH, 3, 32, 32)}


def plain_loop(params: list[Tensor], genome: TermGenome) -> Callable[[], None]:
    """A step in plain Python of a genome with both moments, no clipping and no bias correction."""
    state = [(torch.zeros_like(p), torch.zeros_like(p)) for p in params]

    @torch.no_grad()
    def step() -> None:
        for i, p in enumerate(params):
            g, (m, v) = p.grad, state[i]
            m = genome.beta1 * m + (1 - genome.beta1) * g
            v = genome.beta2 * v + (1 - genome.beta2) * g**2
            state[i] = m, v
            update = torch.zeros_like(p)
            for term, alpha in zip(genome.terms, genome.alphas, strict=True):
                if term == "SIGN_GRAD":
                    update += alpha * torch.sign(g)
                elif term == "ADAM_TERM":
                    update += alpha * m / (torch.sqrt(v) + genome.eps)
                else:
                    raise NotImplementedError(term)
            p.mul_(1 - genome.lr * genome.weight_decay)
            p.sub_(genome.lr * update)

    return step


def optimizers(params: list[Tensor]) -> dict[str, Callable[[], object]]:
    """A step function each, all on the same parameters and gradients."""
    evolved = PRESETS["evolved"]
    return {
        "evolved, compiled": evolved.optimizer(params, compiled=True).step,
        "evolved, foreach": evolved.optimizer(params, compiled=False).step,
        "evolved, plain Python loop": plain_loop(params, evolved),
        "AdamW(fused=True)": torch.optim.AdamW(params, fused=True).step,
        "AdamW(foreach=True)": torch.optim.AdamW(params, foreach=True).step,
    }


def measure(model: nn.Module, shape: tuple[int, ...], rounds: int) -> tuple[dict[str, list[float]], float]:
    """Every step's times in ms, and the seconds of the compiled one's first step."""
    rng, order = torch.Generator().manual_seed(0), random.Random(0)
    inputs = torch.rand(shape, generator=rng)
    targets = torch.randint(10, (shape[0],), generator=rng)
    steps = optimizers(list(model.parameters()))
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name in order.sample(list(steps), len(steps)):
            model.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            start = time.perf_counter()
            steps[name]()
            times[name].append(1e3 * (time.perf_counter() - start))
    first = times["evolved, compiled"][0] / 1e3  # the first makes state, and compiles
    return {name: values[1:] for name, values in times.items()}, first


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
        f"one thread, {rounds} interleaved rounds, median [5 %, 95 %] in ms; the columns after it are ratios"
    )
    for make, shape in MODELS.items():
        model = make(torch.Generator().manual_seed(0))
        times, first = measure(model, shape, rounds)
        medians = {name: statistics.median(values) for name, values in times.items()}
        count = sum(p.numel() for p in model.parameters())
        table = Table("step", "ms", "", title=f"{make.__name__}, {count:,} parameters")
        against = ("AdamW(fused=True)", "AdamW(foreach=True)", "evolved, plain Python loop")
        for name in ("of AdamW fused", "of AdamW foreach", "of the plain loop"):
            table.add_column(name)
        for name, values in times.items():
            low, *_, high = statistics.quantiles(values, n=20)
            ratios = [f"{medians[name] / medians[other]:.2f}" for other in against]
            table.add_row(name, f"{medians[name]:.2f}", f"[dim]{low:.2f} {high:.2f}[/dim]", *ratios)
        console.print(table)
        console.print(f"first compiled step {first:.1f} s (from the compiler's cache, if it was there)")


if __name__ == "__main__":
    main()
