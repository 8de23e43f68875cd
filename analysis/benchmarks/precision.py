"""bfloat16 on a CPU: a forward and backward pass by torch's autocast and by ours, over float32's time.

    python -m analysis.benchmarks.precision [--quick]

Ours is torch's own where the CPU has bfloat16 instructions, and rounds around float32 products where not; to
compare anyway, both are measured on either kind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch

from analysis.benchmarks.common import console, middle, now, parser, print_header, table
from analysis.benchmarks.loop import BATCH, TASKS, load
from optevo.tasks import Split, Task, get_task
from optevo.training.precision import RoundedProducts, has_bfloat16

CPU = torch.device("cpu")


def passes(task: Task, splits: dict[str, Split]) -> dict[str, Callable[[], None]]:
    """A forward and backward pass on one batch, by kind."""
    model = task.model(torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    batch = next(task.batches(splits["train"], BATCH, torch.Generator().manual_seed(0)))

    def step(lower: bool, products: contextlib.AbstractContextManager[object]) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=lower), products:
            loss = task.loss(model, batch)
        loss.backward()
        model.zero_grad()

    return {
        "float32": lambda: step(False, contextlib.nullcontext()),
        "torch": lambda: step(True, contextlib.nullcontext()),
        "rounded": lambda: step(True, RoundedProducts()),
    }


def main() -> None:
    """Measure and print."""
    options = parser(__doc__).parse_args()
    rounds = 2 if options.quick else 8
    torch.set_num_threads(1)
    has = "has" if has_bfloat16() else "lacks"
    print_header(
        f"one thread, batch {BATCH}, {rounds} interleaved rounds, median [5 %, 95 %]; the CPU {has} bfloat16"
    )
    rows = table("bfloat16 over float32", "task", "float32 ms", "torch's autocast", "rounded products")
    for task in map(get_task, TASKS):
        kinds = passes(task, load(task)[0])
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(rounds + 1):
            for kind, step in kinds.items():
                start = now(CPU)
                step()
                times[kind].append(now(CPU) - start)
        times = {kind: values[1:] for kind, values in times.items()}
        ratios = (
            middle([a / b for a, b in zip(times[kind], times["float32"], strict=True)], 2)
            for kind in ("torch", "rounded")
        )
        rows.add_row(task.name, middle([1e3 * t for t in times["float32"]], 0), *ratios)
    console.print(rows)


if __name__ == "__main__":
    main()
