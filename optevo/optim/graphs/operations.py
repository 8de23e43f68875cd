"""The table of operands and operations: a new one is one entry here. Pure Python.

From an entry follow what the sampler chooses from, the optimizer, the exported file, texts, formulas and the
tests. What an entry computes is written as a line of Python on torch's tensors, which the optimizer runs
and the exported file holds. Source: arXiv 2404.06679, its operands and its unary and binary operations.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Moment:
    """An average that starts at zero: n ← β·n + (1 − β)·(a power of g).

    Attributes:
        beta: β.
        source: The line that updates it.
        formula: The same for people.
    """

    beta: float
    source: str
    formula: str


MOMENTS = {
    "v": Moment(0.9, "v.lerp_(g, 0.1)", "v ← 0.9·v + 0.1·g"),
    "s": Moment(0.99, "s.mul_(0.99).addcmul_(g, g, value=0.01)", "s ← 0.99·s + 0.01·g²"),
    "l": Moment(0.999, "l.mul_(0.999).addcmul_(g * g, g, value=0.001)", "λ ← 0.999·λ + 0.001·g³"),
    # As the published program has it in Opt3, see `optevo.optim.graphs.presets`.
    "lg": Moment(0.999, "lg.mul_(0.999).addcmul_(g, g, value=0.001)", "γ ← 0.999·γ + 0.001·g²"),
}


@dataclass(frozen=True)
class Operand:
    """A leaf of an update rule.

    Attributes:
        name: In texts.
        symbol: In formulas.
        latex: In LaTeX.
        source: Its value, of the tensors ``g`` and ``w``, the moments by name, and their bias corrections
            1 − βᵏ, which are called ``kv``, ``ks`` and so on.
        reads: The moments, and "w" for the weights, that it needs.
        searched: Whether it is one of the search space's twenty. Default: True.
    """

    name: str
    symbol: str
    latex: str
    source: str
    reads: frozenset[str] = frozenset()
    searched: bool = True


@dataclass(frozen=True)
class Operation:
    """A node of an update rule.

    Attributes:
        name: In texts.
        arity: How many inputs.
        source: Its value, of ``{x}`` and ``{y}``; ``{n}`` is a tensor of the node's own that starts at zero,
            ``k`` the step count from 1 on, ``generator`` the step's.
        symbol: In formulas, of ``{x}`` and ``{y}``.
        latex: In LaTeX, of ``X`` and ``Y``.
        commutes: Whether the order of its inputs does not matter. Default: False.
        whole: Whether it looks at a parameter as a whole, not element by element. Default: False.
        searched: Whether it is one of the search space's 26 unary and 10 binary ones. Default: True.
    """

    name: str
    arity: int
    source: str
    symbol: str
    latex: str
    commutes: bool = False
    whole: bool = False
    searched: bool = True

    @property
    def keeps(self) -> bool:
        """Whether it has a tensor of its own."""
        return "{n}" in self.source

    @property
    def draws(self) -> bool:
        """Whether it draws random numbers."""
        return "generator" in self.source


_V, _S, _L, _W = (frozenset({name}) for name in ("v", "s", "l", "w"))

OPERANDS: dict[str, Operand] = {
    entry.name: entry
    for entry in (
        Operand("g", "g", "g", "g"),
        Operand("g2", "g²", "g^2", "g * g"),
        Operand("g3", "g³", "g^3", "g * g * g"),
        Operand("v_hat", "v̂", r"\hat v", "v / kv", _V),
        Operand("s_hat", "ŝ", r"\hat s", "s / ks", _S),
        Operand("l_hat", "λ̂", r"\hat\lambda", "l / kl", _L),
        Operand("one", "1", "1", "torch.ones_like(g)"),
        Operand("two", "2", "2", "torch.full_like(g, 2.0)"),
        Operand("1e-6w", "1e-6·w", "10^{-6}w", "1e-6 * w", _W),
        Operand("1e-5w", "1e-5·w", "10^{-5}w", "1e-5 * w", _W),
        Operand("1e-4w", "1e-4·w", "10^{-4}w", "1e-4 * w", _W),
        Operand("1e-3w", "1e-3·w", "10^{-3}w", "1e-3 * w", _W),
        Operand("sign_g", "sign(g)", r"\operatorname{sign}(g)", "torch.sign(g)"),
        Operand("sign_v_hat", "sign(v̂)", r"\operatorname{sign}(\hat v)", "torch.sign(v)", _V),
        Operand(
            "qh_v", "(0.3·g + 0.7·v̂)", r"(0.3g + 0.7\hat v)", "torch.add(0.3 * g, v, alpha=0.7 / kv)", _V
        ),
        Operand(
            "qh_s",
            "(0.05·g² + 0.95·ŝ)",
            r"(0.05g^2 + 0.95\hat s)",
            "torch.addcmul((0.95 / ks) * s, g, g, value=0.05)",
            _S,
        ),
        Operand(
            "qh_l",
            "(0.01·g³ + 0.99·λ̂)",
            r"(0.01g^3 + 0.99\hat\lambda)",
            "torch.addcmul((0.99 / kl) * l, g * g, g, value=0.01)",
            _L,
        ),
        # Means of {−g, 0.9v − g, 0.999v − g}, and the like.
        Operand("agg_v", "(0.633·v − g)", "(0.633v - g)", "0.633 * v - g", _V),
        Operand("agg_s", "(0.663·s − g²)", "(0.663s - g^2)", "torch.addcmul(0.663 * s, g, g, value=-1)", _S),
        Operand(
            "agg_l",
            "(0.6663·λ − g³)",
            r"(0.6663\lambda - g^3)",
            "torch.addcmul(0.6663 * l, g * g, g, value=-1)",
            _L,
        ),
        # Beyond the search's own: what the published final optimizers are made of.
        Operand("eps", "1e-7", "10^{-7}", "torch.full_like(g, 1e-7)", searched=False),
        Operand(
            "coded_s",
            "(0.95·ŝ − 0.05·g²)",
            r"(0.95\hat s - 0.05g^2)",
            "torch.addcmul((0.95 / ks) * s, g, g, value=-0.05)",
            _S,
            searched=False,
        ),
        Operand(
            "qh_lg",
            "(0.01·g³ + 0.99·γ̂)",
            r"(0.01g^3 + 0.99\hat\gamma)",
            "torch.addcmul((0.99 / klg) * lg, g * g, g, value=0.01)",
            frozenset({"lg"}),
            searched=False,
        ),
    )
}


def _drop(keep: float) -> str:
    """Inverted dropout: the survivors are scaled, so that the mean stays."""
    return f"{{x}} * torch.empty_like({{x}}).bernoulli_({keep}, generator=generator) / {keep}"


def _named(name: str) -> str:
    return rf"\operatorname{{{name}}}(X)"


OPERATIONS: dict[str, Operation] = {
    entry.name: entry
    for entry in (
        Operation("id", 1, "{x}", "{x}", "X"),
        Operation("neg", 1, "-{x}", "−{x}", "-X"),
        Operation("lnabs", 1, "torch.log(torch.abs({x}) + 1e-7)", "ln|{x}|", r"\ln|X|"),
        Operation("sqrtabs", 1, "torch.sqrt(torch.abs({x}))", "√|{x}|", r"\sqrt{|X|}"),
        Operation("exp", 1, "torch.exp({x})", "exp({x})", r"\exp(X)"),
        Operation("abs", 1, "torch.abs({x})", "|{x}|", "|X|"),
        Operation("sigmoid", 1, "torch.sigmoid({x})", "σ({x})", r"\sigma(X)"),
        Operation("dsoftsign", 1, "1 / (1 + torch.abs({x}))", "1/(1 + |{x}|)", r"\frac{1}{1 + |X|}"),
        Operation(
            "softplus",
            1,
            "torch.log(torch.abs(1 + torch.exp({x})) + 1e-7)",
            "ln(1 + exp({x}))",
            r"\ln(1 + e^{X})",
        ),
        Operation("erf", 1, "torch.special.erf({x})", "erf({x})", _named("erf")),
        Operation("erfc", 1, "torch.special.erfc({x})", "erfc({x})", _named("erfc")),
        Operation("arcsinh", 1, "torch.asinh({x})", "arcsinh({x})", _named("arcsinh")),
        Operation("tanh", 1, "torch.tanh({x})", "tanh({x})", r"\tanh(X)"),
        Operation("arctan", 1, "torch.atan({x})", "arctan({x})", r"\arctan(X)"),
        Operation("recip", 1, "1 / ({x} + 1e-7)", "1/({x} + 1e-7)", r"\frac{1}{X + 10^{-7}}"),
        Operation("i1e", 1, "torch.special.i1e({x})", "i1e({x})", _named("i1e")),
        Operation("relu", 1, "torch.clamp_min({x}, 0.0)", "max({x}, 0)", r"\max(X, 0)"),
        Operation("negrelu", 1, "torch.clamp_max({x}, 0.0)", "min({x}, 0)", r"\min(X, 0)"),
        Operation("dropout0.5", 1, _drop(0.5), "drop₀.₅({x})", r"D_{0.5}(X)"),
        Operation("dropout0.3", 1, _drop(0.7), "drop₀.₃({x})", r"D_{0.3}(X)"),
        Operation("dropout0.1", 1, _drop(0.9), "drop₀.₁({x})", r"D_{0.1}(X)"),
        Operation(
            "clipnorm1",
            1,
            "{x} / torch.clamp_min(torch.linalg.vector_norm({x}, dim=-1, keepdim=True), 1.0)",
            "{x}/max(1, ‖{x}‖)",
            r"\frac{X}{\max(1, \|X\|)}",
            whole=True,
        ),
        Operation("softsign", 1, "{x} / (1 + torch.abs({x}))", "softsign({x})", _named("softsign")),
        Operation(
            "ema0.95",
            1,
            "{n}.mul_(0.95).add_({x}, alpha=0.05) / (1 - 0.95**k)",
            "ema₀.₉₅({x})",
            r"\operatorname{ema}_{0.95}(X)",
        ),
        # As the published program has it, which keeps its own output: nₜ = xₜ − nₜ₋₁.
        Operation("delta", 1, "{n}.neg_().add_({x}).clone()", "δ({x})", r"\delta(X)"),
        Operation("runmax", 1, "torch.maximum({n}, {x}, out={n}).clone()", "maxₜ({x})", r"\max_{t}(X)"),
        # xₜ − xₜ₋₁, which it seems to have meant.
        Operation("change", 1, "({x} - {n}, {n}.copy_({x}))[0]", "Δₜ({x})", r"\Delta_t(X)", searched=False),
        Operation("add", 2, "{x} + {y}", "({x} + {y})", "(X + Y)", commutes=True),
        Operation("sub", 2, "{x} - {y}", "({x} − {y})", "(X - Y)"),
        Operation("mul", 2, "{x} * {y}", "{x}·{y}", r"X \cdot Y", commutes=True),
        Operation("max", 2, "torch.maximum({x}, {y})", "max({x}, {y})", r"\max(X, Y)", commutes=True),
        Operation("min", 2, "torch.minimum({x}, {y})", "min({x}, {y})", r"\min(X, Y)", commutes=True),
        Operation("div", 2, "{x} / ({y} + 1e-7)", "{x}/({y} + 1e-7)", r"\frac{X}{Y + 10^{-7}}"),
        Operation(
            "divsqrt",
            2,
            "{x} / torch.sqrt(1 + {y} * {y})",
            "{x}/√(1 + ({y})²)",
            r"\frac{X}{\sqrt{1 + (Y)^2}}",
        ),
        Operation(
            "clip",
            2,
            "torch.clamp({x}, -torch.abs({y}), torch.abs({y}))",
            "clip({x}, |{y}|)",
            r"\operatorname{clip}(X, |Y|)",
        ),
        Operation("mix95", 2, "torch.lerp({x}, {y}, 0.05)", "(0.95·{x} + 0.05·{y})", "(0.95 X + 0.05 Y)"),
        Operation("abspow", 2, "torch.pow(torch.abs({x}), {y})", "|{x}|^({y})", "|X|^{Y}"),
        Operation("over", 2, "{x} / {y}", "{x}/({y})", r"\frac{X}{Y}", searched=False),
    )
}

#: What the search chooses from, in the published order; the first unary one is the identity.
SEARCHED_OPERANDS = tuple(name for name, one in OPERANDS.items() if one.searched)
UNARY = tuple(name for name, one in OPERATIONS.items() if one.arity == 1 and one.searched)
BINARY = tuple(name for name, one in OPERATIONS.items() if one.arity == 2 and one.searched)
