"""The term genome as a space: flat parameters, the published prior, crossover and annealed mutation.

A trial always has all of `term_0` … `term_3` and `alpha_0` … `alpha_3`; `n_terms` says how many are in use,
and the rest are dormant (`GRAD` with weight 0 when evolution writes them, anything under other samplers).
Source of the constants: *Evolving Deep Learning Optimizers*, section 3, and its repository.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from optevo.optim.baselines.as_terms import term_genome
from optevo.optim.baselines.registry import TunedBaseline
from optevo.optim.candidate import Candidate, Stacked, Variants
from optevo.optim.terms.genome import ALPHA_BOUND, BOUNDS, MAX_TERMS, TERMS, TermGenome
from optevo.optim.terms.presets import PRESETS
from optevo.optim.terms.table import ALL_TERMS, use_term
from optevo.optim.terms.variants import variants
from optevo.spaces.base import Params, Space

if TYPE_CHECKING:
    from torch import Tensor

FLAGS = {  # probability of True under the prior
    "use_momentum": 0.7,
    "use_second_moment": 0.7,
    "bias_correction": 0.6,
    "gradient_clipping": 0.2,
    "warmup": 0.3,
    "cosine_decay": 0.3,
}
LOG_GENES = {"lr": (-4.0, -2.0), "eps": (-9.0, -6.0), "weight_decay": (-5.0, -3.0)}  # prior of log10
LINEAR_GENES = {"beta1": (0.5, 0.99), "beta2": (0.9, 0.9999)}
SIGMA_SCALE = {"beta1": 0.2, "beta2": 0.1}  # width of a mutation, as a share of σ
CLIP_PRIOR = (0.5, 2.0)
WARMUP_PRIOR = (50, 200)
WEIGHT_DECAY_MIN = 1e-6  # a search works in log10, where 0 has no place

EVOLVED_CAVEAT = (
    "names the preset evolved, which its authors selected on the test splits of MNIST, Fashion-MNIST "
    "and CIFAR-10"
)
NUMERIC_RATE, STRUCTURAL_RATE, FLAG_RATE, SIGMA = 0.35, 0.15, 0.1, 0.3


class TermSpace(Space):
    """All term genomes.

    Args:
        presets: Names out of `optevo.optim.PRESETS` that `presets()` offers. Default: all of them.
        viable: Whether random and bred genomes are drawn until one passes its gate, which imports torch.
            Default: False.
        terms: Terms that genomes may have besides `TERMS`: names of other packages' entry points in the group
            ``optevo.terms``, or ``module:NAME``. Default: none.

    Raises:
        KeyError: A preset is unknown.
        UserError: A term is not there, or cannot be imported.
        ValueError: A term is none that a genome can have.

    Example:
        >>> import optuna, torch
        >>> from optevo import GeneticSampler, TermSpace
        >>> space = TermSpace()
        >>> study = optuna.create_study(sampler=GeneticSampler(space=space, seed=0))
        >>> rule = space.candidate(space.suggest(study.ask()))
        >>> optimizer, schedule = rule.build(torch.nn.Linear(4, 2).parameters(), total_steps=100)
    """

    name = "terms"
    title = "term genomes"
    evolves = True

    def __init__(
        self,
        presets: tuple[str, ...] = tuple(PRESETS),
        viable: bool = False,
        terms: tuple[str, ...] = (),
    ) -> None:
        self.part_names = *TERMS, *map(use_term, terms)
        self.package = next(filter(None, map(ALL_TERMS.package, terms)), None)
        self._presets = {name: PRESETS[name] for name in presets}
        self.only_viable = viable

    def distributions(self) -> dict[str, BaseDistribution]:
        """Twenty-two parameters: the number of terms, four slots, eight numbers, six flags, one length."""
        space: dict[str, BaseDistribution] = {"n_terms": IntDistribution(1, MAX_TERMS)}
        for i in range(MAX_TERMS):
            space[f"term_{i}"] = CategoricalDistribution(self.part_names)
            space[f"alpha_{i}"] = FloatDistribution(-ALPHA_BOUND, ALPHA_BOUND)
        for gene in LOG_GENES:
            space[gene] = FloatDistribution(*_bounds(gene), log=True)
        for gene in LINEAR_GENES:
            space[gene] = FloatDistribution(*BOUNDS[gene])
        for flag in FLAGS:
            space[flag] = CategoricalDistribution([False, True])
        space["clip_value"] = FloatDistribution(0.1, 10.0, log=True)
        space["warmup_steps"] = IntDistribution(1, 1000)
        return space

    def candidate(self, params: Mapping[str, Any]) -> TermGenome:
        """The genome of a trial's parameters; dormant genes are left out.

        Raises:
            ValueError: A parameter is missing or outside its domain.
        """
        n = params.get("n_terms")
        if type(n) is not int or not 1 <= n <= MAX_TERMS:
            raise ValueError(f"Invalid n_terms: {n!r}, expected 1 to {MAX_TERMS}")
        names = [*_SCALARS, "warmup_steps", *(f"{gene}_{i}" for i in range(n) for gene in ("term", "alpha"))]
        if missing := [name for name in names if name not in params]:
            raise ValueError(f"Invalid parameters: {missing[0]!r} is missing")
        rest = {name: params[name] for name in (*_SCALARS, "warmup_steps")}
        return TermGenome(
            terms=tuple(params[f"term_{i}"] for i in range(n)),
            alphas=tuple(params[f"alpha_{i}"] for i in range(n)),
            **rest,
        )

    def params(self, genome: TermGenome) -> Params:
        """The parameters of a genome, each within its distribution; dormant slots are GRAD with weight 0."""
        n = len(genome.terms)
        params: Params = {"n_terms": n}
        for i in range(MAX_TERMS):
            params[f"term_{i}"] = genome.terms[i] if i < n else "GRAD"
            params[f"alpha_{i}"] = genome.alphas[i] if i < n else 0.0
        params |= {name: getattr(genome, name) for name in (*_SCALARS, "warmup_steps")}
        params["weight_decay"] = max(params["weight_decay"], WEIGHT_DECAY_MIN)
        params["clip_value"] = float(np.clip(params["clip_value"], 0.1, 10.0))
        params["warmup_steps"] = min(params["warmup_steps"], 1000)
        return params

    def presets(self) -> dict[str, Params]:
        """The presets that this space was made with."""
        return {name: self.params(genome) for name, genome in self._presets.items()}

    def express(self, candidate: Candidate, steps: int) -> Params:
        """The parameters of a term genome, or of a baseline that is one."""
        if isinstance(candidate, TunedBaseline):
            candidate = term_genome(candidate, steps)
        if not isinstance(candidate, TermGenome):
            return super().express(candidate, steps)
        if others := set(candidate.terms) - set(self.part_names):
            raise ValueError(f"Invalid terms: {min(others)!r}, which space.terms of this study does not name")
        params = self.params(candidate)
        for name in {"clip_value", "warmup_steps"} & self.expressed(params).keys():
            if params[name] != getattr(candidate, name):
                raise ValueError(
                    f"Invalid {name}: {getattr(candidate, name)}, the nearest that the space has is "
                    f"{params[name]}"
                )
        return params

    def sample(self, rng: np.random.Generator) -> Params:
        """A random genome: one to three terms, weights in [-1, 1], the rest from the published prior."""
        return self.drawn(lambda: self._random(rng))

    def _random(self, rng: np.random.Generator) -> Params:
        n = int(rng.integers(1, 4))
        genes: dict[str, Any] = {
            "terms": tuple(self.part_names[rng.integers(len(self.part_names))] for _ in range(n)),
            "alphas": tuple(float(rng.uniform(-1, 1)) for _ in range(n)),
        }
        genes |= {gene: float(10 ** rng.uniform(*prior)) for gene, prior in LOG_GENES.items()}
        genes |= {gene: float(rng.uniform(*prior)) for gene, prior in LINEAR_GENES.items()}
        genes |= {flag: bool(rng.random() < p) for flag, p in FLAGS.items()}
        genes["clip_value"] = float(rng.uniform(*CLIP_PRIOR))
        genes["warmup_steps"] = int(rng.integers(WARMUP_PRIOR[0], WARMUP_PRIOR[1] + 1))
        return self.params(TermGenome(**genes))

    def vary(self, parents: Sequence[Params], rng: np.random.Generator, decay: float) -> Params:
        """The mutant of a crossover of two parents, or of a single one."""

        def child() -> Params:
            first = parents[0] if len(parents) == 1 else self.crossover(parents[0], parents[1], rng)
            return self.mutate(first, rng, decay)

        return self.drawn(child)

    def crossover(self, first: Params, second: Params, rng: np.random.Generator) -> Params:
        """Head of the first parent's terms, tail of the second's; every other gene from either with ½."""
        a, b = self.candidate(first), self.candidate(second)
        i, j = int(rng.integers(1, len(a.terms) + 1)), int(rng.integers(len(b.terms)))
        genes = {name: getattr(a if rng.random() < 0.5 else b, name) for name in (*_SCALARS, "warmup_steps")}
        terms = (a.terms[:i] + b.terms[j:])[:MAX_TERMS]
        alphas = (a.alphas[:i] + b.alphas[j:])[:MAX_TERMS]
        return self.params(TermGenome(terms=terms, alphas=alphas, **genes))

    def mutate(self, params: Params, rng: np.random.Generator, decay: float) -> Params:
        """Numbers with 0.35·decay and σ = 0.3·decay, the terms with 0.15·decay, flags with 0.1·decay.

        As published, `clip_value` and `warmup_steps` are inherited and never mutated.
        """
        genome, sigma = self.candidate(params), SIGMA * decay
        genes: dict[str, Any] = {}
        for gene in LOG_GENES:
            if rng.random() < NUMERIC_RATE * decay:
                value = 10 ** (math.log10(getattr(genome, gene)) + rng.normal(0, sigma))
                genes[gene] = float(np.clip(value, *_bounds(gene)))
        for gene in LINEAR_GENES:
            if rng.random() < NUMERIC_RATE * decay:
                value = getattr(genome, gene) + rng.normal(0, sigma * SIGMA_SCALE[gene])
                genes[gene] = float(np.clip(value, *BOUNDS[gene]))
        alphas = tuple(
            float(np.clip(alpha * math.exp(rng.normal(0, sigma)), -ALPHA_BOUND, ALPHA_BOUND))
            if rng.random() < NUMERIC_RATE * decay
            else alpha
            for alpha in genome.alphas
        )
        terms = genome.terms
        if rng.random() < STRUCTURAL_RATE * decay:
            terms, alphas = _restructure(terms, alphas, rng, self.part_names)
        for flag in FLAGS:
            if rng.random() < FLAG_RATE * decay:
                genes[flag] = not getattr(genome, flag)
        return self.params(dataclasses.replace(genome, terms=terms, alphas=alphas, **genes))

    def caveats(self) -> list[str]:
        """Where the published winner is a preset: on what it was selected."""
        return [EVOLVED_CAVEAT] if "evolved" in self._presets else []

    def parts(self, params: Mapping[Any, Any]) -> Counter[str]:
        """How often each term is in use; dormant ones are not."""
        n = params.get("n_terms")
        if not isinstance(n, (int, float)) or math.isnan(n):
            return Counter()
        terms = (params.get(f"term_{i}") for i in range(min(int(n), MAX_TERMS)))
        return Counter(term for term in terms if isinstance(term, str))

    def expressed(self, params: Params) -> Params:
        """All but dormant slots, numbers that the rule never reads, and flags that would change nothing."""
        genome = self.candidate(params)
        rule, form = genome.rule(), genome.canonical()
        unused = {f"{gene}_{i}" for i in range(len(genome.terms), MAX_TERMS) for gene in ("term", "alpha")}
        unused |= {name for name in ("beta1", "beta2", "eps", "clip_value") if getattr(rule, name) is None}
        unused |= set() if genome.warmup else {"warmup_steps"}
        for flag in FLAGS:
            other = {flag: not getattr(genome, flag)}
            if dataclasses.replace(genome, **cast("dict[str, Any]", other)).canonical() == form:
                unused.add(flag)
        return {name: value for name, value in params.items() if name not in unused}

    def gates(self, candidates: Sequence[Candidate]) -> list[str | None]:
        """All in one, see `optevo.optim.terms.gate.gates`, but for candidates with a gate of their own."""
        if any(type(one).gate is not TermGenome.gate for one in candidates):
            return super().gates(candidates)
        from optevo.optim.terms.gate import gates  # noqa: PLC0415  torch only where it is needed

        return gates([genome.rule() for genome in cast("Sequence[TermGenome]", candidates)])

    def stack(self, candidates: Sequence[Candidate], steps: int) -> Callable[[Tensor], Stacked]:
        """See `optevo.optim.terms.stacked.StackedTerms`; imports torch."""
        from optevo.optim.terms.stacked import StackedTerms  # noqa: PLC0415  torch only where it is needed

        genomes = cast("Sequence[TermGenome]", candidates)
        return lambda weights: StackedTerms(genomes, steps, weights)

    def variants(self, winner: Candidate, tuned: Candidate | None) -> Variants:
        """Without each term, flag and the schedule, and AdamW's rule in its place."""
        return variants(cast(TermGenome, winner), tuned)


_SCALARS = (*LOG_GENES, *LINEAR_GENES, *FLAGS, "clip_value")


def _bounds(gene: str) -> tuple[float, float]:
    return (WEIGHT_DECAY_MIN, BOUNDS[gene][1]) if gene == "weight_decay" else BOUNDS[gene]


def _restructure(
    terms: tuple[str, ...], alphas: tuple[float, ...], rng: np.random.Generator, known: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Add a random term, remove one, or change one's kind, uniformly; nothing where that can't be."""
    kind = rng.integers(3)
    if kind == 0 and len(terms) < MAX_TERMS:
        return (*terms, known[rng.integers(len(known))]), (*alphas, float(rng.uniform(-1, 1)))
    i = int(rng.integers(len(terms)))
    if kind == 1 and len(terms) > 1:
        return terms[:i] + terms[i + 1 :], alphas[:i] + alphas[i + 1 :]
    if kind == 2:
        others = [term for term in known if term != terms[i]]
        return (*terms[:i], others[rng.integers(len(others))], *terms[i + 1 :]), alphas
    return terms, alphas
