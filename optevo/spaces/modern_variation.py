"""Genomes of the modern catalogue drawn, crossed and mutated. All randomness is the generator given.

Terms have two scales. An element of ADAM_TERM, RMS_NORM, SIGN_GRAD, UNIT_GRAD, LION or ORTHO is of order 1
whatever the loss; these *lead*. GRAD, MOMENTUM and NESTEROV are as large as the gradient, a thousandth, say,
and SLOW begins at 0. So a rule has a leading term, but for a few that descend along the gradient at rates a
hundred times as high, and variation never takes the last one away.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from optevo.optim.kinds import KINDS
from optevo.optim.schedules import DECAYS
from optevo.optim.terms.genome import ALPHA_BOUND, MAX_TERMS
from optevo.optim.terms.modern import BOUNDS, FLAGS, MAX_SECOND, RATE_BOUNDS, ModernGenome, SecondRule
from optevo.optim.terms.table import MODERN_TERMS

T = TypeVar("T")

LEADING = ("RMS_NORM", "ADAM_TERM", "SIGN_GRAD", "UNIT_GRAD", "LION", "ORTHO")
DESCENDING = ("GRAD", "MOMENTUM", "NESTEROV")
NO_DECAY = 1e-6  # the least weight decay of a log scale, which stands for 0
RANGES = {**BOUNDS, "weight_decay": (NO_DECAY, 1.0), "clip_value": (1e-3, 10.0), "warmup": (0.0, 0.5)}

# The prior. Ranges of log10, of 1 − β for betas.
SECOND_SHARE, CAUTIOUS_SHARE, DESCENDING_SHARE, NEGATIVE_SHARE = 0.5, 0.3, 0.05, 0.1
NUMBERS = {"lr": (-4, -1.5), "eps": (-9, -6), "clip_value": (-2, 0)}
WEIGHT_DECAYS, NO_DECAY_SHARE = (-4, -0.5), 0.15
BETAS = {"beta1": (-1.7, -0.5), "beta2": (-3, -1), "beta_slow": (-4, -2), "beta_lion": (-1.7, -0.5)}
PRIOR_FLAGS = {
    "use_momentum": 0.9,
    "use_second_moment": 0.95,  # without, ADAM_TERM is m/|g|
    "bias_correction": 0.8,
    "gradient_clipping": 0.1,
    "cautious": CAUTIOUS_SHARE,
}
SECOND_KINDS = {"convolution": 0.7, "hidden": 0.5, "head": 0.15, "vector": 0.25}
DECAY_SHARES = (0.1, 0.35, 0.35, 0.2)  # of `DECAYS`

# Variation, scaled by the decay of a search. Widths of log10, of 1 − β for betas.
NUMERIC_RATE, STRUCTURAL_RATE, FLAG_RATE = 0.3, 0.35, 0.08
LOG_SIGMA = {
    "lr": 0.3,
    "eps": 0.5,
    "weight_decay": 0.4,
    "clip_value": 0.3,
    "vector_rate": 0.25,
    "head_rate": 0.25,
}
BETA_SIGMA, SHARE_SIGMA, ALPHA_SIGMA = 0.3, 0.1, 0.3
SPLICE_SHARE, SCHEDULE_SHARE = 0.3, 0.8  # of crossovers that splice terms; that take a schedule as it is
ATTEMPTS = 100


def sample(rng: np.random.Generator) -> ModernGenome:
    """A random genome: a leading term and up to two others, half of the time a second rule.

    One in twenty descends along the gradient alone, at rates from 0.01 to 0.1.
    """
    genes: dict[str, Any] = {name: _power(rng, *prior) for name, prior in NUMBERS.items()}
    genes |= {name: 1 - _power(rng, *prior) for name, prior in BETAS.items()}
    genes |= {name: bool(rng.random() < share) for name, share in PRIOR_FLAGS.items()}
    genes["weight_decay"] = 0.0 if rng.random() < NO_DECAY_SHARE else _power(rng, *WEIGHT_DECAYS)
    for name in ("vector_rate", "head_rate"):
        genes[name] = _power(rng, -0.7, 0.7) if rng.random() < 0.5 else 1.0
    genes["warmup"] = float(rng.uniform(0, 0.2))
    genes["hold"] = float(rng.uniform(0, 0.6)) if rng.random() < 0.3 else 0.0
    genes["decay"] = DECAYS[rng.choice(len(DECAYS), p=DECAY_SHARES)]
    genes["final"] = float(rng.uniform(0, 0.2)) if rng.random() < 0.3 else 0.0
    n = int(rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2]))
    others = [pick(rng, MODERN_TERMS) for _ in range(n - 1)]
    if rng.random() < DESCENDING_SHARE:
        genes["lr"] = _power(rng, -2, -1)
        terms, alphas = _weighed_terms(rng, (pick(rng, DESCENDING),))
        return ModernGenome(terms=terms, alphas=alphas, **genes)
    terms, alphas = _weighed_terms(rng, (pick(rng, LEADING), *others))
    second = sample_second(rng) if rng.random() < SECOND_SHARE else None
    return ModernGenome(terms=terms, alphas=alphas, second=second, **genes)


def sample_second(rng: np.random.Generator) -> SecondRule:
    """A random second rule of a leading term, some of them with another."""
    kinds: tuple[str, ...] = ()
    while not 0 < len(kinds) < len(KINDS):
        kinds = tuple(kind for kind, share in SECOND_KINDS.items() if rng.random() < share)
    others = (pick(rng, MODERN_TERMS),) if rng.random() < 0.25 else ()
    terms, alphas = _weighed_terms(rng, (pick(rng, LEADING), *others))
    beta1 = 1 - _power(rng, *BETAS["beta1"])
    return SecondRule(kinds=kinds, terms=terms, alphas=alphas, rate=_power(rng, -0.7, 0.7), beta1=beta1)


def crossover(a: ModernGenome, b: ModernGenome, rng: np.random.Generator) -> ModernGenome:
    """A child that has blocks of either parent.

    Terms come with their weights, rate and β₁ from one of them, or, three in ten, head from one and tail from
    the other. The second rule is a block, and so is, four times of five, the schedule. Every other gene
    is from either with ½.
    """
    if rng.random() < 0.5:
        a, b = b, a
    terms, alphas = a.terms, a.alphas
    if rng.random() < SPLICE_SHARE:
        i, j = int(rng.integers(1, len(a.terms) + 1)), int(rng.integers(len(b.terms)))
        spliced = (a.terms[:i] + b.terms[j:])[:MAX_TERMS], (a.alphas[:i] + b.alphas[j:])[:MAX_TERMS]
        if leads(spliced[0]) == leads(a.terms):  # whose rate it has
            terms, alphas = spliced

    def either() -> ModernGenome:
        return a if rng.random() < 0.5 else b

    genes: dict[str, Any] = {name: getattr(either(), name) for name in _ALONE}
    scheduled = either()
    for name in _SCHEDULE:
        genes[name] = getattr(scheduled, name)
    if rng.random() >= SCHEDULE_SHARE:
        genes |= {name: getattr(either(), name) for name in _SCHEDULE}
        genes["hold"] = min(genes["hold"], 1 - genes["warmup"])
    second = either().second
    return ModernGenome(terms=terms, alphas=alphas, lr=a.lr, beta1=a.beta1, second=second, **genes)


def mutate(genome: ModernGenome, rng: np.random.Generator, decay: float) -> ModernGenome:
    """A mutant that is another optimizer.

    Args:
        genome: What to mutate.
        rng: All randomness.
        decay: In (0, 1]; scales every probability and width.
    """
    form = genome.canonical()
    for _ in range(ATTEMPTS):
        mutant = _mutant(genome, rng, decay)
        if mutant.canonical() != form:
            return mutant
    while mutant.canonical() == form:  # the decay is next to 0
        mutant = dataclasses.replace(genome, lr=_moved(rng, "lr", genome.lr, max(decay, 1e-3)))
    return mutant


def leads(terms: Sequence[str]) -> bool:
    """Whether one of the terms has steps of order 1."""
    return any(term in LEADING for term in terms)


def pick(rng: np.random.Generator, among: Sequence[T]) -> T:
    """One of them, each as likely."""
    return among[int(rng.integers(len(among)))]


_SCHEDULE = ("warmup", "hold", "decay", "final")
_BETAS = tuple(BETAS)
_SHARES = ("warmup", "hold", "final")
_ALONE = (*(name for name in (*LOG_SIGMA, *_BETAS) if name not in ("lr", "beta1")), *FLAGS)


def _mutant(genome: ModernGenome, rng: np.random.Generator, decay: float) -> ModernGenome:
    def chosen(rate: float) -> bool:
        return bool(rng.random() < rate * decay)

    genes: dict[str, Any] = {
        name: _moved(rng, name, getattr(genome, name), decay)
        for name in (*LOG_SIGMA, *_BETAS, *_SHARES)
        if chosen(NUMERIC_RATE)
    }
    genes |= {flag: not getattr(genome, flag) for flag in FLAGS if chosen(FLAG_RATE)}
    if chosen(FLAG_RATE):
        genes["decay"] = pick(rng, [name for name in DECAYS if name != genome.decay])
    genes["hold"] = min(genes.get("hold", genome.hold), 1 - genes.get("warmup", genome.warmup))
    genes["alphas"] = _weighed(genome.alphas, rng, decay)
    if (second := genome.second) is not None:
        changed: dict[str, Any] = {"alphas": _weighed(second.alphas, rng, decay)}
        if chosen(NUMERIC_RATE):
            changed["rate"] = _log_step(rng, second.rate, LOG_SIGMA["lr"] * decay, *RATE_BOUNDS)
        if chosen(NUMERIC_RATE):
            changed["beta1"] = _moved(rng, "beta1", second.beta1, decay)
        genes["second"] = dataclasses.replace(second, **changed)
    mutant = dataclasses.replace(genome, **genes)
    return restructure(mutant, rng) if chosen(STRUCTURAL_RATE) else mutant


def restructure(genome: ModernGenome, rng: np.random.Generator) -> ModernGenome:
    """One change of structure, of the first rule's terms or of the second rule."""
    moves: list[Callable[[ModernGenome, np.random.Generator], ModernGenome]] = [_first_edited] * 2
    moves += [_second_gained] if genome.second is None else _WITH_SECOND
    return pick(rng, moves)(genome, rng)


def edited(
    terms: tuple[str, ...], alphas: tuple[float, ...], most: int, rng: np.random.Generator
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Change a term's kind, add a random one or remove one, each that can be as likely.

    The last leading term stays, or becomes another that leads.
    """
    ways = ["change", *(["add"] if len(terms) < most else []), *(["remove"] if len(terms) > 1 else [])]
    while True:
        way, i = pick(rng, ways), int(rng.integers(len(terms)))
        added: tuple[str, ...] = () if way == "remove" else (pick(rng, MODERN_TERMS),)
        if way == "add":
            i = len(terms)
        found = terms[:i] + added + terms[i + 1 :]
        if found != terms and (leads(found) or not leads(terms)):
            keeps = way == "change" and _is_small(added[0]) == _is_small(terms[i])
            weight = (alphas[i],) if keeps else tuple(_alpha(rng, term) for term in added)
            return found, alphas[:i] + weight + alphas[i + 1 :]


def _first_edited(genome: ModernGenome, rng: np.random.Generator) -> ModernGenome:
    terms, alphas = edited(genome.terms, genome.alphas, MAX_TERMS, rng)
    lr = genome.lr
    if leads(terms) and not leads(genome.terms):  # whose rate is a hundred times as high
        lr = max(lr / 10, BOUNDS["lr"][0])
    return dataclasses.replace(genome, terms=terms, alphas=alphas, lr=lr)


def _second_gained(genome: ModernGenome, rng: np.random.Generator) -> ModernGenome:
    return dataclasses.replace(genome, second=sample_second(rng))


def _second_lost(genome: ModernGenome, rng: np.random.Generator) -> ModernGenome:
    return dataclasses.replace(genome, second=None)


def _kinds_changed(genome: ModernGenome, rng: np.random.Generator) -> ModernGenome:
    """One kind of parameter more or less for the second rule, which keeps some and not all."""
    second = _second_of(genome)
    kinds = set(second.kinds)
    while not 0 < len(kinds ^ (other := {pick(rng, KINDS)})) < len(KINDS):
        continue
    return dataclasses.replace(genome, second=dataclasses.replace(second, kinds=tuple(kinds ^ other)))


def _second_edited(genome: ModernGenome, rng: np.random.Generator) -> ModernGenome:
    second = _second_of(genome)
    terms, alphas = edited(second.terms, second.alphas, MAX_SECOND, rng)
    return dataclasses.replace(genome, second=dataclasses.replace(second, terms=terms, alphas=alphas))


def _copied(genome: ModernGenome, rng: np.random.Generator) -> ModernGenome:
    """The second rule becomes the first, at its own rate."""
    terms, alphas = _main_terms(genome)
    second = dataclasses.replace(_second_of(genome), terms=terms, alphas=alphas, beta1=genome.beta1)
    return dataclasses.replace(genome, second=second)


def _swapped(genome: ModernGenome, rng: np.random.Generator) -> ModernGenome:
    """The rules change places, each with its rate and β₁."""
    second, (terms, alphas) = _second_of(genome), _main_terms(genome)
    lr = float(np.clip(genome.lr * second.rate, *BOUNDS["lr"]))
    rate = float(np.clip(1 / second.rate, *RATE_BOUNDS))
    other = SecondRule(kinds=second.kinds, terms=terms, alphas=alphas, rate=rate, beta1=genome.beta1)
    return dataclasses.replace(
        genome, terms=second.terms, alphas=second.alphas, lr=lr, beta1=second.beta1, second=other
    )


_WITH_SECOND = [_second_lost, _kinds_changed, _second_edited, _second_edited, _copied, _swapped]


def _second_of(genome: ModernGenome) -> SecondRule:
    if genome.second is None:
        raise ValueError("Invalid genome: it has no second rule")
    return genome.second


def _main_terms(genome: ModernGenome) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The two weightiest terms, leading ones before others."""
    order = sorted(
        range(len(genome.terms)), key=lambda i: (not leads(genome.terms[i : i + 1]), -abs(genome.alphas[i]))
    )
    kept = sorted(order[:MAX_SECOND])
    return tuple(genome.terms[i] for i in kept), tuple(genome.alphas[i] for i in kept)


def _power(rng: np.random.Generator, low: float, high: float) -> float:
    """Log-uniform."""
    return float(10 ** rng.uniform(low, high))


def _is_small(term: str) -> bool:
    return term in DESCENDING or term == "SLOW"


def _alpha(rng: np.random.Generator, term: str) -> float:
    """A weight of order 1, greater where the term is small; one in ten is negative."""
    size = _power(rng, 0, math.log10(ALPHA_BOUND)) if _is_small(term) else _power(rng, -0.6, 0.3)
    return min(size, ALPHA_BOUND) * (-1 if rng.random() < NEGATIVE_SHARE else 1)


def _weighed_terms(
    rng: np.random.Generator, terms: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Terms with random weights, the first of which is positive."""
    first, *others = (_alpha(rng, term) for term in terms)
    return terms, (abs(first), *others)


def _weighed(alphas: tuple[float, ...], rng: np.random.Generator, decay: float) -> tuple[float, ...]:
    """Each weight multiplied by a log-normal number, some of the time; signs stay."""
    return tuple(
        float(np.clip(alpha * math.exp(rng.normal(0, ALPHA_SIGMA * decay)), -ALPHA_BOUND, ALPHA_BOUND))
        if rng.random() < NUMERIC_RATE * decay
        else alpha
        for alpha in alphas
    )


def _moved(rng: np.random.Generator, name: str, value: float, decay: float) -> float:
    """A gene's number after a Gaussian step: on a log scale, of 1 − β for betas, but for shares of a run."""
    low, high = RANGES[name]
    if name in _SHARES:
        return float(np.clip(value + rng.normal(0, SHARE_SIGMA * decay), low, high))
    if name in BETAS:
        return float(np.clip(1 - _log_step(rng, 1 - value, BETA_SIGMA * decay, 1 - high, 1 - low), low, high))
    if name == "weight_decay":  # which may be 0, where a log scale leads nowhere
        if value <= low:
            return _power(rng, *WEIGHT_DECAYS)
        if rng.random() < NO_DECAY_SHARE:
            return 0.0
    moved = _log_step(rng, value, LOG_SIGMA[name] * decay, low, high)
    return 0.0 if name == "weight_decay" and moved <= low else moved


def _log_step(rng: np.random.Generator, value: float, sigma: float, low: float, high: float) -> float:
    return float(np.clip(value * 10 ** rng.normal(0, sigma), low, high))
