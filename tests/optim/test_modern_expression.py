"""Other candidates as genomes of the modern catalogue: the same steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from optevo.optim import muon
from optevo.optim.baselines.registry import SCHEDULES, TunedBaseline
from optevo.optim.candidate import Candidate
from optevo.optim.graphs.presets import PRESETS as GRAPHS
from optevo.optim.learned import LEARNED
from optevo.optim.terms import modern_optimizer
from optevo.optim.terms.genome import TermGenome
from optevo.optim.terms.modern_expression import as_modern
from optevo.optim.terms.modern_presets import MODERN_PRESETS
from optevo.spaces import ModernSpace

SHAPES = ((4, 3, 2, 2), (4,), (6, 5), (6,), (3, 6), (3,))
STEPS = 8
SPACE = ModernSpace()


def path(candidate: Candidate, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Weights after a run on gradients that hang on the weights."""
    torch_rng = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(s, generator=torch_rng, dtype=dtype)) for s in SHAPES]
    targets = [torch.randn(s, generator=torch_rng, dtype=dtype) for s in SHAPES]
    optimizer, scheduler = candidate.build(params, STEPS)
    for _ in range(STEPS):
        for p, target in zip(params, targets, strict=True):
            p.grad = (p.detach() - target) * 0.1
        optimizer.step()
        scheduler.step()
    return [p.detach() for p in params]


@pytest.mark.parametrize("schedule", [name for name in SCHEDULES if name not in ("warmup_cosine", *LEARNED)])
@pytest.mark.parametrize(
    ("name", "weight_decay", "options"),
    [
        ("adamw", 0.1, {"betas": [0.8, 0.99], "eps": 1e-6}),
        ("adam", 0.0, {}),
        ("cautious_adamw", 0.1, {"betas": [0.8, 0.99]}),
        ("ortho_conv", 0.1, {"momentum": 0.9}),
        ("cautious_ortho_conv", 0.1, {}),
        ("lion", 0.5, {}),
        ("rmsprop", 0.0, {"alpha": 0.9}),
        ("sgd", 0.0, {}),
        ("sgd", 0.0, {"nesterov": False, "momentum": 0.0}),
        ("momentum", 0.0, {}),
        ("nesterov", 0.0, {"momentum": 0.8}),
    ],
)
def test_a_baseline_and_its_genome_make_the_same_steps(
    name: str, weight_decay: float, options: dict[str, Any], schedule: str
):
    tuned = TunedBaseline(name, 3e-2, weight_decay, schedule, options)
    genome = SPACE.candidate(SPACE.express(tuned, STEPS))
    assert genome == as_modern(tuned, STEPS)
    for ours, theirs in zip(path(genome), path(tuned), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["muon", "muon_conv"])
def test_muon_and_its_genome_make_the_same_steps_with_the_same_orthogonal_factor(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    tuned = TunedBaseline(name, 3e-2, 0.1, options={"momentum": 0.9, "betas": [0.8, 0.99]})
    genome = SPACE.candidate(SPACE.express(tuned, STEPS))
    near = path(genome)  # with the catalogue's own coefficients
    monkeypatch.setattr(modern_optimizer, "orthogonalise", lambda ms: [muon._orthogonal(m) for m in ms])
    for ours, theirs, close in zip(path(genome), path(tuned), near, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)
        assert (close - theirs).square().mean().sqrt() < 0.2 * (0.2 * STEPS * 3e-2)  # of the way gone


def test_a_cosine_after_a_warmup_begins_later():
    tuned = TunedBaseline("adamw", 1e-3, 0.1, "warmup_cosine")
    genome = as_modern(tuned, 1_000)
    ours, theirs = genome.schedule(1_000), tuned.schedule(1_000)
    assert (genome.warmup, genome.decay) == (0.1, "cosine")
    assert all(0 <= ours(t) - theirs(t) < 0.1 for t in range(1_001))


def test_a_warmup_in_steps_becomes_a_share():
    genome = TermGenome(terms=("GRAD",), alphas=(1.0,), lr=1e-2, warmup=True, warmup_steps=30)
    ours, theirs = as_modern(genome, 1_000).schedule(1_000), genome.schedule(1_000)
    assert [ours(t) for t in range(1_001)] == [theirs(t) for t in range(1_001)]


def test_what_is_of_the_catalogue_stays():
    for name, genome in MODERN_PRESETS.items():
        assert as_modern(genome, 10) is genome, name


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (TunedBaseline("adam", 1e-3, 1e-3), "adam adds its weight decay to the gradient"),
        (TunedBaseline("radam", 1e-3, 0.1), "radam is no sum of the terms"),
        (TunedBaseline("rmsprop", 1e-3, 0.0, options={"momentum": 0.9}), "averages after it divides"),
        (TunedBaseline("muon", 1e-3, 0.1, options={"nesterov": False}), "another orthogonal factor"),
        (TunedBaseline("adamw", 1e-3, 0.1, "lr3"), "the schedule lr3 is none of warmup, hold and decay"),
        (TunedBaseline("nesterov", 0.3, 0.0), "at the rate 0.3 takes weights beyond 4 terms of 5"),
        (TunedBaseline("sgd", 0.1, 0.0, options={"momentum": 1.0}), "takes weights beyond 4 terms"),
        (TunedBaseline("adamw", 0.3, 0.1), "the rate 0.3 is outside 1e-05 to 0.1"),
        (TunedBaseline("adamw", 1e-3, 3.0), "Invalid weight_decay: 3.0"),
        (
            TermGenome(terms=("GRAD",), alphas=(1.0,), lr=1e-2, warmup=True, warmup_steps=30),
            "warms up over 30 steps of 20",
        ),
        (GRAPHS["opt1"], "a GraphGenome is no sum of the terms"),
    ],
)
def test_what_is_no_genome_is_told_with_the_reason(candidate: Candidate, said: str):
    with pytest.raises(ValueError, match=said):
        as_modern(candidate, 20)


def test_a_rate_beyond_the_bound_goes_into_the_weights_where_nothing_decays():
    genome = as_modern(TunedBaseline("momentum", 0.2, 0.0), STEPS)
    assert (genome.lr, genome.terms, genome.alphas) == (0.1, ("MOMENTUM",) * 4, pytest.approx((5.0,) * 4))
