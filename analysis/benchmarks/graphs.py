"""Time of one step of an equation's optimizer beside torch's AdamW, and three ways to evaluate it.

    python -m analysis.benchmarks.graphs [--quick]

All are taken in one process with one thread, in an order shuffled each round, so that a drift of the machine
hits them alike. The thread's own time is taken, which other processes lengthen less. Each step follows a
forward and backward pass, as in training, with memory kept as there.
In blocks is what `GraphOptimizer` does on a CPU; whole tensors are its function on each parameter at once;
compiled is that by `torch.compile`.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from analysis.benchmarks.common import console, middle, parser, print_header, table
from optevo.optim.graphs.presets import PRESETS
from optevo.optim.graphs.program import program
from optevo.tasks import get_task
from optevo.tasks.models import small_cnn
from optevo.training.single import _keep_freed_memory

EQUATIONS = ("opt4", "opt6", "opt10", "a5")
TOTAL_STEPS, RATE = 10_000, 1e-3


def whole(name: str, params: list[Tensor], *, compiled: bool) -> Callable[[], None]:
    """A step that evaluates the function on each parameter at once."""
    rule = program(PRESETS[name].equation.text())
    update = torch.compile(rule.update, dynamic=True) if compiled else rule.update
    states = [[torch.zeros_like(p).view(-1) for _ in rule.states] for p in params]
    counts: Iterator[int] = iter(range(1, TOTAL_STEPS))
    tables = rule.tables(TOTAL_STEPS)

    def step() -> None:
        k = next(counts)
        numbers = (RATE, 0.9, k, *(decay[k - 1] for decay in tables), None)
        with torch.no_grad():
            for p, state in zip(params, states, strict=True):
                assert p.grad is not None
                update(p.view(-1), p.grad.view(-1), *state, *numbers)

    return step


def steps(params: list[Tensor], *, compiled: bool) -> dict[str, Callable[[], object]]:
    """A step function each, all on the same parameters and gradients."""
    made: dict[str, Callable[[], object]] = {
        "AdamW(foreach=True)": torch.optim.AdamW(params, foreach=True).step
    }
    for name in EQUATIONS:
        made[name] = PRESETS[name].at_rate(RATE).optimizer(params, TOTAL_STEPS).step
        made[f"{name}, whole tensors"] = whole(name, params, compiled=False)
        if compiled:
            made[f"{name}, compiled"] = whole(name, params, compiled=True)
    return made


def measure(model: nn.Module, inputs: Tensor, rounds: int, *, compiled: bool) -> dict[str, list[float]]:
    """Every step's times in ms, without the first rounds, which make state and compile."""
    order = random.Random(0)
    targets = torch.arange(len(inputs)) % 10
    made = steps(list(model.parameters()), compiled=compiled)
    start = [p.detach().clone() for p in model.parameters()]
    times: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(rounds + 3):
        for name in order.sample(list(made), len(made)):
            with torch.no_grad():  # so that no rule leads the others astray
                torch._foreach_copy_(list(model.parameters()), start)
            model.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            begun = time.thread_time()
            made[name]()
            times[name].append(1e3 * (time.thread_time() - begun))
    return {name: values[3:] for name, values in times.items()}


def main() -> None:
    """Measure and print."""
    options = parser(__doc__).parse_args()
    rounds = 2 if options.quick else 100
    torch.set_num_threads(1)
    _keep_freed_memory()
    print_header(
        f"one thread, {rounds} interleaved rounds, median [5 %, 95 %]; ratios of medians and of minima"
    )
    generator = torch.Generator().manual_seed(0)
    digits = get_task("digits").model(generator)
    for model, shape in ((small_cnn(generator), (16, 1, 28, 28)), (digits, (16, 1, 8, 8))):
        inputs = torch.rand(shape, generator=generator)
        times = measure(model, inputs, rounds, compiled=not options.quick and model is not digits)
        count = sum(p.numel() for p in model.parameters())
        rows = table(f"{count:,} parameters", "step", "ms", "of AdamW foreach", "the same of minima")
        adamw = times["AdamW(foreach=True)"]
        for name, values in times.items():
            ratios = (statistics.median(values) / statistics.median(adamw), min(values) / min(adamw))
            rows.add_row(name, middle(values), *(f"{ratio:.2f}" for ratio in ratios))
        console.print(rows)


if __name__ == "__main__":
    main()
