"""`ModernSpace`: the flat parameters of the modern catalogue's genomes, and what of them is in use."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modern_params import SPACE, modern_genomes, within
from strategies import genomes

from optevo.optim.kinds import KINDS
from optevo.optim.terms.genome import TermGenome
from optevo.optim.terms.modern import FLAGS, ModernGenome, SecondRule
from optevo.optim.terms.modern_presets import MODERN_PRESETS
from optevo.optim.terms.presets import PRESETS
from optevo.optim.terms.table import MODERN_TERMS
from optevo.spaces import ModernSpace

ORTHO = SecondRule(kinds=("convolution",), terms=("ORTHO",), alphas=(1.0,), rate=2.0, beta1=0.95)
GENOME = ModernGenome(terms=("ADAM_TERM", "GRAD"), alphas=(1.0, -2.0), lr=1e-3, second=ORTHO)


@given(modern_genomes())
def test_a_genome_survives_as_parameters(genome: ModernGenome):
    params = SPACE.params(genome)
    assert within(params)
    assert SPACE.candidate(params) == genome
    assert SPACE.whole(params)


def test_presets_survive_as_parameters_and_are_those_asked_for():
    presets = SPACE.presets()
    assert list(presets) == list(MODERN_PRESETS)
    for name, params in presets.items():
        assert within(params)
        assert SPACE.candidate(params) == MODERN_PRESETS[name]
    assert list(ModernSpace(presets=("muon", "sgd")).presets()) == ["muon", "sgd"]
    with pytest.raises(KeyError, match="'ademamix'"):
        ModernSpace(presets=("ademamx",))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "signsgd"])
def test_a_preset_of_both_catalogues_is_one_optimizer(name: str):
    modern, published = MODERN_PRESETS[name], PRESETS[name]
    assert modern.formula() == published.formula()
    assert (modern.lr, modern.weight_decay) == (published.lr, published.weight_decay)


def test_any_trial_of_any_sampler_is_a_genome():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seconds = 0
    for _ in range(100):
        trial = study.ask()
        genome = SPACE.candidate(SPACE.suggest(trial))
        assert list(trial.params) == list(SPACE.distributions())
        seconds += genome.second is not None
    assert 20 < seconds < 70


@pytest.mark.parametrize("kinds", [(), KINDS])
def test_a_second_rule_for_no_kind_or_for_all_is_dormant(kinds: tuple[str, ...]):
    params = SPACE.params(GENOME) | {f"second_{kind}": kind in kinds for kind in KINDS}
    assert SPACE.candidate(params).second is None
    assert SPACE.parts(params) == Counter(["ADAM_TERM", "GRAD"])
    used = SPACE.expressed(params)
    assert {name for name in used if name.startswith("second_")} == {f"second_{kind}" for kind in KINDS}
    assert "second" in used


def test_the_least_weight_decay_is_none_and_a_hold_ends_with_the_run():
    params = SPACE.params(GENOME)
    assert SPACE.candidate(params | {"weight_decay": 1e-6}).weight_decay == 0
    assert SPACE.candidate(params | {"warmup": 0.3, "hold": 0.9}).hold == 0.7


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_terms": 5}, "Invalid n_terms: 5"),
        ({"n_terms": 2.0}, "Invalid n_terms: 2.0"),
        ({"second_n_terms": 3}, "Invalid second_n_terms: 3"),
        ({"term_1": "ADAN"}, "unknown 'ADAN'"),
        ({"second_term_0": "MUON"}, "unknown 'MUON'"),
        ({"lr": 1.0}, "Invalid lr: 1.0"),
        ({"cautious": None}, "Invalid cautious"),
        ({"decay": "cosin"}, "'cosine'"),
        ({"second_rate": 0.0}, "Invalid rate: 0.0"),
    ],
)
def test_what_is_no_genome_is_refused(changes: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        SPACE.candidate(SPACE.params(GENOME) | changes)


def test_a_missing_parameter_is_named():
    params = SPACE.params(GENOME)
    del params["second_head"]
    assert not SPACE.whole(params)
    with pytest.raises(ValueError, match="'second_head' is missing"):
        SPACE.candidate(params)


def test_terms_of_both_rules_are_parts():
    assert SPACE.parts(SPACE.params(GENOME)) == Counter(["ADAM_TERM", "GRAD", "ORTHO"])
    assert SPACE.parts({}) == Counter()
    assert SPACE.parts({"n_terms": float("nan"), "second": float("nan")}) == Counter()
    assert SPACE.parts({"n_terms": 2, "term_0": "LION", "term_1": None}) == Counter(["LION"])
    assert SPACE.part_names == MODERN_TERMS


@given(modern_genomes(), st.integers(0, 2**32))
def test_what_is_not_expressed_changes_no_optimizer(genome: ModernGenome, seed: int):
    params, other = SPACE.params(genome), SPACE.sample(np.random.default_rng(seed))
    used = SPACE.expressed(params)
    assert used.items() <= params.items()
    assert SPACE.candidate(other | used).canonical() == genome.canonical()


def test_what_is_expressed_changes_the_optimizer():
    rng, found = np.random.default_rng(0), set[str]()
    for _ in range(150):
        params = SPACE.sample(rng)
        form, used = SPACE.candidate(params).canonical(), SPACE.expressed(params)
        for name in used.keys() & {*FLAGS}:
            assert SPACE.candidate(params | {name: not params[name]}).canonical() != form, name
        for name, value in used.items():
            if isinstance(value, float) and value > 0:
                assert SPACE.candidate(params | {name: value * 0.9999}).canonical() != form, name
        found |= used.keys()
    assert found == SPACE.distributions().keys() - {"term_3", "alpha_3"}


def test_identity_is_that_of_the_optimizer():
    params = SPACE.params(GENOME)
    assert SPACE.identity(params) == SPACE.identity(params | {"beta_slow": 0.95, "term_3": "LION"})
    assert SPACE.identity(params) != SPACE.identity(params | {"lr": 2e-3})


@given(genomes())
def test_every_published_genome_without_warmup_steps_is_expressible(genome: TermGenome):
    genome = dataclasses.replace(genome, warmup=False)
    found = SPACE.candidate(SPACE.express(genome, 100))
    one, rule = genome.rule(), found.rule()
    assert rule.coefficients == {
        name: value for name, value in one.to_dict().items() if name in _SIX and value != 0
    }
    for name in ("beta1", "beta2", "eps", "clip_value"):
        assert getattr(rule, name) == getattr(one, name)
    assert found.bias_correction == genome.bias_correction
    assert (found.lr, found.weight_decay, found.rates()) == (
        genome.lr,
        genome.weight_decay,
        dict.fromkeys(KINDS, 1.0),
    )
    assert [found.schedule(37)(t) for t in range(40)] == [genome.schedule(37)(t) for t in range(40)]


_SIX = ("grad", "momentum", "rms", "adam", "sign", "unit")


def test_what_the_space_has_no_room_for_is_named():
    with pytest.raises(ValueError, match=r"its clip_value is 20, outside 0\.001 to 10"):
        SPACE.express(dataclasses.replace(GENOME, gradient_clipping=True, clip_value=20.0), 100)
    assert SPACE.express(dataclasses.replace(GENOME, clip_value=20.0), 100)["clip_value"] == 10
    with pytest.raises(ValueError, match=r"its warmup is 0\.8, outside 0 to 0\.5"):
        SPACE.express(dataclasses.replace(GENOME, warmup=0.8), 100)


def test_the_caveat_of_the_published_winner():
    assert "test splits" in SPACE.caveats()[0]
    assert ModernSpace(presets=("adam",)).caveats() == []
