"""Parameters of the term space in a test's hand."""

from __future__ import annotations

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from optevo.optim.terms.genome import TermGenome
from optevo.spaces import TermSpace

SPACE = TermSpace()


def middle(**genes: object) -> dict:
    """Parameters far enough from every bound that no mutation is clipped."""
    base = {
        "terms": ("GRAD", "SIGN_GRAD"),
        "alphas": (1.0, -1.0),
        "lr": 1e-3,
        "beta1": 0.5,
        "beta2": 0.5,
        "eps": 1e-7,
        "weight_decay": 1e-4,
        "clip_value": 1.25,
        "warmup_steps": 77,
    }
    return SPACE.params(TermGenome(**{**base, **genes}))


def within(params: dict) -> bool:
    space = SPACE.distributions()
    return list(params) == list(space) and all(
        d._contains(d.to_internal_repr(params[name])) for name, d in space.items()
    )


def is_plain(params: dict) -> bool:
    kinds = {FloatDistribution: float, IntDistribution: int}
    for name, d in SPACE.distributions().items():
        expected = type(d.choices[0]) if isinstance(d, CategoricalDistribution) else kinds[type(d)]
        if type(params[name]) is not expected:
            return False
    return True


DOMAIN = {
    "lr": (1e-5, 1e-1),
    "eps": (1e-10, 1e-4),
    "weight_decay": (1e-6, 1e-2),
    "beta1": (0.0, 0.999),
    "beta2": (0.0, 0.9999),
}
