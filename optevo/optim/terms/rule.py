"""The canonical update: every term genome collapses to six coefficients.

    Δ = a·g + b·m̂ + (c·g + d·m̂)/(√v̂ + ε) + s·sign(g) + u·g/(|g| + ε)

Two genomes with the same rule are the same optimizer, one kernel serves them all, and a moment that no
coefficient reads takes no memory. Pure Python: nothing here needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

TERMS = ("GRAD", "MOMENTUM", "RMS_NORM", "ADAM_TERM", "SIGN_GRAD", "UNIT_GRAD", "NESTEROV")


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

    @property
    def coefficients(self) -> tuple[float, float, float, float, float, float]:
        """(a, b, c, d, s, u)."""
        return self.grad, self.momentum, self.rms, self.adam, self.sign, self.unit

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
        parts = [
            (self.grad, "g"),
            (self.momentum, m),
            (self.rms, f"g/({root} + {eps})"),
            (self.adam, f"{m}/({root} + {eps})"),
            (self.sign, "sign(g)"),
            (self.unit, f"g/(|g| + {eps})"),
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
    """Fold weighted terms into the six coefficients.

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
    weights: dict[str, list[float]] = {term: [] for term in TERMS}
    for term, alpha in zip(terms, alphas, strict=True):
        weights[term].append(alpha)
    # fsum is exact, so the order of equal terms cannot change the last bit of a coefficient.
    total = {term: math.fsum(parts) for term, parts in weights.items()}
    nesterov = weights["NESTEROV"]
    a = math.fsum([*weights["GRAD"], *(beta1 * n for n in nesterov)])
    b = math.fsum([*weights["MOMENTUM"], *((1 - beta1) * n for n in nesterov)])
    c, d, s, u = total["RMS_NORM"], total["ADAM_TERM"], total["SIGN_GRAD"], total["UNIT_GRAD"]
    if beta1 == 0:  # m = g
        a = math.fsum([*weights["GRAD"], *weights["MOMENTUM"], *nesterov])
        c = math.fsum([*weights["RMS_NORM"], *weights["ADAM_TERM"]])
        b = d = 0.0
    if beta2 == 0:  # √v = |g|
        rms = weights["RMS_NORM"] + (weights["ADAM_TERM"] if beta1 == 0 else [])
        u = math.fsum([*weights["UNIT_GRAD"], *rms])
        c = 0.0
    reads_m = b != 0 or d != 0
    reads_v = beta2 != 0 and (c != 0 or d != 0)
    return Rule(
        grad=a,
        momentum=b,
        rms=c,
        adam=d,
        sign=s,
        unit=u,
        beta1=beta1 if reads_m else None,
        beta2=beta2 if reads_v else None,
        eps=eps if c or d or u else None,
        bias_correction=bias_correction and (reads_m or reads_v),
        clip_value=clip_value if a or b or c or d or u else None,  # a sign is the same, clipped or not
    )
