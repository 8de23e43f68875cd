"""Time of one step of `ModernOptimizer` on the CIFAR-10 CNN, beside the optimizers that do the same.

    python -m analysis.benchmarks.modern [--quick]

The thread's own time, one thread, interleaved in an order shuffled each round, after a forward and backward
pass. ORTHO is compared with `torch.optim.Muon` on the same matrices, convolutions flattened: as it is, with
products in bfloat16, and with the same products in float32. Ratios are medians of the rounds' ratios.
"""

from __future__ import annotations

import dataclasses
import random
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Muon, _muon

from analysis.benchmarks.common import console, middle, parser, print_header, table
from optevo.optim.orthogonal import MUON
from optevo.optim.terms.modern import ModernGenome
from optevo.optim.terms.modern_expression import as_modern
from optevo.optim.terms.presets import PRESETS
from optevo.tasks.models import cifar_cnn

BATCH = 16
_IN_BFLOAT16 = _muon._zeropower_via_newtonschulz


def _in_float32(grad: Tensor, *_: object) -> Tensor:
    """`torch.optim.Muon`'s function without its rounding to bfloat16."""
    x = grad.T if grad.size(0) > grad.size(1) else grad
    x = x / x.norm().clamp(min=1e-7)
    for a, b, c in MUON:
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if grad.size(0) > grad.size(1) else x


class Muon32(Muon):
    """`torch.optim.Muon` in float32."""

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step, with its function replaced."""
        _muon._zeropower_via_newtonschulz = _in_float32
        try:
            return super().step(closure)
        finally:
            _muon._zeropower_via_newtonschulz = _IN_BFLOAT16


def ortho(*, cautious: bool = False) -> ModernGenome:
    """Orthogonalised momentum as `torch.optim.Muon` has it by default."""
    return ModernGenome(
        terms=("ORTHO",), alphas=(1.0,), lr=1e-3, beta1=0.95, weight_decay=0.1, cautious=cautious
    )


def muon(make: type[Muon], params: Sequence[nn.Parameter]) -> Callable[[], None]:
    """The step of torch's class on these parameters, convolutions as matrices, views of the same numbers."""
    flat = [nn.Parameter(p.detach().flatten(1)) for p in params]
    optimizer = make(flat, adjust_lr_fn="match_rms_adamw")

    def step() -> None:
        for matrix, p in zip(flat, params, strict=True):
            matrix.grad = p.grad.flatten(1) if p.grad is not None else None
        optimizer.step()

    return step


def measure(model: nn.Module, steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Every step's times in ms; the first, which makes state and compiles, is left out."""
    rng, order = torch.Generator().manual_seed(0), random.Random(0)
    inputs, targets = (
        torch.rand((BATCH, 3, 32, 32), generator=rng),
        torch.randint(10, (BATCH,), generator=rng),
    )
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name in order.sample(list(steps), len(steps)):
            model.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            start = time.thread_time()
            steps[name]()
            times[name].append(1e3 * (time.thread_time() - start))
    return {name: values[1:] for name, values in times.items()}


def report(title: str, times: dict[str, list[float]]) -> None:
    """A table, with the ratio to the first of them."""
    first = next(iter(times))
    rows = table(title, "step", "ms", f"of {first}")
    for name, values in times.items():
        ratio = statistics.median(a / b for a, b in zip(values, times[first], strict=True))
        rows.add_row(name, middle(values), f"{ratio:.2f}")
    console.print(rows)


def main() -> None:
    """Measure and print."""
    rounds = 2 if parser(__doc__).parse_args().quick else 20
    torch.set_num_threads(1)
    print_header(f"one thread's own time, {rounds} interleaved rounds, median [5 %, 95 %]")
    model = cifar_cnn(torch.Generator().manual_seed(0))
    params = list(model.parameters())
    for name, least in (("all matrices", 2), ("convolutions", 3)):
        chosen = [p for p in params if p.ndim >= least]
        steps = {
            "torch.optim.Muon": muon(Muon, chosen),
            "the same in float32": muon(Muon32, chosen),
            "ORTHO": ortho().optimizer(chosen).step,
            "ORTHO, cautious": ortho(cautious=True).optimizer(chosen).step,
        }
        report(f"CIFAR-10 CNN, {name}", measure(model, steps, rounds))
    evolved = dataclasses.replace(PRESETS["evolved"], warmup=False)
    for name, compiled in (("foreach", False), ("compiled", True)):
        steps = {
            "evolved, published": evolved.optimizer(params, compiled=compiled).step,
            "evolved, modern": as_modern(evolved, 1_000).optimizer(params, compiled=compiled).step,
        }
        report(f"CIFAR-10 CNN, all parameters, {name}", measure(model, steps, rounds))


if __name__ == "__main__":
    main()
