"""The table of operands and operations: a new one is one entry here. Pure Python.

From an entry follow what the sampler chooses from, the optimizer, the exported file, texts, formulas and the
tests. What an entry computes is a function of `torch`, here ``t``, and of tensors; an exported file holds it
as `optevo.optim.graphs.tracing` writes it. Source: arXiv 2404.06679, its operands and operations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Moment:
    """An average that starts at zero: n ← β·n + (1 − β)·(a power of g).

    Attributes:
        beta: β.
        update: Updates it in place, of (torch, it, g).
        formula: The same for people.
    """

    beta: float
    update: Callable[[Any, Any, Any], Any]
    formula: str


MOMENTS = {
    "v": Moment(0.9, lambda t, v, g: v.lerp_(g, 0.1), "v ← 0.9·v + 0.1·g"),
    "s": Moment(0.99, lambda t, s, g: s.mul_(0.99).addcmul_(g, g, value=0.01), "s ← 0.99·s + 0.01·g²"),
    "c": Moment(
        0.999, lambda t, c, g: c.mul_(0.999).addcmul_(g * g, g, value=0.001), "λ ← 0.999·λ + 0.001·g³"
    ),
    # As the published program has it in Opt3, see `optevo.optim.graphs.presets`.
    "cg": Moment(
        0.999, lambda t, cg, g: cg.mul_(0.999).addcmul_(g, g, value=0.001), "γ ← 0.999·γ + 0.001·g²"
    ),
}


@dataclass(frozen=True)
class Operand:
    """A leaf of an update rule.

    Attributes:
        name: In texts.
        symbol: In formulas.
        latex: In LaTeX.
        function: Its value, of torch and of what it reads.
        reads: The names of that: "g", "w" for the weights, moments, and their bias corrections 1 − βᵏ, which
            are called "kv", "ks" and so on.
        searched: Whether it is one of the search space's twenty. Default: True.
    """

    name: str
    symbol: str
    latex: str
    function: Callable[..., Any]
    reads: tuple[str, ...]
    searched: bool = True


@dataclass(frozen=True)
class Operation:
    """A node of an update rule.

    Attributes:
        name: In texts.
        arity: How many inputs.
        function: Its value, of torch, the inputs, and what `keeps` and `draws` say.
        symbol: In formulas, of ``{x}`` and ``{y}``.
        latex: In LaTeX, of ``X`` and ``Y``.
        commutes: Whether the order of its inputs does not matter. Default: False.
        keeps: Whether it has a tensor of its own that starts at zero; then its function also takes that, and
            the step count k from 1 on. Default: False.
        then: Changes that tensor once the value is there, of the same. Default: None, nothing.
        draws: Whether its function also takes a random generator. Default: False.
        whole: Whether it looks at a parameter as a whole, not element by element. Default: False.
        searched: Whether it is one of the search space's 26 unary and 10 binary ones. Default: True.
    """

    name: str
    arity: int
    function: Callable[..., Any]
    symbol: str
    latex: str
    commutes: bool = False
    keeps: bool = False
    then: Callable[..., Any] | None = None
    draws: bool = False
    whole: bool = False
    searched: bool = True


OPERANDS: dict[str, Operand] = {
    entry.name: entry
    for entry in (
        Operand("g", "g", "g", lambda t, g: g, ("g",)),
        Operand("g2", "g²", "g^2", lambda t, g: g * g, ("g",)),
        Operand("g3", "g³", "g^3", lambda t, g: g * g * g, ("g",)),
        Operand("v_hat", "v̂", r"\hat v", lambda t, v, kv: v / kv, ("v", "kv")),
        Operand("s_hat", "ŝ", r"\hat s", lambda t, s, ks: s / ks, ("s", "ks")),
        Operand("l_hat", "λ̂", r"\hat\lambda", lambda t, c, kc: c / kc, ("c", "kc")),
        Operand("one", "1", "1", lambda t, g: t.ones_like(g), ("g",)),
        Operand("two", "2", "2", lambda t, g: t.full_like(g, 2.0), ("g",)),
        Operand("1e-6w", "1e-6·w", "10^{-6}w", lambda t, w: 1e-6 * w, ("w",)),
        Operand("1e-5w", "1e-5·w", "10^{-5}w", lambda t, w: 1e-5 * w, ("w",)),
        Operand("1e-4w", "1e-4·w", "10^{-4}w", lambda t, w: 1e-4 * w, ("w",)),
        Operand("1e-3w", "1e-3·w", "10^{-3}w", lambda t, w: 1e-3 * w, ("w",)),
        Operand("sign_g", "sign(g)", r"\operatorname{sign}(g)", lambda t, g: t.sign(g), ("g",)),
        Operand("sign_v_hat", "sign(v̂)", r"\operatorname{sign}(\hat v)", lambda t, v: t.sign(v), ("v",)),
        Operand(
            "qh_v",
            "(0.3·g + 0.7·v̂)",
            r"(0.3g + 0.7\hat v)",
            lambda t, g, v, kv: t.add(0.3 * g, v, alpha=0.7 / kv),
            ("g", "v", "kv"),
        ),
        Operand(
            "qh_s",
            "(0.05·g² + 0.95·ŝ)",
            r"(0.05g^2 + 0.95\hat s)",
            lambda t, g, s, ks: t.addcmul(0.95 / ks * s, g, g, value=0.05),
            ("g", "s", "ks"),
        ),
        Operand(
            "qh_l",
            "(0.01·g³ + 0.99·λ̂)",
            r"(0.01g^3 + 0.99\hat\lambda)",
            lambda t, g, c, kc: t.addcmul(0.99 / kc * c, g * g, g, value=0.01),
            ("g", "c", "kc"),
        ),
        # Means of {−g, 0.9v − g, 0.999v − g}, and the like.
        Operand("agg_v", "(0.633·v − g)", "(0.633v - g)", lambda t, g, v: 0.633 * v - g, ("g", "v")),
        Operand(
            "agg_s",
            "(0.663·s − g²)",
            "(0.663s - g^2)",
            lambda t, g, s: t.addcmul(0.663 * s, g, g, value=-1.0),
            ("g", "s"),
        ),
        Operand(
            "agg_l",
            "(0.6663·λ − g³)",
            r"(0.6663\lambda - g^3)",
            lambda t, g, c: t.addcmul(0.6663 * c, g * g, g, value=-1.0),
            ("g", "c"),
        ),
        # Beyond the search's own: what the published final optimizers are made of.
        Operand("eps", "1e-7", "10^{-7}", lambda t, g: t.full_like(g, 1e-7), ("g",), searched=False),
        Operand(
            "coded_s",
            "(0.95·ŝ − 0.05·g²)",
            r"(0.95\hat s - 0.05g^2)",
            lambda t, g, s, ks: t.addcmul(0.95 / ks * s, g, g, value=-0.05),
            ("g", "s", "ks"),
            searched=False,
        ),
        Operand(
            "qh_lg",
            "(0.01·g³ + 0.99·γ̂)",
            r"(0.01g^3 + 0.99\hat\gamma)",
            lambda t, g, cg, kcg: t.addcmul(0.99 / kcg * cg, g * g, g, value=0.01),
            ("g", "cg", "kcg"),
            searched=False,
        ),
    )
}


def _drop(keep: float) -> Callable[[Any, Any, Any], Any]:
    """Inverted dropout: the survivors are scaled, so that the mean stays."""
    return lambda t, x, generator: x * t.empty_like(x).bernoulli_(keep, generator=generator) / keep


def _named(name: str) -> str:
    return rf"\operatorname{{{name}}}(X)"


OPERATIONS: dict[str, Operation] = {
    entry.name: entry
    for entry in (
        Operation("id", 1, lambda t, x: x, "{x}", "X"),
        Operation("neg", 1, lambda t, x: -x, "−{x}", "-X"),
        Operation("lnabs", 1, lambda t, x: t.log(t.abs(x) + 1e-7), "ln|{x}|", r"\ln|X|"),
        Operation("sqrtabs", 1, lambda t, x: t.sqrt(t.abs(x)), "√|{x}|", r"\sqrt{|X|}"),
        Operation("exp", 1, lambda t, x: t.exp(x), "exp({x})", r"\exp(X)"),
        Operation("abs", 1, lambda t, x: t.abs(x), "|{x}|", "|X|"),
        Operation("sigmoid", 1, lambda t, x: t.sigmoid(x), "σ({x})", r"\sigma(X)"),
        Operation("dsoftsign", 1, lambda t, x: 1 / (1 + t.abs(x)), "1/(1 + |{x}|)", r"\frac{1}{1 + |X|}"),
        Operation(
            "softplus",
            1,
            lambda t, x: t.log(t.abs(1 + t.exp(x)) + 1e-7),
            "ln(1 + exp({x}))",
            r"\ln(1 + e^{X})",
        ),
        Operation("erf", 1, lambda t, x: t.special.erf(x), "erf({x})", _named("erf")),
        Operation("erfc", 1, lambda t, x: t.special.erfc(x), "erfc({x})", _named("erfc")),
        Operation("arcsinh", 1, lambda t, x: t.asinh(x), "arcsinh({x})", _named("arcsinh")),
        Operation("tanh", 1, lambda t, x: t.tanh(x), "tanh({x})", r"\tanh(X)"),
        Operation("arctan", 1, lambda t, x: t.atan(x), "arctan({x})", r"\arctan(X)"),
        Operation("recip", 1, lambda t, x: 1 / (x + 1e-7), "1/({x} + 1e-7)", r"\frac{1}{X + 10^{-7}}"),
        Operation("i1e", 1, lambda t, x: t.special.i1e(x), "i1e({x})", _named("i1e")),
        Operation("relu", 1, lambda t, x: t.clamp_min(x, 0.0), "max({x}, 0)", r"\max(X, 0)"),
        Operation("negrelu", 1, lambda t, x: t.clamp_max(x, 0.0), "min({x}, 0)", r"\min(X, 0)"),
        Operation("dropout0.5", 1, _drop(0.5), "drop₀.₅({x})", r"D_{0.5}(X)", draws=True),
        Operation("dropout0.3", 1, _drop(0.7), "drop₀.₃({x})", r"D_{0.3}(X)", draws=True),
        Operation("dropout0.1", 1, _drop(0.9), "drop₀.₁({x})", r"D_{0.1}(X)", draws=True),
        Operation(
            "clipnorm1",
            1,
            lambda t, x: x / t.clamp_min(t.linalg.vector_norm(x, dim=-1, keepdim=True), 1.0),
            "{x}/max(1, ‖{x}‖)",
            r"\frac{X}{\max(1, \|X\|)}",
            whole=True,
        ),
        Operation("softsign", 1, lambda t, x: x / (1 + t.abs(x)), "softsign({x})", _named("softsign")),
        Operation(
            "ema0.95",
            1,
            lambda t, x, n, k: n.mul_(0.95).add_(x, alpha=0.05) / (1 - 0.95**k),
            "ema₀.₉₅({x})",
            r"\operatorname{ema}_{0.95}(X)",
            keeps=True,
        ),
        # As the published program has it, which keeps its own output: nₜ = xₜ − nₜ₋₁.
        Operation(
            "delta", 1, lambda t, x, n, k: n.neg_().add_(x).clone(), "δ({x})", r"\delta(X)", keeps=True
        ),
        Operation(
            "runmax",
            1,
            lambda t, x, n, k: t.maximum(n, x, out=n).clone(),
            "maxₜ({x})",
            r"\max_{t}(X)",
            keeps=True,
        ),
        # xₜ − xₜ₋₁, which it seems to have meant.
        Operation(
            "change",
            1,
            lambda t, x, n, k: x - n,
            "Δₜ({x})",
            r"\Delta_t(X)",
            keeps=True,
            then=lambda t, x, n, k: n.copy_(x),
            searched=False,
        ),
        Operation("add", 2, lambda t, x, y: x + y, "({x} + {y})", "(X + Y)", commutes=True),
        Operation("sub", 2, lambda t, x, y: x - y, "({x} − {y})", "(X - Y)"),
        Operation("mul", 2, lambda t, x, y: x * y, "{x}·{y}", r"X \cdot Y", commutes=True),
        Operation("max", 2, lambda t, x, y: t.maximum(x, y), "max({x}, {y})", r"\max(X, Y)", commutes=True),
        Operation("min", 2, lambda t, x, y: t.minimum(x, y), "min({x}, {y})", r"\min(X, Y)", commutes=True),
        Operation("div", 2, lambda t, x, y: x / (y + 1e-7), "{x}/({y} + 1e-7)", r"\frac{X}{Y + 10^{-7}}"),
        Operation(
            "divsqrt",
            2,
            lambda t, x, y: x / t.sqrt(1 + y * y),
            "{x}/√(1 + ({y})²)",
            r"\frac{X}{\sqrt{1 + (Y)^2}}",
        ),
        Operation(
            "clip",
            2,
            lambda t, x, y: t.clamp(x, -t.abs(y), t.abs(y)),
            "clip({x}, |{y}|)",
            r"\operatorname{clip}(X, |Y|)",
        ),
        Operation(
            "mix95",
            2,
            lambda t, x, y: t.lerp(x, y, 0.05),
            "(0.95·{x} + 0.05·{y})",
            "(0.95 X + 0.05 Y)",
        ),
        Operation("abspow", 2, lambda t, x, y: t.pow(t.abs(x), y), "|{x}|^({y})", "|X|^{Y}"),
        Operation("over", 2, lambda t, x, y: x / y, "{x}/({y})", r"\frac{X}{Y}", searched=False),
    )
}

#: What the search chooses from, in the published order; the first unary one is the identity.
SEARCHED_OPERANDS = tuple(name for name, one in OPERANDS.items() if one.searched)
UNARY = tuple(name for name, one in OPERATIONS.items() if one.arity == 1 and one.searched)
BINARY = tuple(name for name, one in OPERATIONS.items() if one.arity == 2 and one.searched)
