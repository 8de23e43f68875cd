"""The table of terms: a new term is one entry here. Pure Python.

A genome's terms fold into the canonical update, a sum with one coefficient for each entry of `BASIS`::

    Δ = a·g + b·m̂ + (c·g + d·m̂)/(√v̂ + ε) + s·sign(g) + u·g/(|g| + ε)

From an entry follow the rule and its formula, the eager and the compiled update, the readable reference, the
exported file, and the tests. The first six entries are fused by hand in `kernels`, whose order of operations
is that of stored results; later ones are added to them one by one. A term that the basis can say already,
as Nesterov's, is an entry of `TABLE` alone.

`LATER` and `MODERN_TABLE` are what the modern catalogue has besides: entries with state of their own, or that
see a whole matrix, each a pass of its own in `modern_optimizer`.

The terms are choices of the search space, and Optuna lets no study's choices change: a study that was begun
with fewer terms goes on under the optevo that began it. So terms of other packages are in no study that does
not name them, see `use_term`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from optevo.lazy import Extensible


class Inputs(NamedTuple):
    """What the value of an entry for one tensor is made of.

    Attributes:
        g: The gradient.
        m: The first moment, bias-corrected where the genome says so; g without one.
        root: √v̂, |g| without a second moment.
        eps: ε.
        beta1: β₁.
        slow: The slow moment.
        before: The first moment as it was before this step, without correction.
        beta_lion: Its weight in LION.
    """

    g: Any
    m: Any
    root: Any
    eps: Any
    beta1: Any = None
    slow: Any = None
    before: Any = None
    beta_lion: Any = None


Value = Callable[[Inputs], Any]


@dataclass(frozen=True)
class Basis:
    """One summand of the canonical update.

    Attributes:
        name: Of its coefficient, in `Rule` and in canonical forms.
        symbol: For formulas, in which ``{m}``, ``{root}`` and ``{eps}`` are filled in.
        value: Its value for one tensor, where one suffices.
        foreach: Subtracts it, times a rate, from lists of parameters: `Lists`, or `ModernLists` for `LATER`.
        source: The same as a line of an exported file; ``{rate}`` is filled in.
        reads: What it needs besides g: of "m"; "root", which is √v̂ + ε, or |g| + ε without a second moment;
            "magnitude", which is |g| + ε; "eps"; and, beyond the first six entries, whose rates hold its
            correction, "m-hat" for m̂ as the list ``m_hat``. Default: nothing.
            Of `LATER` also "slow", the slow moment, and "before", the first moment before this step.
        without_m: The entry that it is where m = g. Default: None, itself.
        without_v: The entry that it is where √v = |g|. Default: None, itself.
        clips: Whether clipping the gradient can change it. Default: True.
        of_vectors: The entry that it is for parameters of fewer than two dimensions. Default: None, itself.
    """

    name: str
    symbol: str
    value: Value
    foreach: Callable[[Any, float], None]
    source: str
    reads: frozenset[str] = frozenset()
    without_m: str | None = None
    without_v: str | None = None
    clips: bool = True
    of_vectors: str | None = None

    def __post_init__(self) -> None:
        if "m-hat" in self.reads and "m" not in self.reads:
            raise ValueError(f"Invalid reads: {self.name!r} reads m-hat, which is made of m: name both")


@dataclass(frozen=True)
class Term:
    """A primitive term of genomes, as it is worded.

    Attributes:
        shares: What it adds to the coefficients, given β₁.
        value: Its value for one tensor; what the reference computes.
    """

    shares: Callable[[float], Mapping[str, float]]
    value: Value


BASIS: dict[str, Basis] = {
    entry.name: entry
    for entry in (
        Basis(
            "grad",
            "g",
            lambda x: x.g,
            lambda t, rate: t.subtract(t.grads, rate),
            "torch._foreach_add_(params, grads, alpha=-({rate}))",
        ),
        Basis(
            "momentum",
            "{m}",
            lambda x: x.m,
            lambda t, rate: t.subtract(t.exp_avgs, rate),
            "torch._foreach_add_(params, m, alpha=-({rate}))",
            reads=frozenset({"m"}),
            without_m="grad",
        ),
        Basis(
            "rms",
            "g/({root} + {eps})",
            lambda x: x.g / (x.root + x.eps),
            lambda t, rate: t.subtract_quotient(t.grads, t.root, rate),
            "torch._foreach_addcdiv_(params, grads, root, -({rate}))",
            reads=frozenset({"root", "eps"}),
            without_v="unit",
        ),
        Basis(
            "adam",
            "{m}/({root} + {eps})",
            lambda x: x.m / (x.root + x.eps),
            lambda t, rate: t.subtract_quotient(t.exp_avgs, t.root, rate),
            "torch._foreach_addcdiv_(params, m, root, -({rate}))",
            reads=frozenset({"m", "root", "eps"}),
            without_m="rms",
        ),
        Basis(
            "sign",
            "sign(g)",
            lambda x: x.g.sign(),
            lambda t, rate: t.subtract(t.sign, rate),
            "torch._foreach_add_(params, torch._foreach_sign(grads), alpha=-({rate}))",
            clips=False,
        ),
        Basis(
            "unit",
            "g/(|g| + {eps})",
            lambda x: x.g / (x.g.abs() + x.eps),
            lambda t, rate: t.subtract_quotient(t.grads, t.magnitude, rate),
            "torch._foreach_addcdiv_(params, grads, magnitude, -({rate}))",
            reads=frozenset({"magnitude", "eps"}),
        ),
    )
}
#: What `kernels` computes by hand; later entries follow one by one.
FUSED = ("grad", "momentum", "rms", "adam", "sign", "unit")

#: What the modern catalogue's canonical update has besides `BASIS`.
LATER: dict[str, Basis] = {
    entry.name: entry
    for entry in (
        Basis(  # Chen et al., Symbolic Discovery of Optimization Algorithms, arXiv 2302.06675
            "lion",
            "sign({lion}·m + {rest}·g)",
            lambda x: (x.before + (1 - x.beta_lion) * (x.g - x.before)).sign(),
            lambda t, rate: t.subtract(t.lion, rate),
            "torch._foreach_add_(delta, lion, alpha={rate})",
            reads=frozenset({"m", "before"}),
            without_m="sign",
        ),
        Basis(  # Pagliardini et al., The AdEMAMix Optimizer, arXiv 2409.03137
            "slow",
            "s/({root} + {eps})",
            lambda x: x.slow / (x.root + x.eps),
            lambda t, rate: t.subtract_quotient(t.slow, t.root, rate),
            "torch._foreach_addcdiv_(delta, slow, root, {rate})",
            reads=frozenset({"slow", "root", "eps"}),
        ),
        Basis(  # Jordan et al., Muon; the scale is that of Liu et al., arXiv 2502.16982
            "ortho",
            "orth({m_nesterov})",
            # Of which it is the orthogonal factor, times the scale; m is not corrected.
            lambda x: x.g + x.beta1**2 * (x.before - x.g),
            lambda t, rate: t.subtract(t.ortho, rate),
            "torch._foreach_add_(delta, ortho, alpha={rate})",
            reads=frozenset({"m"}),
            of_vectors="adam",
        ),
    )
}


def _alone(name: str) -> Term:
    """The term that is one entry of the basis."""
    entry = {**BASIS, **LATER}[name]
    return Term(lambda beta1: {name: 1.0}, entry.value)


TABLE: dict[str, Term] = {
    "GRAD": _alone("grad"),
    "MOMENTUM": _alone("momentum"),
    "RMS_NORM": _alone("rms"),
    "ADAM_TERM": _alone("adam"),
    "SIGN_GRAD": _alone("sign"),
    "UNIT_GRAD": _alone("unit"),
    "NESTEROV": Term(
        lambda beta1: {"grad": beta1, "momentum": 1 - beta1},
        lambda x: x.m + x.beta1 * (x.g - x.m),
    ),
}
#: Names of the terms, in the order of the search space's choices.
TERMS = tuple(TABLE)

MODERN_TABLE: dict[str, Term] = {
    **TABLE,
    "LION": _alone("lion"),
    "SLOW": _alone("slow"),
    "ORTHO": _alone("ortho"),
}
#: Names of the modern catalogue's terms, likewise.
MODERN_TERMS = tuple(MODERN_TABLE)


#: Every term by name: both catalogues', and those of other packages, each a `Basis` or a `Term`.
ALL_TERMS: Extensible[Basis | Term] = Extensible(
    "term",
    "a Basis or a Term of optevo.optim.terms.table",
    lambda one: isinstance(one, (Basis, Term)),
    MODERN_TABLE,
)
_ADDED: dict[str, Basis | Term] = {}  # of others, as they were found
_READABLE = {"m", "m-hat", "root", "magnitude", "eps"}  # of what is no part of the modern catalogue
# What the coefficients of a rule stand beside in its canonical form.
_TAKEN = {"beta1", "beta2", "eps", "bias_correction", "clip_value", "others"}


def use_term(name: str) -> str:
    """Have genomes know a term that may be another package's: it joins `TABLE`, and its entry `BASIS`.

    Args:
        name: Of a term, of an entry point in the group ``optevo.terms``, or ``module:NAME``.

    Returns:
        The term's name in genomes, without the module.

    Raises:
        UserError: There is no such term, or it cannot be imported.
        ValueError: It is none that a genome can have.
    """
    if name in TABLE:
        return name
    short, entry = name.rpartition(":")[2], ALL_TERMS[name]
    if _ADDED.get(short) == entry:
        return short
    if short in {**MODERN_TABLE, **TABLE}:
        raise ValueError(f"Invalid term {name!r}: there is another of the name {short!r}, rename it")
    if isinstance(entry, Basis):
        _check_entry(name, entry)
        BASIS[entry.name] = entry
        TABLE[short] = Term(lambda beta1: {entry.name: 1.0}, entry.value)
    else:
        if unknown := entry.shares(0.5).keys() - BASIS:
            raise ValueError(f"Invalid term {name!r}: shares {min(unknown)!r}, expected {', '.join(BASIS)}")
        TABLE[short] = entry
    _ADDED[short] = entry
    return short


def _check_entry(term: str, entry: Basis) -> None:
    name, readable = entry.name, ", ".join(sorted(_READABLE))
    if not re.fullmatch(r"[a-z]\w*", name) or name in {*BASIS, *LATER, *_TAKEN}:
        raise ValueError(f"Invalid term {term!r}: the name {name!r} of its entry is taken, or no small word")
    if unknown := entry.reads - _READABLE:
        raise ValueError(f"Invalid term {term!r}: reads {min(unknown)!r}, expected some of {readable}")


def reads_of(coefficients: tuple[float, ...]) -> frozenset[str]:
    """All that the entries with coefficients other than 0 read."""
    return _reads_of(coefficients, tuple(BASIS))


@functools.lru_cache(maxsize=256)
def _reads_of(coefficients: tuple[float, ...], names: tuple[str, ...]) -> frozenset[str]:
    used = (BASIS[name] for name, c in zip(names, coefficients, strict=False) if c != 0)
    return frozenset[str]().union(*(entry.reads for entry in used))
