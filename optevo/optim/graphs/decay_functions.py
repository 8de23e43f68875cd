"""The tables of what decays are made of: base functions of time, and operations. Pure Python.

Source: arXiv 2404.06679. A new base function or operation is one entry. The functions need `math`
alone, because exported files hold them as they stand here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


def a1(t: int, total_steps: int) -> float:
    return 1.0 - t / total_steps


def a2(t: int, total_steps: int) -> float:
    return t / total_steps


def a3(t: int, total_steps: int) -> float:
    return (1.0 + math.cos(math.pi * t / total_steps)) / 2.0


def a4(t: int, total_steps: int) -> float:
    return (1.0 - math.cos(math.pi * t / total_steps)) / 2.0


def a5(t: int, total_steps: int) -> float:
    return (1.0 + math.cos(2.0 * math.pi * t / total_steps)) / 2.0


def a6(t: int, total_steps: int) -> float:
    return (1.0 - math.cos(2.0 * math.pi * t / total_steps)) / 2.0


def a7(t: int, total_steps: int) -> float:
    return (1.0 + math.cos(math.pi * (2 * t % total_steps) / total_steps)) / 2.0


def a8(t: int, total_steps: int) -> float:
    return (1.0 - math.cos(math.pi * (2 * t % total_steps) / total_steps)) / 2.0


def a9(t: int, total_steps: int) -> float:
    return 1.0 - (2 * t % total_steps) / total_steps


def a10(t: int, total_steps: int) -> float:
    return (2 * t % total_steps) / total_steps


def a11(t: int, total_steps: int) -> float:
    return math.pow(0.01, t / total_steps)


def a12(t: int, total_steps: int) -> float:
    return 1.0 - math.pow(0.01, t / total_steps)


def a13(t: int, total_steps: int) -> float:
    b = 0.95 * (1.0 - (t + 1) / total_steps)
    return b / (0.05 + b)


def a14(t: int, total_steps: int) -> float:
    b = 0.95 * (1.0 - (t + 1) / total_steps)
    return 0.95 - b / (0.05 + b)


def a14x(t: int, total_steps: int) -> float:
    b = 0.95 * (1.0 - (t + 1) / total_steps)
    return (0.95 - b) / (0.05 + b)


def one(t: int, total_steps: int) -> float:
    return 1.0


def sigmoid(x: float) -> float:
    e = math.exp(-abs(x))
    return (1.0 if x >= 0 else e) / (1.0 + e)


def dsigmoid(x: float) -> float:
    e = math.exp(-abs(x))
    return e / ((1.0 + e) * (1.0 + e))


def softsign(x: float) -> float:
    return x / (1.0 + abs(x))


def dtanh(x: float) -> float:
    y = math.tanh(x)
    return 1.0 - y * y


def i1e(x: float) -> float:
    """exp(-|x|) times the modified Bessel function of the first kind of order one."""
    z = abs(x)
    if z <= 30.0:  # the power series: all terms are positive, none cancels
        term = total = z / 2.0
        k = 1
        while term > 1e-17 * total:
            term *= z * z / (4.0 * k * (k + 1))
            total += term
            k += 1
        return math.copysign(total * math.exp(-z), x)
    term = total = 1.0  # Hankel's series: the terms shrink below 1e-17 before they grow
    for k in range(1, 31):
        term *= ((2 * k - 1) ** 2 - 4) / (8.0 * k * z)
        total += term
    return math.copysign(total / math.sqrt(2.0 * math.pi * z), x)


def square(x: float) -> float:
    return x * x


def over(x: float, y: float) -> float:
    """x/y as IEEE has it, where Python refuses to divide by 0."""
    if y:
        return x / y
    return math.copysign(math.inf, x) * math.copysign(1.0, y) if x else math.nan


@dataclass(frozen=True)
class BaseFunction:
    """A function of time that decays are made of.

    Attributes:
        function: Its value at step t of a run of `total_steps` steps.
        formula: Its definition for people, with x = t/T and y = (2t mod T)/T.
        latex: Its name in LaTeX.
        source: Its value as Python, of `t` and `total_steps`.
        searched: Whether the search uses it. Default: True.
    """

    function: Callable[[int, int], float]
    formula: str
    latex: str
    source: str
    searched: bool = True


@dataclass(frozen=True)
class Operation:
    """A function of one or two numbers.

    The templates have a ``{}`` for each operand; ``{:2}`` puts brackets around an operand that binds less
    than 2. What binds how: 0 a sum, 1 a product, 2 a power, 3 a name, a call, anything in brackets.

    Attributes:
        function: On floats; of the whole real line, and without an error.
        symbol: As people write it.
        latex: Likewise, in LaTeX.
        source: As Python.
        binds: How `symbol`, `latex` and `source` bind. Default: 3.
        arity: Of the function. Default: 1.
        commutes: Whether the order of its arguments is nothing to it. Default: False.
        searched: Whether the search uses it. Default: True.
    """

    function: Callable[..., float]
    symbol: str
    latex: str
    source: str
    binds: int = 3
    arity: int = 1
    commutes: bool = False
    searched: bool = True


def _base(function: Callable[[int, int], float], formula: str) -> BaseFunction:
    name = function.__name__
    return BaseFunction(function, formula, f"a_{{{name[1:]}}}", f"{name}(t, total_steps)")


def _call(function: Callable[[float], float], name: str, source: str, latex: str | None = None) -> Operation:
    return Operation(
        function, f"{name}({{}})", (latex or rf"\operatorname{{{{{name}}}}}") + r"\left({}\right)", source
    )


#: By name.
BASES: dict[str, BaseFunction] = {
    "a1": _base(a1, "1 − x"),
    "a2": _base(a2, "x"),
    "a3": _base(a3, "(1 + cos πx)/2"),
    "a4": _base(a4, "(1 − cos πx)/2"),
    "a5": _base(a5, "(1 + cos 2πx)/2"),
    "a6": _base(a6, "(1 − cos 2πx)/2"),
    "a7": _base(a7, "(1 + cos πy)/2"),
    "a8": _base(a8, "(1 − cos πy)/2"),
    "a9": _base(a9, "1 − y"),
    "a10": _base(a10, "y"),
    "a11": _base(a11, "0.01^x"),
    "a12": _base(a12, "1 − 0.01^x"),
    "a13": _base(a13, "b/(0.05 + b) with b = 0.95·(1 − (t + 1)/T)"),
    "a14": _base(a14, "0.95 − b/(0.05 + b) with b = 0.95·(1 − (t + 1)/T)"),
    "a14x": BaseFunction(
        a14x,
        "(0.95 − b)/(0.05 + b) with b = 0.95·(1 − (t + 1)/T)",
        "a_{14}'",
        "a14x(t, total_steps)",
        searched=False,
    ),
    "1": BaseFunction(one, "1", "1", "1.0", searched=False),
}

#: By name.
OPERATIONS: dict[str, Operation] = {
    "sigmoid": _call(sigmoid, "σ", "sigmoid({})", r"\sigma"),
    "dsoftsign": Operation(
        lambda x: 1.0 / (1.0 + abs(x)),
        "1/(1 + |{}|)",
        r"\frac{{1}}{{1 + \left|{}\right|}}",
        "1.0 / (1.0 + abs({}))",
        binds=1,
    ),
    "erf": _call(math.erf, "erf", "math.erf({})"),
    "erfc": _call(math.erfc, "erfc", "math.erfc({})"),
    "tanh": _call(math.tanh, "tanh", "math.tanh({})", r"\tanh"),
    "arctan": _call(math.atan, "arctan", "math.atan({})", r"\arctan"),
    "i1e": _call(i1e, "i1e", "i1e({})"),
    "square": Operation(square, "{:3}²", "{:3}^2", "square({})", binds=2),
    "sqrtabs": Operation(
        lambda x: math.sqrt(abs(x)), "√|{}|", r"\sqrt{{\left|{}\right|}}", "math.sqrt(abs({}))"
    ),
    "softsign": _call(softsign, "softsign", "softsign({})"),
    "dtanh": _call(dtanh, "tanh′", "dtanh({})", r"\tanh'"),
    "dsigmoid": _call(dsigmoid, "σ′", "dsigmoid({})", r"\sigma'"),
    "id": Operation(lambda x: x, "{}", "{}", "{}"),
    "add": Operation(
        lambda x, y: x + y, "{} + {:1}", "{} + {:1}", "{} + {:1}", binds=0, arity=2, commutes=True
    ),
    "sub": Operation(lambda x, y: x - y, "{} − {:1}", "{} - {:1}", "{} - {:1}", binds=0, arity=2),
    "mul": Operation(
        lambda x, y: x * y, "{:1}·{:2}", r"{:1}\,{:2}", "{:1} * {:2}", binds=1, arity=2, commutes=True
    ),
    "max": Operation(max, "max({}, {})", r"\max\left({}, {}\right)", "max({}, {})", arity=2, commutes=True),
    "min": Operation(min, "min({}, {})", r"\min\left({}, {}\right)", "min({}, {})", arity=2, commutes=True),
    "div": Operation(
        lambda x, y: over(x, y + 1e-7),
        "{:1}/({} + ε)",
        r"\frac{{{}}}{{{} + \varepsilon}}",
        "{:1} / ({} + 1e-7)",
        binds=1,
        arity=2,
    ),
    "divsqrt": Operation(
        lambda x, y: x / math.hypot(1.0, y),
        "{:1}/√(1 + {:3}²)",
        r"\frac{{{}}}{{\sqrt{{1 + {:3}^2}}}}",
        "{:1} / math.hypot(1.0, {})",
        binds=1,
        arity=2,
    ),
    "over": Operation(
        over, "{:1}/{:2}", r"\frac{{{}}}{{{}}}", "over({}, {})", binds=1, arity=2, searched=False
    ),
    "double": Operation(lambda x: 2.0 * x, "2·{:2}", r"2\,{:2}", "2.0 * {:2}", binds=1, searched=False),
}

#: What the search draws from.
BASE_NAMES = tuple(name for name, base in BASES.items() if base.searched)
UNARY_NAMES = tuple(name for name, op in OPERATIONS.items() if op.searched and op.arity == 1)
BINARY_NAMES = tuple(name for name, op in OPERATIONS.items() if op.searched and op.arity == 2)
