"""Time of a training step, whole loop, as a share of what the device's matrix products reach.

    python -m analysis.benchmarks.loop [--quick] [--device cuda]

The loop is `optevo.training.single.train` itself: batch, augmentation, forward, loss, backward, update
and records. After each of its steps come one square matrix product in the same precision, and
one forward and backward pass of another copy of the network on a batch that is ready: the three see the same
machine. The share is floating-point operations a second of the loop over those of the product.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from analysis.benchmarks.common import console, middle, now, parser, print_header, table
from optevo.errors import UserError
from optevo.optim.terms.presets import PRESETS
from optevo.tasks import Split, Task, get_task
from optevo.tasks.roots import data_root
from optevo.training.precision import PRECISIONS, autocast
from optevo.training.single import train

TASKS = {"fashion_mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
BATCH, WARMUP = 128, 10
SIZE = {"cpu": 1024, "cuda": 8192}  # of a product large enough for the device's peak


def load(task: Task) -> tuple[dict[str, Split], str]:
    """The task's data and "real", or, where there is none, as many random images and "random"."""
    try:
        return task.load(data_root()), "real"
    except UserError:
        draw = torch.Generator().manual_seed(0)
        shape, kinds = TASKS[task.name], {"train": 15_000, "validation": 5_000}
        return {
            kind: Split(
                torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=draw),
                torch.randint(0, 10, (count,), generator=draw),
            )
            for kind, count in kinds.items()
        }, "random"


def bare(task: Task, splits: dict[str, Split], precision: str) -> tuple[Callable[[], None], int]:
    """A forward and backward pass on a batch that is ready, and its floating-point operations."""
    device = splits["train"].device
    model = task.model(torch.Generator().manual_seed(0)).to(device, memory_format=torch.channels_last)
    batch = next(task.batches(splits["train"], BATCH, torch.Generator(device).manual_seed(0)))

    def step() -> None:
        with autocast(device, precision):
            loss = task.loss(model, batch)
        loss.backward()
        model.zero_grad()

    with FlopCounterMode(display=False) as counter:
        step()
    return step, counter.get_total_flops()


def measure(task: Task, splits: dict[str, Split], precision: str, steps: int) -> tuple[str, ...]:
    """One row of the table."""
    step, flops = bare(task, splits, precision)
    device, size = splits["train"].device, SIZE[splits["train"].device.type]
    a = torch.rand(size, size, generator=torch.Generator().manual_seed(0)).to(
        device, getattr(torch, precision)
    )
    others = {"product": lambda: a @ a, "bare": step}
    times: dict[str, list[float]] = {"loop": [], **{name: [] for name in others}}
    resumed = None

    def check() -> None:  # called between steps: what is done in here is no part of the loop's time
        nonlocal resumed
        if resumed is not None:
            times["loop"].append(now(device) - resumed)
        for name, run in others.items():
            start = now(device)
            run()
            times[name].append(now(device) - start)
        resumed = now(device)

    train(
        task, splits, PRESETS["evolved"], seed=0, steps=steps + WARMUP, batch_size=BATCH,
        precision=precision, check=check,
    )  # fmt: skip
    times = {name: values[WARMUP:] for name, values in times.items()}
    peak = 2 * size**3 / statistics.median(times["product"])
    loop, alone = (statistics.median(times[name]) for name in ("loop", "bare"))
    return (
        f"{task.name} {precision}",
        f"{flops / 1e9:.2f}",
        f"{peak / 1e9:.0f}",
        middle([1e3 * t for t in times["loop"]], 1),
        f"{flops / loop / peak:.0%}",
        f"{BATCH / loop:,.0f}",
        middle([1e3 * t for t in times["bare"]], 1),
        f"{flops / alone / peak:.0%}",
    )


def main() -> None:
    """Measure and print."""
    options = parser(__doc__, device=True).parse_args()
    steps = 3 if options.quick else 60
    torch.set_num_threads(1)
    tasks = [(task, *load(task)) for task in map(get_task, TASKS)]
    kinds = ", ".join(f"{task.name}: {kind} images" for task, _, kind in tasks)
    print_header(f"one thread, batch {BATCH}, {steps} interleaved steps, median [5 %, 95 %]; peak in GFLOP/s")
    rows = table(
        f"a training step; {kinds}", "task", "GFLOP", "peak",
        "loop ms", "of peak", "images/s", "fwd+bwd ms", "of peak",
    )  # fmt: skip
    for task, loaded, _ in tasks:
        splits = {name: split.to(options.device) for name, split in loaded.items()}
        for precision in PRECISIONS:
            rows.add_row(*measure(task, splits, precision, steps))
    console.print(rows)


if __name__ == "__main__":
    main()
