"""Genomes of the modern catalogue that between them have every kind of state, of number and of update."""

from __future__ import annotations

import functools
from typing import Any

from contract import Subject, exported

from optevo.optim.terms.modern import ModernGenome, SecondRule
from optevo.optim.terms.modern_optimizer import ModernOptimizer


def modern(*terms: str, **genes: Any) -> ModernGenome:
    """A genome of the named terms, each with alpha 1 unless `alphas` says otherwise."""
    return ModernGenome(**{"terms": terms, "alphas": (1.0,) * len(terms), "lr": 1e-2, **genes})


LION = SecondRule(kinds=("head", "vector"), terms=("LION",), alphas=(1.0,), rate=0.5, beta1=0.95)
MODERN: dict[str, ModernGenome] = {
    "fused": modern("ADAM_TERM", "SIGN_GRAD", vector_rate=0.5, head_rate=2.0, weight_decay=0.01),
    "ortho": modern("ORTHO", beta1=0.95, warmup=0.1, decay="linear"),
    "all": modern(
        *("ORTHO", "SLOW"),
        **{"second": LION, "cautious": True, "gradient_clipping": True, "clip_value": 0.5},
        **{"beta_slow": 0.99, "weight_decay": 0.1, "hold": 0.5, "decay": "sqrt", "final": 0.1},
    ),
}
MODERN_LIBRARYS = {
    name: Subject(functools.partial(ModernOptimizer, genome=g, compiled=False), g.lr, optional=True)
    for name, g in MODERN.items()
    if name != "ortho"  # "all" has it too
}


def exported_moderns(*names: str) -> dict[str, Subject]:
    """Exported files of these genomes, each as a subject."""
    return {name: exported(f"modern_{name}", MODERN[name]) for name in names}
