"""`TermGenome`: one candidate optimizer, as genes. Pure Python until an optimizer is built."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optevo.lazy import is_reference
from optevo.naming import explain_keywords, hint
from optevo.optim.candidate import Candidate
from optevo.optim.schedules import WarmupCosine
from optevo.optim.terms.rule import Rule, collapse
from optevo.optim.terms.table import ALL_TERMS, TABLE, TERMS, use_term
from optevo.scalars import plain

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR

    from optevo.optim.terms.optimizer import GenomeOptimizer

__all__ = ["MAX_TERMS", "TERMS", "TermGenome"]

MAX_TERMS = 4

# (low, high) of every real gene; what a genome is, not what a search happens to propose.
BOUNDS = {
    "lr": (1e-5, 1e-1),
    "beta1": (0.0, 0.999),
    "beta2": (0.0, 0.9999),
    "eps": (1e-10, 1e-4),
    "weight_decay": (0.0, 1e-2),
}
ALPHA_BOUND = 5.0
_ALIASES = {"SQRT_GRAD": "UNIT_GRAD"}  # the published repository's name


@explain_keywords
@dataclass(frozen=True, kw_only=True)
class TermGenome(Candidate):
    """An update rule as a weighted sum of one to four primitive terms, with its hyperparameters.

    Attributes:
        terms: One to four of `TERMS`, or of other packages' terms, see `optevo.optim.terms.table.use_term`;
            repeats allowed (`SQRT_GRAD` is read as `UNIT_GRAD`).
        alphas: One weight in [-5, 5] a term.
        lr: Peak learning rate in [1e-5, 1e-1].
        beta1: Decay of the first moment in [0, 0.999].
        beta2: Decay of the second moment in [0, 0.9999].
        eps: ε in [1e-10, 1e-4], added outside the root.
        weight_decay: Decoupled weight decay in [0, 1e-2]: w ← (1 − η·weight_decay)·w.
        use_momentum: Whether m is an average; otherwise m = g.
        use_second_moment: Whether v is an average; otherwise v = g².
        bias_correction: Whether averaged moments are divided by 1 − βᵏ.
        gradient_clipping: Whether g is first clipped to ±clip_value, element by element.
        clip_value: That limit, > 0.
        warmup: Whether the learning rate rises linearly over the first `warmup_steps` steps.
        warmup_steps: Length of the warmup in steps, ≥ 1.
        cosine_decay: Whether the learning rate falls to 0 along half a cosine over the whole run.

    Raises:
        ValueError: A gene is outside its domain; the message names it and the value.

    Example:
        >>> import torch
        >>> from optevo import TermGenome
        >>> genome = TermGenome(terms=("ADAM_TERM", "SIGN_GRAD"), alphas=(1.0, 0.2), lr=1e-3)
        >>> genome.formula()
        'Δ = 1·m/(√v + 1e-08) + 0.2·sign(g)'
        >>> optimizer, schedule = genome.build(torch.nn.Linear(4, 2).parameters(), total_steps=1000)
    """

    terms: tuple[str, ...]
    alphas: tuple[float, ...]
    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 1e-4
    use_momentum: bool = True
    use_second_moment: bool = True
    bias_correction: bool = False
    gradient_clipping: bool = False
    clip_value: float = 1.0
    warmup: bool = False
    warmup_steps: int = 100
    cosine_decay: bool = False

    def __post_init__(self) -> None:
        for name in ("terms", "alphas"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Iterable):
                raise ValueError(f"Invalid {name}: {value!r} is not a sequence")
        if unnamed := [t for t in self.terms if not isinstance(t, str)]:
            raise ValueError(f"Invalid terms: {unnamed[0]!r} is not the name of a term")
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, plain(getattr(self, field.name)))
        object.__setattr__(self, "terms", tuple(_ALIASES.get(t, t) for t in map(plain, self.terms)))
        object.__setattr__(self, "alphas", tuple(_real("alphas", plain(a)) for a in self.alphas))
        for name in (*BOUNDS, "clip_value"):
            object.__setattr__(self, name, _real(name, getattr(self, name)))
        self._check_terms()
        self._check_scalars()

    def _check_terms(self) -> None:
        if not 1 <= len(self.terms) <= MAX_TERMS:
            raise ValueError(f"Invalid terms: {len(self.terms)} of them, a genome has 1 to {MAX_TERMS}")
        for term in self.terms:
            if term in TABLE:
                continue
            if is_reference(term) or term in [*ALL_TERMS] or term not in ALL_TERMS:
                others = ALL_TERMS.installable
                raise ValueError(f"Invalid terms: unknown {term!r}, {hint(term, TABLE)}; {others}")
            use_term(term)
        if len(self.alphas) != len(self.terms):
            raise ValueError(f"Invalid alphas: {len(self.alphas)} weights for {len(self.terms)} terms")
        if bad := [a for a in self.alphas if not abs(a) <= ALPHA_BOUND]:
            raise ValueError(f"Invalid alphas: {bad[0]}, expected within ±{ALPHA_BOUND:g}")

    def _check_scalars(self) -> None:
        for name, (low, high) in BOUNDS.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"Invalid {name}: {getattr(self, name)}, expected in [{low:g}, {high:g}]")
        if not 0 < self.clip_value < math.inf:
            raise ValueError(f"Invalid clip_value: {self.clip_value}, expected a finite number > 0")
        if isinstance(self.warmup_steps, bool) or not isinstance(self.warmup_steps, int):
            raise ValueError(f"Invalid warmup_steps: {self.warmup_steps!r}, expected an int")
        if not 1 <= self.warmup_steps < 2**31:
            raise ValueError(f"Invalid warmup_steps: {self.warmup_steps}, expected 1 to {2**31 - 1}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "bool" and not isinstance(value, bool):
                raise ValueError(f"Invalid {field.name}: {value!r}, expected True or False")

    def rule(self) -> Rule:
        """The canonical rule that this genome is."""
        return collapse(
            self.terms,
            self.alphas,
            beta1=self.beta1 if self.use_momentum else 0.0,
            beta2=self.beta2 if self.use_second_moment else 0.0,
            eps=self.eps,
            bias_correction=self.bias_correction,
            clip_value=self.clip_value if self.gradient_clipping else None,
        )

    def schedule(self, total_steps: int) -> WarmupCosine:
        """The genome's learning-rate factor over a run of `total_steps` steps."""
        steps = self.warmup_steps if self.warmup else 0
        return WarmupCosine(total_steps, warmup_steps=steps, cosine=self.cosine_decay)

    def step_size(self) -> float:
        """Learning rate times the sum of the coefficients' magnitudes."""
        return self.lr * math.fsum(map(abs, self.rule().coefficients))

    def canonical(self) -> str:
        """A string that two genomes share only when they are the same optimizer with the same schedule.

        Terms are folded and what is never read is left out; (2·lr, weight_decay/2, alphas/2), which follows
        the same path up to rounding, is another string.
        """
        rule = self.rule().to_dict()
        form = {name: value + 0.0 if type(value) is float else value for name, value in rule.items()}
        # A warmup of one step multiplies the first rate by 1: no warmup at all.
        warmup = self.warmup_steps if self.warmup and self.warmup_steps > 1 else 0
        form |= {"lr": self.lr, "weight_decay": self.weight_decay, "warmup_steps": warmup}
        form["cosine_decay"] = self.cosine_decay
        return json.dumps(form, sort_keys=True, separators=(",", ":"))

    def formula(self) -> str:
        """The update as a line to read, for instance ``Δ = 3.64·m/(√v + 5.44e-09) + 0.734·sign(g)``."""
        return self.rule().formula()

    def describe(self) -> str:
        """What the formula leaves out, on one line: rates, betas, weight decay, schedule."""
        rule, parts = self.rule(), [f"lr {self.lr:.3g}"]
        parts += [f"β₁ {rule.beta1:.3g}"] if rule.beta1 is not None else []
        parts += [f"β₂ {rule.beta2:.4g}"] if rule.beta2 is not None else []
        parts += [f"weight decay {self.weight_decay:.3g}"]
        return ", ".join([*parts, self.describe_schedule()])

    def describe_schedule(self) -> str:
        """The learning-rate schedule in words."""
        parts = [f"warmup over {self.warmup_steps} steps"] if self.warmup else []
        parts += ["cosine decay"] if self.cosine_decay else []
        return " and ".join(parts) or "constant rate"

    def gate(self) -> str | None:
        """See `optevo.optim.terms.gate`; imports torch."""
        from optevo.optim.terms.gate import gate  # noqa: PLC0415  torch only where it is needed

        return gate(self.rule())

    def optimizer(self, params: Iterable[Any], **options: Any) -> GenomeOptimizer:
        """A `GenomeOptimizer` of this genome over `params`; options are those of its constructor."""
        from optevo.optim.terms.optimizer import GenomeOptimizer  # noqa: PLC0415  torch only where it is needed

        return GenomeOptimizer(params, self, **options)

    def scheduler(self, optimizer: Optimizer, total_steps: int) -> LambdaLR:
        """The genome's warmup and cosine decay on any optimizer; step it once a training step."""
        from torch.optim.lr_scheduler import LambdaLR  # noqa: PLC0415  torch only where it is needed

        return LambdaLR(optimizer, self.schedule(total_steps))

    def build(
        self, params: Iterable[Any], total_steps: int, **options: Any
    ) -> tuple[GenomeOptimizer, LambdaLR]:
        """Optimizer and scheduler for a run of `total_steps` steps."""
        optimizer = self.optimizer(params, **options)
        return optimizer, self.scheduler(optimizer, total_steps)

    def source(self, class_name: str, provenance: Mapping[str, str]) -> str:
        """The optimizer as one self-contained file, see `optevo.optim.export_source`."""
        from optevo.optim.terms.export import export_source  # noqa: PLC0415  torch only where it is needed

        return export_source(self, class_name=class_name, provenance=provenance)

    def to_dict(self) -> dict[str, Any]:
        """The genes as JSON-ready values."""
        return {**dataclasses.asdict(self), "terms": list(self.terms), "alphas": list(self.alphas)}

    @classmethod
    def from_dict(cls, genes: dict[str, Any]) -> TermGenome:
        """The inverse of `to_dict`.

        Raises:
            ValueError: A gene is unknown, missing or outside its domain.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        if unknown := sorted(set(genes) - set(fields)):
            raise ValueError(f"Invalid genome: unknown gene {unknown[0]!r}, {hint(unknown[0], fields)}")
        required = [n for n, f in fields.items() if f.default is dataclasses.MISSING]
        if missing := [n for n in required if n not in genes]:
            raise ValueError(f"Invalid genome: gene {missing[0]!r} is missing")
        return cls(**genes)


def _real(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"Invalid {name}: {value!r}, expected a number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"Invalid {name}: an integer too large for a float") from None
