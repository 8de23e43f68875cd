"""The canonical update: every term genome collapses to one coefficient for each entry of the table's basis.

    Δ = a·g + b·m̂ + (c·g + d·m̂)/(√v̂ + ε) + s·sign(g) + u·g/(|g| + ε)

Two genomes with the same rule are the same optimizer, one kernel serves them all, and a moment that no
coefficient reads takes no memory. Pure Python: nothing here needs torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optevo.optim.terms.table import BASIS, FUSED, TABLE, Basis, Term, reads_of


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One update rule in canonical form; a field that the update never reads is None.

    Attributes:
        grad: a, the coefficient of g.
        momentum: b, of the first moment m̂.
        rms: c, of g/(√v̂ + ε).
        adam: d, of m̂/(√v̂ + ε).
        sign: s, of sign(g).
        unit: u, of g/(|g| + ε).
        beta1: Decay of m, None where m is not read.
        beta2: Decay of v, None where v is not read; then √v̂ is |g|.
        eps: ε, None where nothing is divided.
        bias_correction: Whether the moments that are read are bias-corrected.
        clip_value: Limit of |g| before anything else, None for no clipping.
        others: Coefficients of what the basis has besides these six, by name; those that are 0 left out.

    Example:
        >>> from optevo.optim import Rule, TermGenome
        >>> genome = TermGenome(terms=("SIGN_GRAD", "SIGN_GRAD"), alphas=(0.5, 1.5), lr=1e-3)
        >>> genome.rule() == Rule(sign=2.0)
        True
    """

    grad: float = 0.0
    momentum: float = 0.0
    rms: float = 0.0
    adam: float = 0.0
    sign: float = 0.0
    unit: float = 0.0
    beta1: float | None = None
    beta2: float | None = None
    eps: float | None = None
    bias_correction: bool = False
    clip_value: float | None = None
    others: tuple[tuple[str, float], ...] = ()

    @property
    def coefficients(self) -> tuple[float, ...]:
        """One for each entry of the basis: (a, b, c, d, s, u), then `others`."""
        others = dict(self.others)
        six = (self.grad, self.momentum, self.rms, self.adam, self.sign, self.unit)
        return *six, *(others.get(name, 0.0) for name in BASIS if name not in FUSED)

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, for canonical forms; an entry that the basis gains changes none of them."""
        form = dataclasses.asdict(self)
        return form | dict(form.pop("others"))

    @property
    def reads_m(self) -> bool:
        """Whether the update needs the first moment as state."""
        return self.beta1 is not None

    @property
    def reads_v(self) -> bool:
        """Whether the update needs the second moment as state."""
        return self.beta2 is not None

    def formula(self) -> str:
        """The update Δ as one line, numbers to three digits; the step is w ← (1 − η·λ)·w − η·Δ."""
        m = "m̂" if self.bias_correction else "m"
        v = "v̂" if self.bias_correction else "v"
        eps = f"{self.eps:.3g}" if self.eps is not None else ""
        root = f"√{v}" if self.reads_v else "|g|"
        filled = {"m": m, "root": root, "eps": eps}
        parts = [
            (coefficient, entry.symbol.format(**filled))
            for coefficient, entry in zip(self.coefficients, BASIS.values(), strict=True)
        ]
        text = ""
        for coefficient, term in parts:
            if coefficient:
                sign = "−" if coefficient < 0 else "+" if text else ""
                text += f" {sign} " if text else sign
                text += f"{abs(coefficient):.3g}·{term}"
        if self.clip_value is not None:
            text += f"   with g clipped to ±{self.clip_value:.3g}"
        return f"Δ = {text or '0'}"


def collapse(
    terms: Sequence[str],
    alphas: Sequence[float],
    *,
    beta1: float,
    beta2: float,
    eps: float,
    bias_correction: bool,
    clip_value: float | None,
) -> Rule:
    """Fold weighted terms into the coefficients.

    Args:
        terms: Names out of `TERMS`, repeats allowed.
        alphas: One weight a term.
        beta1: Decay of the first moment; 0 stands for "no momentum", since then m = g.
        beta2: Decay of the second moment; 0 stands for "no second moment", since then v = g².
        eps: ε.
        bias_correction: Whether moments in use are bias-corrected.
        clip_value: Limit of |g|, None for none.

    Returns:
        The rule, in which fields that cannot matter are None or False.
    """
    found = fold(terms, alphas, beta1=beta1, beta2=beta2)
    reads = reads_of(tuple(found.values()))
    reads_m, reads_v = "m" in reads, beta2 != 0 and "root" in reads
    return Rule(
        **{name: found[name] for name in FUSED},
        others=tuple((name, found[name]) for name in BASIS if name not in FUSED and found[name] != 0),
        beta1=beta1 if reads_m else None,
        beta2=beta2 if reads_v else None,
        eps=eps if "eps" in reads else None,
        bias_correction=bias_correction and (reads_m or reads_v),
        clip_value=clip_value if any(found[name] != 0 for name in BASIS if BASIS[name].clips) else None,
    )


def fold(
    terms: Sequence[str],
    alphas: Sequence[float],
    *,
    beta1: float,
    beta2: float,
    table: Mapping[str, Term] = TABLE,
    basis: Mapping[str, Basis] = BASIS,
) -> dict[str, float]:
    """The coefficient of each entry of the basis.

    Args:
        terms: Names out of the table, repeats allowed.
        alphas: One weight a term.
        beta1: Decay of the first moment, 0 for none.
        beta2: Decay of the second moment, 0 for none.
        table: Terms by name. Default: the published ones.
        basis: What they are made of. Default: that of the published ones.
    """
    parts: dict[str, list[float]] = {name: [] for name in basis}
    for term, alpha in zip(terms, alphas, strict=True):
        for name, share in table[term].shares(beta1).items():
            parts[name].append(share * alpha)
    for gone, other in ((beta1 == 0, "without_m"), (beta2 == 0, "without_v")):  # m = g, then √v = |g|
        for name, entry in basis.items():
            if gone and (target := getattr(entry, other)) is not None:
                parts[target] += parts[name]
                parts[name] = []
    # fsum is exact, so the order of equal terms cannot change the last bit of a coefficient.
    return {name: math.fsum(values) for name, values in parts.items()}
