"""The flat parameters of a genome: there and back, their domains, and the presets'."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from hypothesis import given
from strategies import TERMS, genomes
from term_params import DOMAIN, SPACE, is_plain, middle, within

from optevo.optim.terms.genome import TermGenome
from optevo.optim.terms.presets import PRESETS
from optevo.samplers.operators import Variation
from optevo.spaces import SPACES, TermSpace


@given(genomes(clip_value=1.5))
def test_a_genome_comes_back_from_its_parameters(genome):
    params = SPACE.params(genome)
    assert within(params)
    assert SPACE.candidate(params) == genome
    assert SPACE.params(SPACE.candidate(params)) == params


def test_dormant_slots_do_not_change_the_candidate():
    params = middle()
    noisy = {**params, "term_2": "ADAM_TERM", "alpha_2": 3.0, "term_3": "NESTEROV", "alpha_3": -2.0}
    assert SPACE.candidate(noisy) == SPACE.candidate(params)


def test_a_child_writes_its_dormant_slots_alike():
    rng = np.random.default_rng(10)
    for _ in range(100):
        child = SPACE.mutate(SPACE.sample(rng), rng, 1.0)
        for i in range(child["n_terms"], 4):
            assert (child[f"term_{i}"], child[f"alpha_{i}"]) == ("GRAD", 0.0)


def test_the_distributions_are_the_specs_domains():
    space = SPACE.distributions()
    assert len(space) == 22
    for gene, (low, high) in DOMAIN.items():
        assert (space[gene].low, space[gene].high) == (low, high)
        assert space[gene].log == (gene in ("lr", "eps", "weight_decay"))
    assert (space["n_terms"].low, space["n_terms"].high) == (1, 4)
    for i in range(4):
        assert (space[f"alpha_{i}"].low, space[f"alpha_{i}"].high) == (-5, 5)
        assert sorted(space[f"term_{i}"].choices) == sorted(TERMS)


@pytest.mark.parametrize(
    ("name", "genes"),
    [
        (
            "sgd",
            {"terms": ("MOMENTUM",), "lr": 1e-2, "beta1": 0.9, "use_second_moment": False},
        ),
        (
            "adam",
            {"terms": ("ADAM_TERM",), "lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "bias_correction": True},
        ),
        (
            "adamw",
            {"terms": ("ADAM_TERM",), "lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "bias_correction": True}
            | {"weight_decay": 1e-2},
        ),
        ("rmsprop", {"terms": ("RMS_NORM",), "lr": 1e-3, "beta2": 0.99, "use_momentum": False}),
        (
            "evolved",
            {
                "terms": ("SIGN_GRAD", "SIGN_GRAD", "ADAM_TERM", "ADAM_TERM"),
                "lr": 10**-2.9198932483267144,
                "beta1": 0.8553020861538518,
                "beta2": 0.9357561078635277,
                "eps": 10**-8.26423960220415,
                "weight_decay": 10**-3.0112238437153316,
                "warmup": True,
                "warmup_steps": 100,
                "cosine_decay": True,
                "alphas": (0.41205802174892475, 0.32238621456272765, 2.0030004279455267, 1.6322011630060542),
            },
        ),
    ],
)
def test_a_preset_has_the_specs_numbers(name, genes):
    genome = SPACE.candidate(SPACE.presets()[name])
    rest = {"alphas": (1.0,), "eps": 1e-8, "weight_decay": 1e-4, "bias_correction": False}
    rest |= {"gradient_clipping": False, "warmup": False, "cosine_decay": False}
    rest |= {"use_momentum": True, "use_second_moment": True}
    for gene, value in {**rest, **genes}.items():
        assert getattr(genome, gene) == value, gene


def test_every_preset_survives_as_parameters():
    for name, params in SPACE.presets().items():
        assert within(params)
        assert SPACE.candidate(params) == PRESETS[name]


def test_only_the_presets_asked_for_are_offered():
    assert list(TermSpace(presets=("adam", "sgd")).presets()) == ["adam", "sgd"]
    with pytest.raises(KeyError):
        TermSpace(presets=("adagrad",))


def test_parameters_come_back_from_sqlite_to_the_last_bit(tmp_path):
    rng = np.random.default_rng(11)
    sent = [SPACE.mutate(SPACE.sample(rng), rng, 1.0) for _ in range(4)] + [SPACE.presets()["evolved"]]
    url = f"sqlite:///{tmp_path / 's.db'}"
    study = optuna.create_study(study_name="s", storage=url)
    for params in sent:
        study.add_trial(optuna.create_trial(params=params, distributions=SPACE.distributions(), value=0.0))
    back = [trial.params for trial in optuna.load_study(study_name="s", storage=url).trials]
    assert back == sent
    assert all(is_plain(params) for params in back)
    assert [float(p[g]).hex() for p in back for g in DOMAIN] == [
        float(p[g]).hex() for p in sent for g in DOMAIN
    ]


def test_suggest_asks_for_every_parameter():
    trial = optuna.create_study().ask()
    assert SPACE.suggest(trial) == trial.params
    assert list(trial.params) == list(SPACE.distributions())


def test_any_trial_of_any_sampler_is_a_genome():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(100):
        assert isinstance(SPACE.candidate(SPACE.suggest(study.ask())), TermGenome)


def test_the_space_can_vary_its_own_presets():
    space, rng = SPACES["terms"].make(), np.random.default_rng(12)
    variation: Variation = space
    pool = [*space.presets().values(), variation.sample(rng)]
    for first in pool:
        for second in pool:
            child = variation.mutate(variation.crossover(first, second, rng), rng, 1.0)
            assert list(child) == list(space.distributions())
            assert space.candidate(child).canonical()
