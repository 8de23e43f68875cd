"""Variants of a winner of the modern catalogue: what remains of it without each of its parts. Pure Python."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from optevo.optim.candidate import WINNER, Candidate, Variants
from optevo.optim.terms.modern import BOUNDS, FLAGS, ModernGenome, SecondRule
from optevo.optim.terms.variants import ACCOUNT, HYPER, SCALED, WITHOUT
from optevo.optim.variants import SCHEDULED, TUNED, Rescheduled, distinct

_SMALL = ("grad", "momentum", "slow")  # entries as large as the gradient, or that begin at 0
_OFF: dict[str, dict[str, Any]] = {  # what is taken away, by its name
    **{words: {flag: False} for flag, words in WITHOUT.items() if flag in FLAGS},
    "without caution": {"cautious": False},
    "without the rate of vectors": {"vector_rate": 1.0},
    "without the rate of the head": {"head_rate": 1.0},
    "without warmup": {"warmup": 0.0},
    "without hold": {"hold": 0.0},
    "without decay of the rate": {"decay": "none"},
    "with a decay to 0": {"final": 0.0},
    "without schedule": {"warmup": 0.0, "hold": 0.0, "decay": "none"},
    "without weight decay": {"weight_decay": 0.0},
}


def variants(winner: ModernGenome, adamw: Candidate | None = None) -> Variants:
    """The winner, and what remains of it without each of its parts; by name, no two the same optimizer.

    AdamW's rule with the winner's hyperparameters has its first rule's β₁ and rate, and one rate for all
    kinds of parameters. "lr × its weights" is as in the published catalogue, but that of weights on terms of
    order 1 alone, where there are such.

    Args:
        winner: The genome.
        adamw: AdamW as a sweep tuned it. Default: None, without the variants that need it.
    """
    made: dict[str, Candidate] = {WINNER: winner}
    if winner.second is not None:
        made |= _without_the_second(winner, winner.second)
    for term in dict.fromkeys((*winner.terms, *(winner.second.terms if winner.second else ()))):
        if (left := _without(winner, term)) is not None:
            made[f"without {term}"] = left
    made |= {words: dataclasses.replace(winner, **genes) for words, genes in _OFF.items()}
    rule = winner.rule()
    genes: dict[str, Any] = {
        "beta1": 0.9 if rule.beta1 is None else rule.beta1,
        "beta2": 0.999 if rule.beta2 is None else rule.beta2,
        **dict.fromkeys(("use_momentum", "use_second_moment", "bias_correction"), True),
        **dict.fromkeys(("gradient_clipping", "cautious"), False),
        **dict.fromkeys(("vector_rate", "head_rate"), 1.0),
        "second": None,
    }
    plain_adamw = dataclasses.replace(winner, terms=("ADAM_TERM",), alphas=(1.0,), **genes)
    sizes = {name: abs(value) for name, value in rule.coefficients.items()}
    sizes = {name: size for name, size in sizes.items() if name not in _SMALL} or sizes
    n = len(winner.alphas)  # terms of one weight each, since one weight is bounded
    weight = math.fsum(sizes.values()) / n
    made[SCALED] = dataclasses.replace(plain_adamw, terms=("ADAM_TERM",) * n, alphas=(weight,) * n)
    made[HYPER] = plain_adamw
    if adamw is not None:
        made[TUNED] = adamw  # with the schedule that it was tuned under
        made[SCHEDULED] = Rescheduled(adamw, winner)
    # Some of AdamW's stay although they may be the winner itself: the account of its gain needs them.
    return Variants(distinct(made, (SCALED, HYPER, TUNED, SCHEDULED)), () if adamw is None else ACCOUNT)


def _without_the_second(winner: ModernGenome, second: SecondRule) -> dict[str, Candidate]:
    """One rule everywhere, the first or the second; both at one rate; the second for fewer kinds."""

    def with_second(**genes: Any) -> ModernGenome:
        return dataclasses.replace(winner, second=dataclasses.replace(second, **genes))

    lr = min(max(winner.lr * second.rate, BOUNDS["lr"][0]), BOUNDS["lr"][1])
    made: dict[str, Candidate] = {
        "the first rule everywhere": dataclasses.replace(winner, second=None),
        "the second rule everywhere": dataclasses.replace(
            winner, terms=second.terms, alphas=second.alphas, beta1=second.beta1, lr=lr, second=None
        ),
        "without the second rule's rate": with_second(rate=1.0),
        "without the second rule's β₁": with_second(beta1=winner.beta1),
    }
    for kind in second.kinds if len(second.kinds) > 1 else ():
        kinds = tuple(other for other in second.kinds if other != kind)
        made[f"the first rule for the kind {kind}"] = with_second(kinds=kinds)
    return made


def _without(winner: ModernGenome, term: str) -> ModernGenome | None:
    """The winner without a term in either rule; None where its first rule has no other."""

    def left(genes: Any) -> dict[str, Any] | None:
        kept = [(t, a) for t, a in zip(genes.terms, genes.alphas, strict=True) if t != term]
        return {"terms": tuple(t for t, _ in kept), "alphas": tuple(a for _, a in kept)} if kept else None

    first, second = left(winner), winner.second
    if first is None:
        return None
    if second is not None:
        genes = left(second)
        second = None if genes is None else dataclasses.replace(second, **genes)
    return dataclasses.replace(winner, **first, second=second)
