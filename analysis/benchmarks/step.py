"""Time of one optimizer step: a genome's eager and compiled updates beside torch's own optimizers.

    python -m analysis.benchmarks.step [--quick] [--device cuda]

All are taken in one process with one thread, in an order shuffled each round, so that a drift of the machine
hits them alike. Each step follows a forward and backward pass, as in training: gradients are new and the
caches hold other things. The plain loop is how implementations of term genomes commonly write the update: one
parameter and one term after the other.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn

from analysis.benchmarks.common import console, middle, now, parser, print_header, table
from analysis.benchmarks.plain import PlainOptimizer
from optevo.optim.terms.presets import PRESETS
from optevo.tasks.models import cifar_cnn, small_cnn

BATCH = 16  # a short pass; the step does not depend on it
MODELS = {small_cnn: (BATCH, 1, 28, 28), cifar_cnn: (BATCH, 3, 32, 32)}


def optimizers(params: list[Tensor]) -> dict[str, Callable[[], object]]:
    """A step function each, all on the same parameters and gradients."""
    evolved = PRESETS["evolved"]
    return {
        "evolved, compiled": evolved.optimizer(params, compiled=True).step,
        "evolved, foreach": evolved.optimizer(params, compiled=False).step,
        "evolved, plain Python loop": PlainOptimizer(params, evolved, total_steps=1_000_000).step,
        "AdamW(fused=True)": torch.optim.AdamW(params, fused=True).step,
        "AdamW(foreach=True)": torch.optim.AdamW(params, foreach=True).step,
    }


def measure(
    model: nn.Module, shape: tuple[int, ...], rounds: int, device: torch.device
) -> tuple[dict[str, list[float]], float]:
    """Every step's times in ms, and the seconds of the compiled one's first step."""
    rng, order = torch.Generator().manual_seed(0), random.Random(0)
    inputs = torch.rand(shape, generator=rng).to(device)
    targets = torch.randint(10, (shape[0],), generator=rng).to(device)
    steps = optimizers(list(model.parameters()))
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name in order.sample(list(steps), len(steps)):
            model.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            start = now(device)
            steps[name]()
            times[name].append(1e3 * (now(device) - start))
    first = times["evolved, compiled"][0] / 1e3  # the first makes state, and compiles
    return {name: values[1:] for name, values in times.items()}, first


def main() -> None:
    """Measure and print."""
    options = parser(__doc__, device=True).parse_args()
    rounds = 3 if options.quick else 200
    torch.set_num_threads(1)
    print_header(f"one thread, {rounds} interleaved rounds, median [5 %, 95 %]; the ratios are of medians")
    for make, shape in MODELS.items():
        model = make(torch.Generator().manual_seed(0)).to(options.device)
        times, first = measure(model, shape, rounds, options.device)
        medians = {name: statistics.median(values) for name, values in times.items()}
        count = sum(p.numel() for p in model.parameters())
        against = ("AdamW(fused=True)", "AdamW(foreach=True)", "evolved, plain Python loop")
        columns = ("ms", "of AdamW fused", "of AdamW foreach", "of the plain loop")
        rows = table(f"{make.__name__}, {count:,} parameters", "step", *columns)
        for name, values in times.items():
            rows.add_row(
                name, middle(values), *(f"{medians[name] / medians[other]:.2f}" for other in against)
            )
        console.print(rows)
        console.print(f"first compiled step {first:.1f} s (from the compiler's cache, if it was there)")


if __name__ == "__main__":
    main()
