"""What the cases of torch's contract for optimizers share."""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from strategies import genome
from torch import Tensor, nn

from optevo.optim import GenomeOptimizer, TermGenome
from optevo.optim.baselines.registry import BASELINES, TunedBaseline
from optevo.optim.candidate import Candidate
from optevo.optim.terms.modern import ModernGenome
from optevo.optim.terms.presets import PRESETS

# Every kernel, with and without bias correction and clipping.
GENOMES: dict[str, TermGenome] = {
    **PRESETS,
    "clipped": genome("GRAD", "MOMENTUM", gradient_clipping=True, clip_value=0.1),
    "unit": genome("UNIT_GRAD", lr=1e-3),
    "nesterov": genome("NESTEROV"),
    "adam without v": genome("ADAM_TERM", use_second_moment=False, bias_correction=True, lr=1e-3, eps=1e-4),
    "rms corrected": genome("RMS_NORM", bias_correction=True, lr=1e-3),
}


every_genome = pytest.mark.parametrize("g", GENOMES.values(), ids=GENOMES)
adamw = PRESETS["adamw"]
Make = Callable[..., torch.optim.Optimizer]


def eager(params: Any, g: TermGenome = adamw, **kwargs: Any) -> GenomeOptimizer:
    return GenomeOptimizer(params, g, compiled=False, **kwargs)


@dataclass(frozen=True)
class Subject:
    """What the cases of a contract are tried on.

    Attributes:
        make: Takes parameters and, by name, hyperparameters.
        lr: Its default.
        maximize: Whether it can ascend.
        takes_sparse: Whether it has an update for sparse gradients.
        waits: Why its step reads from the device; empty where it doesn't.
        takes_empty: Whether a parameter may have no elements.
        optional: Whether None is its default.
        apart: Whether a parameter's update is the same whatever other parameters there are.
        module: Of an exported file.
    """

    make: Make
    lr: float
    maximize: bool = True
    takes_sparse: bool = False
    waits: str = ""
    takes_empty: bool = True
    optional: bool = False
    apart: bool = True
    module: ModuleType | None = None


class Contract:
    """Cases that hold for every optimizer; a class of tests names its `subjects`."""

    subjects: ClassVar[Mapping[str, Subject]] = {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "subject" in metafunc.fixturenames:
            metafunc.parametrize("subject", self.subjects.values(), ids=self.subjects)


def imported(name: str, candidate: Candidate) -> ModuleType:
    """The candidate's exported file as a module, found under its name so that its classes pickle."""
    if f"exported_{name}" in sys.modules:
        return sys.modules[f"exported_{name}"]
    module = ModuleType(f"exported_{name}")
    exec(compile(candidate.source("Evolved", {}), module.__name__, "exec"), module.__dict__)
    sys.modules[module.__name__] = module
    return module


def exported(name: str, candidate: TermGenome | ModernGenome | TunedBaseline, **facts: Any) -> Subject:
    module = imported(name, candidate)
    return Subject(module.Evolved, candidate.lr, module=module, **facts)


LIBRARYS = {
    name: Subject(functools.partial(GenomeOptimizer, genome=g, compiled=False), g.lr, optional=True)
    for name, g in GENOMES.items()
}


def exported_genomes(*names: str) -> dict[str, Subject]:
    """Exported files of genomes, each as a subject."""
    return {name: exported(name.replace(" ", "_"), GENOMES[name]) for name in names or GENOMES}


def exported_baselines() -> dict[str, Subject]:
    """Exported files of all baselines of which a class alone can be the optimizer.

    Of those that are `torch.optim.SGD`, one: the files differ in arguments alone. So of the hybrids.
    """
    facts: dict[str, dict[str, Any]] = {
        "sgd": {"takes_sparse": True},
        "nadam": {"waits": "torch.optim.NAdam makes its product on the CPU by torch.ones, no constant"},
        "adafactor": {
            "waits": "torch.optim.Adafactor scales by norms that it reads",
            "takes_empty": False,  # torch's divides by the number of elements
        },
        "muon": {"maximize": False},
        "muon_conv": {"maximize": False},
        "lion": {"maximize": False},  # pytorch_optimizer's turns the sign of the gradients themselves
    }
    return {
        name: exported(f"{name}_baseline", TunedBaseline(name, baseline.lr[2], 1e-2), **facts.get(name, {}))
        for name, baseline in BASELINES.items()
        if baseline.wants({}) is None and name not in ("momentum", "nesterov", "cautious_ortho_conv")
    }


def torchs(params: Any, g: TermGenome = adamw, **kwargs: Any) -> torch.optim.AdamW:
    """torch.optim.AdamW as the preset has it: the yardstick for what a contract means."""
    settings = {"lr": g.lr, "betas": (g.beta1, g.beta2), "eps": g.eps, "weight_decay": g.weight_decay}
    return torch.optim.AdamW(params, **{**settings, **kwargs})


def parameters(
    *shapes: tuple[int, ...], dtype: torch.dtype = torch.float64, device: Any = "cpu", seed: int = 0
) -> list[nn.Parameter]:
    rng = torch.Generator().manual_seed(seed)
    return [
        nn.Parameter(torch.randn(s, generator=rng, dtype=torch.float64).to(device, dtype))
        for s in shapes or ((3, 4), (4,), (2, 3, 2))
    ]


def feed(params: list[nn.Parameter], seed: int) -> None:
    """Gives every parameter the gradient of this seed."""
    rng = torch.Generator().manual_seed(1000 + seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=rng, dtype=torch.float64).to(p)


def run(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], steps: range | int) -> list[Tensor]:
    for k in range(steps) if isinstance(steps, int) else steps:
        feed(params, k)
        optimizer.step()
    return values(params)


def values(params: list[nn.Parameter]) -> list[Tensor]:
    return [p.detach().clone() for p in params]


def assert_equal(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def assert_close(ours: list[Tensor], theirs: list[Tensor], rtol: float = 1e-11, atol: float = 1e-13) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)
