"""The modern catalogue as a space: its genomes as flat parameters, and how they vary.

A trial always has every parameter. What a genome doesn't use is dormant: the slots of terms beyond `n_terms`
and `second_n_terms`, and all of `second_…` where there is no second rule. There is none where `second` is
False, and none where no kind of parameter or all four kinds are chosen for it: all parameters then have the
first rule.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from optevo.optim.candidate import Candidate, Variants
from optevo.optim.kinds import KINDS
from optevo.optim.schedules import DECAYS
from optevo.optim.terms.genome import ALPHA_BOUND, MAX_TERMS
from optevo.optim.terms.modern import BOUNDS, FLAGS, MAX_SECOND, RATE_BOUNDS, ModernGenome, SecondRule
from optevo.optim.terms.modern_expression import as_modern
from optevo.optim.terms.modern_presets import MODERN_PRESETS
from optevo.optim.terms.modern_variants import variants
from optevo.optim.terms.table import MODERN_TERMS
from optevo.spaces.base import Params, Space
from optevo.spaces.modern_variation import LOG_SIGMA, NO_DECAY, RANGES, crossover, mutate, sample
from optevo.spaces.terms import EVOLVED_CAVEAT

REALS: dict[str, FloatDistribution] = {
    name: FloatDistribution(*bounds, log=name in LOG_SIGMA) for name, bounds in RANGES.items()
}
SECOND_REALS: dict[str, FloatDistribution] = {
    "rate": FloatDistribution(*RATE_BOUNDS, log=True),
    "beta1": FloatDistribution(*BOUNDS["beta1"]),
}
_DORMANT = SecondRule(kinds=KINDS[:1], terms=("GRAD",), alphas=(0.0,))


class ModernSpace(Space):
    """All genomes of the modern catalogue.

    Args:
        presets: Names out of `MODERN_PRESETS` that `presets()` offers. Default: all of them.
        viable: Whether random and bred genomes are drawn until one passes its gate, which imports torch.
            Default: False.

    Raises:
        KeyError: A preset is unknown.

    Example:
        >>> from optevo.spaces import ModernSpace
        >>> space = ModernSpace(presets=("lion", "muon_conv"))
        >>> rule = space.candidate(space.presets()["lion"])
        >>> rule.formula()
        'Δ = 1·sign(0.9·m + 0.1·g)'
    """

    name = "terms"
    title = "genomes of the modern catalogue"
    evolves = True
    part_names = MODERN_TERMS

    def __init__(self, presets: tuple[str, ...] = tuple(MODERN_PRESETS), viable: bool = False) -> None:
        self._presets = {name: MODERN_PRESETS[name] for name in presets}
        self.only_viable = viable

    def distributions(self) -> dict[str, BaseDistribution]:
        """Forty parameters: the first rule's terms, numbers, flags, the decay, and the second rule's."""
        flag = CategoricalDistribution([False, True])
        return {
            **_slots("", MAX_TERMS),
            **REALS,
            **dict.fromkeys(FLAGS, flag),
            "decay": CategoricalDistribution(DECAYS),
            "second": flag,
            **{f"second_{kind}": flag for kind in KINDS},
            **_slots("second_", MAX_SECOND),
            **{f"second_{name}": distribution for name, distribution in SECOND_REALS.items()},
        }

    def candidate(self, params: Mapping[str, Any]) -> ModernGenome:
        """The genome of a trial's parameters; dormant genes are left out.

        Raises:
            ValueError: A parameter is missing or outside its domain.
        """
        if missing := [name for name in self.distributions() if name not in params]:
            raise ValueError(f"Invalid parameters: {missing[0]!r} is missing")
        terms, alphas = _terms(params, "", MAX_TERMS)
        genes = {name: params[name] for name in (*REALS, *FLAGS, "decay")}
        if genes["weight_decay"] == NO_DECAY:
            genes["weight_decay"] = 0.0
        genes["hold"] = min(genes["hold"], 1 - genes["warmup"])
        return ModernGenome(terms=terms, alphas=alphas, second=self._second(params), **genes)

    def _second(self, params: Mapping[str, Any]) -> SecondRule | None:
        kinds = tuple(kind for kind in KINDS if params[f"second_{kind}"])
        if not params["second"] or not 0 < len(kinds) < len(KINDS):
            return None
        terms, alphas = _terms(params, "second_", MAX_SECOND)
        return SecondRule(
            kinds=kinds,
            terms=terms,
            alphas=alphas,
            **{name: params[f"second_{name}"] for name in SECOND_REALS},
        )

    def params(self, genome: ModernGenome) -> Params:
        """The parameters of a genome, each within its distribution; dormant slots are GRAD with weight 0."""
        params = _filled("", genome.terms, genome.alphas, MAX_TERMS)
        params |= {name: _clipped(getattr(genome, name), d) for name, d in REALS.items()}
        params |= {name: getattr(genome, name) for name in (*FLAGS, "decay")}
        second = genome.second or _DORMANT
        params["second"] = genome.second is not None
        params |= {f"second_{kind}": genome.second is not None and kind in second.kinds for kind in KINDS}
        params |= _filled("second_", second.terms, second.alphas, MAX_SECOND)
        params |= {f"second_{name}": getattr(second, name) for name in SECOND_REALS}
        return params

    def express(self, candidate: Candidate, steps: int) -> Params:
        """The parameters of the genome that is this optimizer, see `as_modern`.

        Raises:
            ValueError: There is none in the space; the message says why.
        """
        genome = as_modern(candidate, steps)
        params = self.params(genome)
        back = self.candidate(params)
        for name, distribution in REALS.items():
            if back.canonical() != genome.canonical() and getattr(back, name) != getattr(genome, name):
                low, high = distribution.low, distribution.high
                raise ValueError(f"its {name} is {getattr(genome, name):g}, outside {low:g} to {high:g}")
        return params

    def presets(self) -> dict[str, Params]:
        """The presets that this space was made with."""
        return {name: self.params(genome) for name, genome in self._presets.items()}

    def sample(self, rng: np.random.Generator) -> Params:
        """A random genome, see `optevo.spaces.modern_variation.sample`."""
        return self.drawn(lambda: self.params(sample(rng)))

    def vary(self, parents: Sequence[Params], rng: np.random.Generator, decay: float) -> Params:
        """The mutant of a crossover of two parents, or of a single one."""

        def child() -> Params:
            genomes = [self.candidate(params) for params in parents]
            first = genomes[0] if len(genomes) == 1 else crossover(genomes[0], genomes[1], rng)
            return self.params(mutate(first, rng, decay))

        return self.drawn(child)

    def identity(self, params: Params) -> int:
        """A number that genomes share, within one process, that are one optimizer with one schedule."""
        return hash(self.candidate(params).canonical())

    def caveats(self) -> list[str]:
        """Where the published winner is a preset: on what it was selected."""
        return [EVOLVED_CAVEAT] if "evolved" in self._presets else []

    def parts(self, params: Mapping[Any, Any]) -> Counter[str]:
        """How often each term is in use, in either rule; dormant ones are not."""
        found: Counter[str] = Counter()
        chosen = [bool(params.get(f"second_{kind}")) for kind in KINDS]
        for prefix, most in (("", MAX_TERMS), ("second_", MAX_SECOND)):
            n = params.get(f"{prefix}n_terms")
            unused = prefix and not (params.get("second") is True and 0 < sum(chosen) < len(KINDS))
            if unused or not isinstance(n, (int, float)) or math.isnan(n):
                continue
            terms = (params.get(f"{prefix}term_{i}") for i in range(min(int(n), most)))
            found.update(term for term in terms if isinstance(term, str))
        return found

    def expressed(self, params: Params) -> Params:
        """All but dormant parameters, numbers that no rule reads, and flags that would change nothing."""
        genome = self.candidate(params)
        rules = [rule for rule in (genome.rule(), genome.second_rule()) if rule is not None]
        unused = {f"{gene}_{i}" for i in range(len(genome.terms), MAX_TERMS) for gene in ("term", "alpha")}
        for name in ("beta2", "beta_slow", "beta_lion", "eps", "clip_value"):
            # A moment whose decay is 0 is none, and that it is 0 is of use.
            if params[name] != 0 and all(getattr(rule, name) is None for rule in rules):
                unused.add(name)
        unused |= {"beta1"} if genome.beta1 != 0 and rules[0].beta1 is None else set()
        if genome.second is None:
            kinds = {f"second_{kind}" for kind in KINDS} if params["second"] else set[str]()
            unused |= {name for name in self._names if name.startswith("second_")} - kinds
        else:
            n = len(genome.second.terms)
            unused |= {f"second_{gene}_{i}" for i in range(n, MAX_SECOND) for gene in ("term", "alpha")}
            unused |= {"second_beta1"} if genome.second.beta1 != 0 and rules[1].beta1 is None else set()
        unused |= {"hold", "final"} if genome.decay == "none" else set()
        unused |= {"final"} if genome.warmup + genome.hold >= 1 else set()
        form = genome.canonical()
        for flag in FLAGS:
            other: dict[str, Any] = {flag: not getattr(genome, flag)}
            if dataclasses.replace(genome, **other).canonical() == form:
                unused.add(flag)
        return {name: value for name, value in params.items() if name not in unused}

    def variants(self, winner: Candidate, tuned: Candidate | None) -> Variants:
        """One rule everywhere, without each term, flag and rate, and AdamW's rule in its place."""
        return variants(cast(ModernGenome, winner), tuned)


def _slots(prefix: str, most: int) -> dict[str, BaseDistribution]:
    """The distributions of a rule's terms."""
    slots: dict[str, BaseDistribution] = {f"{prefix}n_terms": IntDistribution(1, most)}
    for i in range(most):
        slots[f"{prefix}term_{i}"] = CategoricalDistribution(MODERN_TERMS)
        slots[f"{prefix}alpha_{i}"] = FloatDistribution(-ALPHA_BOUND, ALPHA_BOUND)
    return slots


def _terms(params: Mapping[str, Any], prefix: str, most: int) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Terms and weights in use.

    Raises:
        ValueError: Their number is none.
    """
    n = params[f"{prefix}n_terms"]
    if type(n) is not int or not 1 <= n <= most:
        raise ValueError(f"Invalid {prefix}n_terms: {n!r}, expected 1 to {most}")
    names = range(n)
    return tuple(params[f"{prefix}term_{i}"] for i in names), tuple(
        params[f"{prefix}alpha_{i}"] for i in names
    )


def _filled(prefix: str, terms: Sequence[str], alphas: Sequence[float], most: int) -> Params:
    """The parameters of a rule's terms; dormant slots are GRAD with weight 0."""
    n = len(terms)
    params: Params = {f"{prefix}n_terms": n}
    for i in range(most):
        params[f"{prefix}term_{i}"] = terms[i] if i < n else "GRAD"
        params[f"{prefix}alpha_{i}"] = alphas[i] if i < n else 0.0
    return params


def _clipped(value: float, distribution: FloatDistribution) -> float:
    return float(min(max(value, distribution.low), distribution.high))
