"""Known optimizers as genomes; where a name is shared but the definition is not, docs/names.md says so."""

from __future__ import annotations

from optevo.naming import Registry
from optevo.optim.terms.genome import TermGenome

PRESETS: Registry[TermGenome] = Registry("preset")
PRESETS |= {
    # An average, not torch's sum: at the same lr its steady step is a tenth of SGD(momentum=0.9).
    "sgd": TermGenome(terms=("MOMENTUM",), alphas=(1.0,), lr=1e-2, beta1=0.9, use_second_moment=False),
    "adam": TermGenome(terms=("ADAM_TERM",), alphas=(1.0,), lr=1e-3, bias_correction=True),
    "adamw": TermGenome(
        terms=("ADAM_TERM",), alphas=(1.0,), lr=1e-3, bias_correction=True, weight_decay=1e-2
    ),
    "rmsprop": TermGenome(terms=("RMS_NORM",), alphas=(1.0,), lr=1e-3, beta2=0.99, use_momentum=False),
    "signsgd": TermGenome(
        terms=("SIGN_GRAD",), alphas=(1.0,), lr=1e-3, use_momentum=False, use_second_moment=False
    ),
    # The winner of "Evolving Deep Learning Optimizers".
    "evolved": TermGenome(
        terms=("SIGN_GRAD", "SIGN_GRAD", "ADAM_TERM", "ADAM_TERM"),
        alphas=(0.41205802174892475, 0.32238621456272765, 2.0030004279455267, 1.6322011630060542),
        lr=10**-2.9198932483267144,
        beta1=0.8553020861538518,
        beta2=0.9357561078635277,
        eps=10**-8.26423960220415,
        weight_decay=10**-3.0112238437153316,
        warmup=True,
        warmup_steps=100,
        cosine_decay=True,
    ),
}
