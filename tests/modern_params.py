"""Genomes and parameters of the modern catalogue in a test's hand; nothing here imports torch."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from strategies import log_uniform

from optevo.optim.kinds import KINDS
from optevo.optim.schedules import DECAYS
from optevo.optim.terms.modern import FLAGS, ModernGenome, SecondRule
from optevo.optim.terms.table import MODERN_TERMS
from optevo.spaces import ModernSpace

SPACE = ModernSpace()


def within(params: dict[str, Any]) -> bool:
    """Whether they are all of the space's, in order, each in its distribution and plain Python's."""
    kinds = {FloatDistribution: float, IntDistribution: int}
    space = SPACE.distributions()
    return list(params) == list(space) and all(
        d._contains(d.to_internal_repr(params[name]))
        and type(params[name])
        is (type(d.choices[0]) if isinstance(d, CategoricalDistribution) else kinds[type(d)])
        for name, d in space.items()
    )


_ALPHA = st.one_of(st.floats(-5, 5, width=32), st.sampled_from([0.0, 1.0, -1.0]))


@st.composite
def second_rules(draw: st.DrawFn) -> SecondRule:
    terms = tuple(draw(st.lists(st.sampled_from(MODERN_TERMS), min_size=1, max_size=2)))
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3, unique=True))
    alphas, beta1 = draw(st.tuples(*[_ALPHA] * len(terms))), draw(st.floats(0, 0.999))
    return SecondRule(
        kinds=tuple(kinds), terms=terms, alphas=alphas, rate=draw(log_uniform(-3, 3)), beta1=beta1
    )


@st.composite
def modern_genomes(draw: st.DrawFn) -> ModernGenome:
    """Any genome that the space has."""
    terms = tuple(draw(st.lists(st.sampled_from(MODERN_TERMS), min_size=1, max_size=4)))
    warmup = draw(st.floats(0, 0.5))
    genes: dict[str, st.SearchStrategy[Any]] = {
        "alphas": st.tuples(*[_ALPHA] * len(terms)),
        "lr": log_uniform(-5, -1),
        "beta1": st.floats(0, 0.999),
        "beta2": st.floats(0, 0.9999),
        "beta_slow": st.floats(0.9, 0.99999),
        "beta_lion": st.floats(0, 0.999),
        "eps": log_uniform(-10, -4),
        "weight_decay": st.one_of(log_uniform(-6, 0), st.just(0.0)),
        "clip_value": log_uniform(-3, 1),
        "vector_rate": log_uniform(-2, 2),
        "head_rate": log_uniform(-2, 2),
        "hold": st.floats(0, 1 - warmup),
        "decay": st.sampled_from(DECAYS),
        "final": st.floats(0, 1),
        "second": st.one_of(st.none(), second_rules()),
        **dict.fromkeys(FLAGS, st.booleans()),
    }
    return ModernGenome(terms=terms, warmup=warmup, **{name: draw(one) for name, one in genes.items()})
