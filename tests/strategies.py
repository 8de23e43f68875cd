"""Hypothesis strategies for term genomes, and the genomes and the oracle that several test files use.

Nothing here imports torch, so the tests of the algebra stay free of it.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from optevo.optim.terms.genome import TermGenome

TERMS = ("GRAD", "MOMENTUM", "RMS_NORM", "ADAM_TERM", "SIGN_GRAD", "UNIT_GRAD", "NESTEROV")

ORACLE = json.loads((Path(__file__).parent / "data" / "term_genome_trajectories.json").read_text("utf-8"))
GENES = (
    "terms",
    "alphas",
    "lr",
    "beta1",
    "beta2",
    "eps",
    "weight_decay",
    "use_momentum",
    "use_second_moment",
    "bias_correction",
    "gradient_clipping",
    "clip_value",
    "warmup",
    "warmup_steps",
    "cosine_decay",
)


def genome(*terms: str, **genes: Any) -> TermGenome:
    """A genome of the named terms, each with alpha 1 unless `alphas` says otherwise."""
    genes = {"alphas": (1.0,) * len(terms), "lr": 1e-2, **genes}
    return TermGenome(terms=terms, **genes)


def oracle_genome(case: dict[str, Any]) -> TermGenome:
    return TermGenome.from_dict({gene: case[gene] for gene in GENES})


def log_uniform(low: float, high: float) -> st.SearchStrategy[float]:
    # Just inside the domain: 10.0**x may round across its end. The ends have their own test.
    return st.floats(low + 1e-6, high - 1e-6).map(lambda x: 10.0**x)


@st.composite
def genomes(draw: st.DrawFn, **fixed: Any) -> TermGenome:
    """Any genome of the spec's domains; a gene named in `fixed` keeps that value."""
    terms = fixed.pop("terms", None) or tuple(draw(st.lists(st.sampled_from(TERMS), min_size=1, max_size=4)))
    alpha = st.one_of(st.floats(-5, 5, width=32), st.sampled_from([0.0, 1.0, -1.0]))
    genes: dict[str, st.SearchStrategy[Any]] = {
        "alphas": st.tuples(*[alpha] * len(terms)),
        "lr": log_uniform(-5, -1),
        "beta1": st.one_of(st.floats(0, 0.999), st.just(0.0)),
        "beta2": st.one_of(st.floats(0, 0.9999), st.just(0.0)),
        "eps": log_uniform(-10, -4),
        "weight_decay": log_uniform(-6, -2),
        "use_momentum": st.booleans(),
        "use_second_moment": st.booleans(),
        "bias_correction": st.booleans(),
        "gradient_clipping": st.booleans(),
        "clip_value": st.floats(0.05, 2.0),
        "warmup": st.booleans(),
        "warmup_steps": st.integers(1, 200),
        "cosine_decay": st.booleans(),
    }
    return TermGenome(
        terms=terms,
        **{name: fixed.get(name) if name in fixed else draw(s) for name, s in genes.items()},
    )


def random_genome(seed: int, **fixed: Any) -> TermGenome:
    """One genome from the spec's prior with every flag even, the same for a seed everywhere."""
    rng = random.Random(seed)
    terms = fixed.get("terms") or tuple(rng.choice(TERMS) for _ in range(rng.randint(1, 4)))
    genes = {
        "terms": terms,
        "alphas": tuple(rng.uniform(-1, 1) for _ in terms),
        "lr": 10 ** rng.uniform(-4, -2),
        "beta1": rng.uniform(0.5, 0.99),
        "beta2": rng.uniform(0.9, 0.9999),
        "eps": 10 ** rng.uniform(-9, -6),
        "weight_decay": 10 ** rng.uniform(-5, -3),
        "use_momentum": rng.random() < 0.5,
        "use_second_moment": rng.random() < 0.5,
        "bias_correction": rng.random() < 0.5,
        "gradient_clipping": rng.random() < 0.5,
        "clip_value": rng.uniform(0.5, 2.0),
        "warmup": rng.random() < 0.5,
        "warmup_steps": rng.randint(2, 9),
        "cosine_decay": rng.random() < 0.5,
    }
    return TermGenome(**{**genes, **fixed})
