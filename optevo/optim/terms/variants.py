"""Variants of a winner: what remains of it without each of its parts. Pure Python."""

from __future__ import annotations

import dataclasses
import math

from optevo.optim.candidate import WINNER, Candidate, Variants
from optevo.optim.terms.genome import TermGenome
from optevo.optim.variants import SCHEDULED, TUNED, Rescheduled, distinct

SCALED = "AdamW's rule, the winner's hyperparameters, lr × its weights"
HYPER = "AdamW's rule, the winner's hyperparameters"
WITHOUT = {  # gene, as it is called when it is off
    "use_momentum": "without momentum",
    "use_second_moment": "without second moment",
    "bias_correction": "without bias correction",
    "gradient_clipping": "without gradient clipping",
    "warmup": "without warmup",
    "cosine_decay": "without cosine decay",
}
#: How the gain over a tuned AdamW is taken apart: one thing changed at a time. Another order would split it
#: otherwise.
ACCOUNT = (
    ("the winner − tuned AdamW", WINNER, TUNED),
    ("of it the schedule", SCHEDULED, TUNED),
    ("of it the hyperparameters", SCALED, SCHEDULED),
    ("of it the rule", WINNER, SCALED),
)


def variants(winner: TermGenome, adamw: Candidate | None = None) -> Variants:
    """The winner, and what remains of it without each of its parts; by name, no two the same optimizer.

    Args:
        winner: The genome.
        adamw: AdamW as a sweep tuned it. Default: None, without the variants that need it.
    """
    made: dict[str, Candidate] = {WINNER: winner}
    kinds = list(dict.fromkeys(winner.terms))
    for kind in kinds if len(kinds) > 1 else []:
        kept = [(t, a) for t, a in zip(winner.terms, winner.alphas, strict=True) if t != kind]
        terms, alphas = zip(*kept, strict=True)
        made[f"without {kind}"] = dataclasses.replace(winner, terms=terms, alphas=alphas)
    for flag, words in WITHOUT.items():
        if getattr(winner, flag):
            made[words] = TermGenome.from_dict({**winner.to_dict(), flag: False})
    if winner.warmup and winner.cosine_decay:
        made["without schedule"] = dataclasses.replace(winner, warmup=False, cosine_decay=False)
    made["without weight decay"] = dataclasses.replace(winner, weight_decay=0.0)
    rule = winner.rule()
    plain_adamw = dataclasses.replace(
        winner,
        terms=("ADAM_TERM",),
        alphas=(1.0,),
        beta1=0.9 if rule.beta1 is None else rule.beta1,
        beta2=0.999 if rule.beta2 is None else rule.beta2,
        use_momentum=True,
        use_second_moment=True,
        bias_correction=True,
        gradient_clipping=False,
    )
    # What the winner's terms come to, which may cancel; in as many terms as it has: one weight is bounded.
    n = len(winner.alphas)
    weight = math.fsum(map(abs, rule.coefficients)) / n
    made[SCALED] = dataclasses.replace(plain_adamw, terms=("ADAM_TERM",) * n, alphas=(weight,) * n)
    made[HYPER] = plain_adamw
    if adamw is not None:
        made[TUNED] = adamw  # with the schedule that it was tuned under
        made[SCHEDULED] = Rescheduled(adamw, winner)
    # Some of AdamW's stay although they may be the winner itself: the account of its gain needs them.
    return Variants(distinct(made, (SCALED, HYPER, TUNED, SCHEDULED)), () if adamw is None else ACCOUNT)
