"""The published final optimizers, Adam-clip variants and what else arXiv 2404.06679 names. Pure Python.

Where the published program differs from what it names, the rule that it names has the plain name, and the
other one ends in ``_as_coded``. Their learning rate is the user's to choose: none was published.
"""

from __future__ import annotations

from optevo.naming import Registry
from optevo.optim.graphs.equation import Equation
from optevo.optim.graphs.genome import GraphGenome

_LR1 = "over(erfc(erfc(a4)),dtanh(a8))"  # the learned schedule of opt4 to opt6

_TEXTS = {
    "opt1": "none add(qh_v,softsign(clip(1e-5w,sub(1e-5w,qh_s))))",
    # A misplaced bracket: the bound is |e − 0.05g² + 0.95ŝ|.
    "opt1_as_coded": "none add(qh_v,softsign(clip(1e-5w,add(1e-5w,coded_s))))",
    "opt2": "none add(qh_v,softsign(divsqrt(1e-5w,sub(1e-5w,qh_s))))",
    "opt3": "none add(qh_v,softsign(divsqrt(1e-5w,sub(1e-5w,qh_l))))",
    # The average of third powers is fed second ones.
    "opt3_as_coded": "none add(qh_v,softsign(divsqrt(1e-5w,sub(1e-5w,qh_lg))))",
    # a13 is 0 at the last step, where the published program divides by 0.
    "opt4": f"none [{_LR1}]*div(qh_v,min(two,abs([arctan(a13)]*exp(v_hat))))",
    "opt4_as_coded": f"none [{_LR1}]*over(qh_v,min(two,abs([arctan(a13)]*exp(v_hat))))",
    "opt5": f"none [{_LR1}]*over(qh_v,min(two,exp(v_hat)))",
    "opt6": f"none [{_LR1}]*over(qh_v,[dtanh(a4)]*exp(1e-4w))",
    "opt7": "none tanh([max(a6,a10)]*arcsinh(qh_v))",
    "opt8": "none arcsinh([max(a6,a10)]*arcsinh(qh_v))",
    "opt9": "nesterov mul([erfc(a11)]*g,exp(arctan(qh_s)))",
    "opt10": "nesterov i1e(i1e([mul(a13,a2)]*g))",
    # Named as best on Penn Treebank and not published; read as opt10 without its decay, which the program
    # has a switch for. Nobody has confirmed it.
    "opt101": "nesterov i1e(i1e(g))",
    "a1": "none clip(v_hat,add(sqrtabs(s_hat),eps))",
    "a2": "none clip(v_hat,lnabs(s_hat))",
    "a3": "none clip(v_hat,sqrtabs(lnabs(s_hat)))",
    "a4": "none clip(v_hat,sigmoid(add(s_hat,eps)))",
    "a5": "none clipnorm1(clip(v_hat,add(sqrtabs(s_hat),eps)))",
}

PRESETS: Registry[GraphGenome] = Registry("preset")
PRESETS |= {name: GraphGenome(Equation.parse(text)) for name, text in _TEXTS.items()}
PRESETS |= {
    f"{name}_nodecay": GraphGenome(Equation.parse(_TEXTS[coded]).without_decays())
    for name, coded in (("opt4", "opt4_as_coded"), *((f"opt{i}", f"opt{i}") for i in range(5, 11)))
}
