"""The table of terms: a new term is one entry here. Pure Python.

A genome's terms fold into the canonical update, a sum with one coefficient for each entry of `BASIS`::

    Δ = a·g + b·m̂ + (c·g + d·m̂)/(√v̂ + ε) + s·sign(g) + u·g/(|g| + ε)

From an entry follow the rule and its formula, the eager and the compiled update, the readable reference, the
exported file, and the tests. The first six entries are fused by hand in `kernels`, whose order of operations
is that of stored results; later ones are added to them one by one. A term that the basis can say already,
as Nesterov's, is an entry of `TABLE` alone.

The terms are choices of the search space, and Optuna lets no study's choices change: a study that was begun
with fewer terms goes on under the optevo that began it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optevo.optim.terms.kernels import Lists

#: The value of an entry for one tensor, of (g, m, √v, ε): moments bias-corrected where the genome says so.
Value = Callable[[Any, Any, Any, Any], Any]


@dataclass(frozen=True)
class Basis:
    """One summand of the canonical update.

    Attributes:
        name: Of its coefficient, in `Rule` and in canonical forms.
        symbol: For formulas, in which ``{m}``, ``{root}`` and ``{eps}`` are filled in.
        value: Its value for one tensor.
        foreach: Subtracts it, times a rate, from lists of parameters.
        source: The same as a line of an exported file; ``{rate}`` is filled in.
        reads: What it needs besides g: of "m"; "root", which is √v̂ + ε, or |g| + ε without a second moment;
            "magnitude", which is |g| + ε; "eps"; and, beyond the first six entries, whose rates hold its
            correction, "m-hat" for m̂ as the list ``m_hat``. Default: nothing.
        without_m: The entry that it is where m = g. Default: None, itself.
        without_v: The entry that it is where √v = |g|. Default: None, itself.
        clips: Whether clipping the gradient can change it. Default: True.
    """

    name: str
    symbol: str
    value: Value
    foreach: Callable[[Lists, float], None]
    source: str
    reads: frozenset[str] = frozenset()
    without_m: str | None = None
    without_v: str | None = None
    clips: bool = True

    def __post_init__(self) -> None:
        if "m-hat" in self.reads and "m" not in self.reads:
            raise ValueError(f"Invalid reads: {self.name!r} reads m-hat, which is made of m: name both")


@dataclass(frozen=True)
class Term:
    """A primitive term of genomes, as it is worded.

    Attributes:
        shares: What it adds to the coefficients, given β₁.
        value: Its value for one tensor of (g, m, √v, ε, β₁); what the reference computes.
    """

    shares: Callable[[float], Mapping[str, float]]
    value: Callable[[Any, Any, Any, float, float], Any]


BASIS: dict[str, Basis] = {
    entry.name: entry
    for entry in (
        Basis(
            "grad",
            "g",
            lambda g, m, root, eps: g,
            lambda t, rate: t.subtract(t.grads, rate),
            "torch._foreach_add_(params, grads, alpha=-({rate}))",
        ),
        Basis(
            "momentum",
            "{m}",
            lambda g, m, root, eps: m,
            lambda t, rate: t.subtract(t.exp_avgs, rate),
            "torch._foreach_add_(params, m, alpha=-({rate}))",
            reads=frozenset({"m"}),
            without_m="grad",
        ),
        Basis(
            "rms",
            "g/({root} + {eps})",
            lambda g, m, root, eps: g / (root + eps),
            lambda t, rate: t.subtract_quotient(t.grads, t.root, rate),
            "torch._foreach_addcdiv_(params, grads, root, -({rate}))",
            reads=frozenset({"root", "eps"}),
            without_v="unit",
        ),
        Basis(
            "adam",
            "{m}/({root} + {eps})",
            lambda g, m, root, eps: m / (root + eps),
            lambda t, rate: t.subtract_quotient(t.exp_avgs, t.root, rate),
            "torch._foreach_addcdiv_(params, m, root, -({rate}))",
            reads=frozenset({"m", "root", "eps"}),
            without_m="rms",
        ),
        Basis(
            "sign",
            "sign(g)",
            lambda g, m, root, eps: g.sign(),
            lambda t, rate: t.subtract(t.sign, rate),
            "torch._foreach_add_(params, torch._foreach_sign(grads), alpha=-({rate}))",
            clips=False,
        ),
        Basis(
            "unit",
            "g/(|g| + {eps})",
            lambda g, m, root, eps: g / (g.abs() + eps),
            lambda t, rate: t.subtract_quotient(t.grads, t.magnitude, rate),
            "torch._foreach_addcdiv_(params, grads, magnitude, -({rate}))",
            reads=frozenset({"magnitude", "eps"}),
        ),
    )
}
#: What `kernels` computes by hand; later entries follow one by one.
FUSED = ("grad", "momentum", "rms", "adam", "sign", "unit")


def _alone(name: str) -> Term:
    """The term that is one entry of the basis."""
    return Term(lambda beta1: {name: 1.0}, lambda g, m, root, eps, beta1: BASIS[name].value(g, m, root, eps))


TABLE: dict[str, Term] = {
    "GRAD": _alone("grad"),
    "MOMENTUM": _alone("momentum"),
    "RMS_NORM": _alone("rms"),
    "ADAM_TERM": _alone("adam"),
    "SIGN_GRAD": _alone("sign"),
    "UNIT_GRAD": _alone("unit"),
    "NESTEROV": Term(
        lambda beta1: {"grad": beta1, "momentum": 1 - beta1},
        lambda g, m, root, eps, beta1: m + beta1 * (g - m),
    ),
}
#: Names of the terms, in the order of the search space's choices.
TERMS = tuple(TABLE)


@functools.lru_cache(maxsize=256)
def reads_of(coefficients: tuple[float, ...]) -> frozenset[str]:
    """All that the entries with coefficients other than 0 read."""
    used = (entry for entry, c in zip(BASIS.values(), coefficients, strict=False) if c != 0)
    return frozenset[str]().union(*(entry.reads for entry in used))
