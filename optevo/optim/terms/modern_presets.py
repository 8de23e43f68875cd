"""Known optimizers, and hybrids of them made by hand, as genomes of the modern catalogue."""

from __future__ import annotations

import dataclasses
from typing import Any

from optevo.naming import Registry
from optevo.optim.terms.modern import ModernGenome, SecondRule
from optevo.optim.terms.modern_expression import as_modern
from optevo.optim.terms.presets import PRESETS


def _adamw(
    lr: float, weight_decay: float, ortho: tuple[str, ...] = (), rate: float = 1.0, **genes: Any
) -> ModernGenome:
    """AdamW, but for kinds of parameters with orthogonalised momentum, whose rate is relative to lr."""
    second = None
    if ortho:
        second = SecondRule(kinds=ortho, terms=("ORTHO",), alphas=(1.0,), rate=rate, beta1=0.95)
    numbers = {"lr": lr, "weight_decay": weight_decay, "second": second}
    return ModernGenome(**{"terms": ("ADAM_TERM",), "alphas": (1.0,), **numbers, **genes})


_STEPS = 1_000  # of the published winner's runs
MODERN_PRESETS: Registry[ModernGenome] = Registry("preset")
MODERN_PRESETS |= {
    # The warmup of evolved was 100 of those, under a cosine from the first step on.
    **{name: as_modern(genome, _STEPS) for name, genome in PRESETS.items()},
    "lion": ModernGenome(terms=("LION",), alphas=(1.0,), lr=3e-4, beta1=0.99, weight_decay=0.1),
    # Without its schedules of α and of the slow moment's decay.
    "ademamix": _adamw(1e-3, 1e-2, terms=("ADAM_TERM", "SLOW"), alphas=(1.0, 5.0)),
    "muon": _adamw(1e-3, 0.1, ("hidden", "head")),
    "muon_conv": _adamw(1e-3, 0.1, ("convolution", "hidden")),
    "ortho_conv": _adamw(5e-3, 1e-2, ("convolution",), warmup=0.1, decay="cosine"),
    "cautious_ortho_conv": _adamw(5e-3, 1e-2, ("convolution",), cautious=True, warmup=0.1, decay="linear"),
    # As ortho_conv, with a lower rate for all but convolutions.
    "ortho_conv_rates": _adamw(1.5e-3, 0.1, ("convolution",), 5.0, warmup=0.1, decay="linear"),
    # The winner of studies/modern/rates.toml, trial 50 of studies/results/modern/modern_rates.json.gz.
    "evolved_modern": ModernGenome(
        terms=("ADAM_TERM",),
        alphas=(2.0,),
        lr=0.0011145307417805464,
        beta1=0.6845490303541117,
        beta2=0.9818822891239828,
        eps=7.030585266222369e-08,
        weight_decay=0.007191227509150623,
        warmup=0.10619911381037214,
        hold=0.07864909898377845,
        decay="cosine",
        final=0.168627467042066,
        second=SecondRule(
            kinds=("convolution",),
            terms=("ORTHO",),
            alphas=(0.9925321818002699,),
            rate=6.596428463044932,
            beta1=0.9006779445098673,
        ),
    ),
}
# The same rule as its sweep chose it, under a line down to 0: studies/modern/evolved_modern.toml.
MODERN_PRESETS["evolved_modern_linear"] = dataclasses.replace(
    MODERN_PRESETS["evolved_modern"],
    lr=1.2e-3,
    weight_decay=1e-2,
    warmup=0.1,
    hold=0.0,
    decay="linear",
    final=0.0,
)
