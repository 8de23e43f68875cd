"""Baselines as term genomes make the same steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from baseline_studies import assert_same, stepped, weights

from optevo.optim.baselines.as_terms import term_genome
from optevo.optim.baselines.registry import TunedBaseline


@pytest.mark.parametrize("schedule", ["none", "warmup_cosine"])
@pytest.mark.parametrize("steps", [4, 20])
@pytest.mark.parametrize(
    ("name", "weight_decay", "options"),
    [
        ("adamw", 1e-2, {"betas": [0.8, 0.95]}),
        ("adam", 0.0, {"eps": 1e-6}),
        ("rmsprop", 0.0, {"alpha": 0.95}),
    ],
)
def test_a_baseline_as_a_genome_makes_the_same_steps(
    name: str, weight_decay: float, options: dict[str, Any], steps: int, schedule: str
):
    tuned = TunedBaseline(name, 3e-2, weight_decay, schedule, options)
    ours, theirs = weights(torch.float64), weights(torch.float64)
    genome = term_genome(tuned, steps)
    optimizer, scheduler = genome.build(ours, steps)
    other, others = tuned.build(theirs, steps)
    first = stepped(optimizer, ours, steps, scheduler.step)
    assert_same(first, stepped(other, theirs, steps, others.step), rtol=1e-10, atol=1e-12)
    assert [genome.schedule(steps)(t) for t in range(steps)] == [
        tuned.schedule(steps)(t) for t in range(steps)
    ]
