"""`ModernGenome`: a candidate of the modern catalogue. Pure Python until an optimizer is built."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optevo.naming import explain_keywords, hint
from optevo.optim.candidate import Candidate
from optevo.optim.kinds import KINDS, check_kind
from optevo.optim.schedules import DECAYS, ShareSchedule
from optevo.optim.terms.genome import ALPHA_BOUND, MAX_TERMS
from optevo.optim.terms.modern_rule import ModernRule, collapse_modern
from optevo.optim.terms.table import MODERN_TERMS
from optevo.scalars import plain

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR

    from optevo.optim.terms.modern_optimizer import ModernOptimizer

# (low, high) of every real gene.
BOUNDS = {
    "lr": (1e-5, 1e-1),
    "beta1": (0.0, 0.999),
    "beta2": (0.0, 0.9999),
    "beta_slow": (0.9, 0.99999),
    "beta_lion": (0.0, 0.999),
    "eps": (1e-10, 1e-4),
    "weight_decay": (0.0, 1.0),
    "vector_rate": (0.01, 100.0),
    "head_rate": (0.01, 100.0),
    "warmup": (0.0, 1.0),
    "hold": (0.0, 1.0),
    "final": (0.0, 1.0),
}
RATE_BOUNDS = (1e-3, 1e3)  # of a second rule, relative to the first
MAX_SECOND = 2  # terms of a second rule
_PLURALS = {
    "convolution": "convolutions",
    "hidden": "hidden matrices",
    "head": "embeddings and the last layer",
    "vector": "vectors",
}
FLAGS = ("use_momentum", "use_second_moment", "bias_correction", "gradient_clipping", "cautious")


@dataclass(frozen=True, kw_only=True)
class SecondRule:
    """The rule of some kinds of parameters, in the place of the genome's.

    Attributes:
        kinds: Which, of `optevo.optim.kinds.KINDS`, in that order; not all of them.
        terms: One or two of `MODERN_TERMS`.
        alphas: One weight in [-5, 5] a term.
        rate: Its learning rate relative to the genome's, in [1e-3, 1e3].
        beta1: Decay of its first moment in [0, 0.999].

    Raises:
        ValueError: A gene is outside its domain; the message names it and the value.

    Example:
        >>> from optevo.optim import ModernGenome, SecondRule
        >>> second = SecondRule(kinds=("hidden",), terms=("ORTHO",), alphas=(1.0,), beta1=0.95)
        >>> print(ModernGenome(terms=("ADAM_TERM",), alphas=(1.0,), lr=1e-3, second=second).formula())
        Δ = 1·m̂/(√v̂ + 1e-08); hidden matrices: Δ = 1·orth(0.05·g + 0.95·m)
    """

    kinds: tuple[str, ...]
    terms: tuple[str, ...]
    alphas: tuple[float, ...]
    rate: float = 1.0
    beta1: float = 0.9

    def __post_init__(self) -> None:
        if isinstance(self.kinds, str) or not isinstance(self.kinds, Iterable):
            raise ValueError(f"Invalid kinds: {self.kinds!r} is not a sequence")
        given = tuple(self.kinds)
        for kind in given:
            check_kind(kind)
        object.__setattr__(self, "kinds", tuple(kind for kind in KINDS if kind in given))
        if not 0 < len(self.kinds) < len(KINDS):
            raise ValueError(f"Invalid kinds: {self.kinds}, expected some of {', '.join(KINDS)}, and not all")
        _check_terms(self, MAX_SECOND)
        _check_real(self, "rate", *RATE_BOUNDS)
        _check_real(self, "beta1", *BOUNDS["beta1"])


@explain_keywords
@dataclass(frozen=True, kw_only=True)
class ModernGenome(Candidate):
    """A weighted sum of one to four terms of the modern catalogue, or two such for two kinds of parameters.

    Attributes:
        terms: One to four of `MODERN_TERMS`, repeats allowed.
        alphas: One weight in [-5, 5] a term.
        lr: Peak learning rate in [1e-5, 1e-1].
        beta1: Decay of the first moment in [0, 0.999].
        beta2: Decay of the second moment in [0, 0.9999].
        beta_slow: Decay of the slow moment, which SLOW reads, in [0.9, 0.99999].
        beta_lion: Weight of the first moment in LION's sign, in [0, 0.999]; its own decay is `beta1`.
        eps: ε in [1e-10, 1e-4], added outside the root.
        weight_decay: Decoupled weight decay in [0, 1]: w ← (1 − η·weight_decay)·w, with the η of the kind.
        use_momentum: Whether m is an average; otherwise m = g.
        use_second_moment: Whether v is an average; otherwise v = g².
        bias_correction: Whether averaged moments, but for the slow one, are divided by 1 − βᵏ.
        gradient_clipping: Whether g is first clipped to ±clip_value, element by element.
        clip_value: That limit, > 0.
        cautious: Whether elements where Δ and the gradient differ in sign are set to 0 and the others divided
            by the mask's mean, a tensor at a time (Liang et al., arXiv 2411.16085).
        vector_rate: Learning rate of vectors relative to `lr`, in [0.01, 100].
        head_rate: That of embeddings and the last layer.
        warmup: Share of the run over which the rate rises.
        hold: Share after it over which it stays.
        decay: How it falls after that: "none", "cosine", "linear" or "sqrt", see `ShareSchedule`.
        final: The factor that it falls to, in [0, 1].
        second: The rule of some kinds of parameters, or None.

    Raises:
        ValueError: A gene is outside its domain; the message names it and the value.

    Example:
        >>> import torch
        >>> from optevo.optim import ModernGenome
        >>> genome = ModernGenome(terms=("LION",), alphas=(1.0,), lr=3e-4, warmup=0.1, decay="linear")
        >>> optimizer, schedule = genome.build(torch.nn.Linear(4, 2).parameters(), total_steps=1000)
    """

    by_kind = True

    terms: tuple[str, ...]
    alphas: tuple[float, ...]
    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    beta_slow: float = 0.9999
    beta_lion: float = 0.9
    eps: float = 1e-8
    weight_decay: float = 0.0
    use_momentum: bool = True
    use_second_moment: bool = True
    bias_correction: bool = True
    gradient_clipping: bool = False
    clip_value: float = 1.0
    cautious: bool = False
    vector_rate: float = 1.0
    head_rate: float = 1.0
    warmup: float = 0.0
    hold: float = 0.0
    decay: str = "none"
    final: float = 0.0
    second: SecondRule | None = None

    def __post_init__(self) -> None:
        _check_terms(self, MAX_TERMS)
        for name, bounds in BOUNDS.items():
            _check_real(self, name, *bounds)
        _check_real(self, "clip_value", math.nextafter(0, 1), 1e300)
        for name in FLAGS:
            value = plain(getattr(self, name))
            if not isinstance(value, bool):
                raise ValueError(f"Invalid {name}: {value!r}, expected True or False")
            object.__setattr__(self, name, value)
        if self.decay not in DECAYS:
            raise ValueError(f"Invalid decay: {self.decay!r}, {hint(self.decay, DECAYS)}")
        if self.warmup + self.hold > 1:
            raise ValueError(f"Invalid hold: {self.hold}, expected at most {1 - self.warmup:g}")
        if not isinstance(self.second, SecondRule | None):
            raise ValueError(f"Invalid second: {self.second!r}, expected a SecondRule or None")

    def rule(self) -> ModernRule:
        """The canonical rule of all parameters, but for those of the second."""
        rule = self._collapsed(self.terms, self.alphas, self.beta1)
        return rule if self.second is None else _for_kinds(rule, set(KINDS) - set(self.second.kinds))

    def second_rule(self) -> ModernRule | None:
        """The canonical second rule."""
        second = self.second
        if second is None:
            return None
        return _for_kinds(self._collapsed(second.terms, second.alphas, second.beta1), set(second.kinds))

    def rule_of(self, kind: str) -> ModernRule:
        """The canonical rule of one kind of parameters."""
        second = self.second_rule()
        used = second if second is not None and self.second and kind in self.second.kinds else self.rule()
        return used.alone(vectors=kind == "vector")

    def _collapsed(self, terms: tuple[str, ...], alphas: tuple[float, ...], beta1: float) -> ModernRule:
        return collapse_modern(
            terms,
            alphas,
            beta1=beta1 if self.use_momentum else 0.0,
            beta2=self.beta2 if self.use_second_moment else 0.0,
            beta_slow=self.beta_slow,
            beta_lion=self.beta_lion,
            eps=self.eps,
            bias_correction=self.bias_correction,
            clip_value=self.clip_value if self.gradient_clipping else None,
            cautious=self.cautious,
        )

    def rates(self) -> dict[str, float]:
        """The learning rate of each kind of parameter relative to `lr`."""
        second = self.second
        own = {"vector": self.vector_rate, "head": self.head_rate}
        return {
            kind: own.get(kind, 1.0) * (second.rate if second is not None and kind in second.kinds else 1.0)
            for kind in KINDS
        }

    def schedule(self, total_steps: int) -> ShareSchedule:
        """The genome's learning-rate factor over a run of `total_steps` steps."""
        return ShareSchedule(
            total_steps, warmup=self.warmup, hold=self.hold, decay=self.decay, final=self.final
        )

    def at_rate(self, lr: float) -> ModernGenome:
        """The same at another learning rate.

        Raises:
            ValueError: It is out of range.
        """
        return dataclasses.replace(self, lr=lr)

    def step_size(self) -> float:
        """Learning rate times the sum of the coefficients' magnitudes."""
        return self.lr * math.fsum(map(abs, self.rule().coefficients.values()))

    def canonical(self) -> str:
        """A string that two genomes share only when they are the same optimizer with the same schedule."""
        forms, kinds = list[dict[str, Any]](), dict[str, tuple[float, int]]()
        for kind, rate in self.rates().items():
            rule = dataclasses.asdict(self.rule_of(kind))
            form = {name: value for name, value in rule.items() if value is not None and value is not False}
            if form not in forms:
                forms.append(form)
            kinds[kind] = (self.lr * rate, forms.index(form))
        decays = self.decay != "none" and self.warmup + self.hold < 1 and self.final != 1
        whole = {
            "catalogue": "modern",
            "kinds": kinds,
            "rules": forms,
            "schedule": [self.warmup, *([self.hold, self.decay, self.final] if decays else [])],
            "weight_decay": self.weight_decay,
        }
        return json.dumps(whole, sort_keys=True, separators=(",", ":"))

    def formula(self) -> str:
        """The update as a line to read."""
        rule, second = self.rule(), self.second_rule()
        seconds = () if self.second is None else self.second.kinds
        parts = []
        if "vector" not in seconds and rule.of_vectors() != rule.coefficients:
            parts.append(f"vectors: Δ = {rule.formula(of_vectors=True)}")
        if second is not None:
            apart = len(seconds) > 1 and "vector" in seconds and second.of_vectors() != second.coefficients
            named = " and ".join(_PLURALS[kind] for kind in seconds if not (apart and kind == "vector"))
            parts.append(f"{named}: Δ = {second.formula()}")
            parts += [f"vectors: Δ = {second.formula(of_vectors=True)}"] if apart else []
        return "; ".join([f"Δ = {rule.formula()}", *parts])

    def describe(self) -> str:
        """What the formula leaves out, on one line: rates, betas, weight decay, schedule."""
        rules = [rule for rule in (self.rule(), self.second_rule()) if rule is not None]
        parts = [f"lr {self.lr:.3g}"]
        parts += [f"× {rate:.3g} for {kind}" for kind, rate in self.rates().items() if rate != 1]
        for name, symbol in (
            ("beta1", "β₁"),
            ("beta2", "β₂"),
            ("beta_slow", "β of s"),
        ):
            known = [value for rule in rules if (value := getattr(rule, name)) is not None]
            parts += [f"{symbol} {' and '.join(f'{v:.4g}' for v in dict.fromkeys(known))}"] if known else []
        return ", ".join([*parts, f"weight decay {self.weight_decay:.3g}", self.describe_schedule()])

    def describe_schedule(self) -> str:
        """The learning-rate schedule in words."""
        parts = [f"warmup over {self.warmup:.0%} of the run"] if self.warmup else []
        parts += [f"hold over {self.hold:.0%}"] if self.hold and self.decay != "none" else []
        if self.decay != "none":
            words = "1 − √" if self.decay == "sqrt" else self.decay
            parts += [f"{words} decay" + (f" to {self.final:.2g}" if self.final else "")]
        return ", ".join(parts) or "constant rate"

    def gate(self) -> str | None:
        """See `optevo.optim.terms.modern_gate`; imports torch."""
        from optevo.optim.terms.modern_gate import gate  # noqa: PLC0415  torch only where it is needed

        return gate(self)

    def optimizer(self, params: Iterable[Any], **options: Any) -> ModernOptimizer:
        """A `ModernOptimizer` of this genome over `params`; options are those of its constructor."""
        from optevo.optim.terms.modern_optimizer import ModernOptimizer  # noqa: PLC0415  likewise

        return ModernOptimizer(params, self, **options)

    def scheduler(self, optimizer: Optimizer, total_steps: int) -> LambdaLR:
        """The genome's schedule on any optimizer; step it once a training step."""
        from torch.optim.lr_scheduler import LambdaLR  # noqa: PLC0415  torch only where it is needed

        return LambdaLR(optimizer, self.schedule(total_steps))

    def build(
        self, params: Iterable[Any], total_steps: int, **options: Any
    ) -> tuple[ModernOptimizer, LambdaLR]:
        """Optimizer and scheduler for a run of `total_steps` steps."""
        optimizer = self.optimizer(params, **options)
        return optimizer, self.scheduler(optimizer, total_steps)

    def source(self, class_name: str, provenance: Mapping[str, str]) -> str:
        """The optimizer as one self-contained file, see `optevo.optim.terms.modern_export`."""
        from optevo.optim.terms.modern_export import export_modern  # noqa: PLC0415  likewise

        return export_modern(self, class_name=class_name, provenance=provenance)


def _for_kinds(rule: ModernRule, kinds: Set[str]) -> ModernRule:
    """The rule without what only other kinds would read."""
    if kinds == {"vector"}:
        return rule.alone(vectors=True)
    return rule if "vector" in kinds else rule.alone(vectors=False)


def _check_terms(genes: Any, most: int) -> None:
    for name in ("terms", "alphas"):
        value = getattr(genes, name)
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise ValueError(f"Invalid {name}: {value!r} is not a sequence")
        object.__setattr__(genes, name, tuple(map(plain, value)))
    if not 1 <= len(genes.terms) <= most:
        raise ValueError(f"Invalid terms: {len(genes.terms)} of them, expected 1 to {most}")
    if unknown := [t for t in genes.terms if t not in MODERN_TERMS]:
        raise ValueError(f"Invalid terms: unknown {unknown[0]!r}, {hint(unknown[0], MODERN_TERMS)}")
    if len(genes.alphas) != len(genes.terms):
        raise ValueError(f"Invalid alphas: {len(genes.alphas)} weights for {len(genes.terms)} terms")
    for alpha in genes.alphas:
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not abs(alpha) <= ALPHA_BOUND:
            raise ValueError(f"Invalid alphas: {alpha!r}, expected numbers within ±{ALPHA_BOUND:g}")
    object.__setattr__(genes, "alphas", tuple(map(float, genes.alphas)))


def _check_real(genes: Any, name: str, low: float, high: float) -> None:
    value = plain(getattr(genes, name))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"Invalid {name}: {value!r}, expected a number in [{low:g}, {high:g}]")
    object.__setattr__(genes, name, float(value) + 0.0)  # of −0 it is 0
