"""One rule of the modern catalogue in canonical form: a coefficient for each entry of the longer basis.

Pure Python.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from optevo.optim.terms.rule import fold
from optevo.optim.terms.table import BASIS, FUSED, LATER, MODERN_TABLE

ENTRIES = {**{name: BASIS[name] for name in FUSED}, **LATER}
#: Entries that see the size of the first moment.
READS_SIZE = tuple(name for name in FUSED if "m" in BASIS[name].reads)


@dataclass(frozen=True)
class ModernRule:
    """What a weighted sum of terms comes to for some of the parameters; what is never read is None.

    Attributes:
        coefficients: By the name of the basis's entry, those other than 0, in the order of the basis.
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        beta_slow: Decay of the slow moment.
        beta_lion: Weight of the first moment in LION.
        eps: ε.
        bias_correction: Whether the moments that are read, but for the slow one, are bias-corrected.
        clip_value: Limit of |g| before anything else.
        cautious: Whether elements where Δ and the gradient differ in sign are masked.
    """

    coefficients: Mapping[str, float]
    beta1: float | None = None
    beta2: float | None = None
    beta_slow: float | None = None
    beta_lion: float | None = None
    eps: float | None = None
    bias_correction: bool = False
    clip_value: float | None = None
    cautious: bool = False

    def of_vectors(self) -> dict[str, float]:
        """The coefficients for parameters of fewer than two dimensions."""
        return for_vectors(self.coefficients, m=self.beta1 is not None, v=self.beta2 is not None)

    def alone(self, *, vectors: bool) -> ModernRule:
        """What it is for vectors alone, or for all but vectors."""
        return _only_read(self, self.of_vectors() if vectors else self.coefficients, ())

    def formula(self, of_vectors: bool = False) -> str:
        """The update Δ as one line, numbers to three digits."""
        coefficients = self.of_vectors() if of_vectors else self.coefficients
        hat = "\u0302" if self.bias_correction else ""
        lion = self.beta_lion or 0.0
        filled = {
            "m": f"m{hat}",
            "root": f"√v{hat}" if self.beta2 is not None else "|g|",
            "eps": f"{self.eps:.3g}" if self.eps is not None else "",
            "lion": f"{lion:.3g}",
            "rest": f"{1 - lion:.3g}",
            "m_nesterov": "g" if self.beta1 is None else f"{1 - self.beta1:.3g}·g + {self.beta1:.3g}·m",
        }
        text = ""
        for name, coefficient in coefficients.items():
            sign = "−" if coefficient < 0 else "+" if text else ""
            text += f" {sign} " if text else sign
            text += f"{abs(coefficient):.3g}·{ENTRIES[name].symbol.format(**filled)}"
        text = text or "0"
        if self.cautious:
            text = f"cautious({text})"
        if self.clip_value is not None:
            text += f"   with g clipped to ±{self.clip_value:.3g}"
        return text


def for_vectors(coefficients: Mapping[str, float], *, m: bool, v: bool) -> dict[str, float]:
    """What coefficients are for parameters of fewer than two dimensions, in the order of the basis.

    Args:
        coefficients: By the name of the entry.
        m: Whether there is a first moment; without, m = g.
        v: Whether there is a second moment; without, √v = |g|.
    """
    folded: dict[str, float] = {}
    for name, coefficient in coefficients.items():
        target = ENTRIES[name].of_vectors
        if target is None:
            target = name
        else:
            target = (not m and ENTRIES[target].without_m) or target
            target = (not v and ENTRIES[target].without_v) or target
        folded[target] = folded.get(target, 0.0) + coefficient
    return {name: folded[name] for name in ENTRIES if folded.get(name, 0.0) != 0}


def reads(names: Iterable[str]) -> frozenset[str]:
    """All that entries read, see `Basis.reads`."""
    return frozenset[str]().union(*(ENTRIES[name].reads for name in names))


def collapse_modern(
    terms: Sequence[str],
    alphas: Sequence[float],
    *,
    beta1: float,
    beta2: float,
    beta_slow: float,
    beta_lion: float,
    eps: float,
    bias_correction: bool,
    clip_value: float | None,
    cautious: bool,
) -> ModernRule:
    """Fold weighted terms into the coefficients; arguments as of `optevo.optim.terms.rule.collapse`."""
    if beta_lion == 0:  # sign(0·m + 1·g)
        terms = ["SIGN_GRAD" if term == "LION" else term for term in terms]
    found = fold(terms, alphas, beta1=beta1, beta2=beta2, table=MODERN_TABLE, basis=ENTRIES)
    rule = ModernRule(
        {name: value for name, value in found.items() if value != 0},
        beta1=beta1 or None,
        beta2=beta2 or None,
        beta_slow=beta_slow,
        beta_lion=beta_lion,
        eps=eps,
        bias_correction=bias_correction,
        clip_value=clip_value,
        cautious=cautious,
    )
    return _only_read(rule, rule.coefficients, rule.of_vectors())


def _only_read(rule: ModernRule, coefficients: Mapping[str, float], others: Iterable[str]) -> ModernRule:
    """The rule with these coefficients, without the numbers that neither they nor other entries read."""
    names = (*coefficients, *others)
    read = reads(names)
    m, v = rule.beta1 is not None and "m" in read, rule.beta2 is not None and "root" in read
    return ModernRule(
        coefficients,
        beta1=rule.beta1 if m else None,
        beta2=rule.beta2 if v else None,
        beta_slow=rule.beta_slow if "slow" in read else None,
        beta_lion=rule.beta_lion if "before" in read else None,
        eps=rule.eps if "eps" in read else None,
        # LION and ORTHO don't see how large m is.
        bias_correction=rule.bias_correction and (v or (m and any(name in READS_SIZE for name in names))),
        clip_value=rule.clip_value if any(ENTRIES[name].clips for name in names) else None,
        cautious=rule.cautious and bool(coefficients),
    )
