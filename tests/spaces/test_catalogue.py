"""`[space] catalogue`: which of the spaces of term genomes a study file means."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from small_studies import config, create

from optevo import keys
from optevo.errors import UserError
from optevo.spaces import ModernSpace, TermSpace

pytestmark = pytest.mark.usefixtures("quiet_optuna")

PRESETS = ("sgd", "adam", "adamw", "rmsprop")


def test_the_catalogue_chooses_the_space():
    made = config(space={"catalogue": "modern", "presets": ["lion", "muon"], "viable": True}).make_space()
    assert isinstance(made, ModernSpace)
    assert made.only_viable
    assert list(made.presets()) == ["lion", "muon"]
    assert isinstance(config(space={"catalogue": "published"}).make_space(), TermSpace)
    for catalogue in ("published", "modern"):
        assert tuple(config(space={"catalogue": catalogue}).make_space().presets()) == PRESETS


def test_the_key_is_stored_where_it_is_modern_alone():
    stored = config(space={"catalogue": "published"}).to_dict()
    assert stored == config(space={}).to_dict()
    assert stored["space"] == {"kind": "terms", "presets": list(PRESETS)}
    modern = config(space={"catalogue": "modern"})
    assert modern.to_dict()["space"] == {"kind": "terms", "catalogue": "modern", "presets": list(PRESETS)}
    assert config(**modern.to_dict()) == modern


def test_a_study_that_was_stored_without_the_key_is_resumed():
    storage = InMemoryStorage()
    assert "catalogue" not in create(storage).user_attrs[keys.CONFIG]["space"]
    create(storage, space__catalogue="published")
    with pytest.raises(UserError, match=r"space\.catalogue: absent → \"modern\""):
        create(storage, space__catalogue="modern")


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"catalogue": "modren"}, ["space.catalogue", '"modren"', "'published' or 'modern'"]),
        (
            {"presets": ["adam", "muon"]},
            ["space.presets.1", "'muon' is of catalogue = \"modern\", expected one of sgd, adam"],
        ),
        ({"catalogue": "modern", "presets": ["muonn"]}, ["space.presets.0", "did you mean 'muon'?"]),
        ({"presets": ["adan"]}, ["space.presets.0", "did you mean 'adam'?"]),
        ({"catalogue": "modern", "presets": ["lion", "lion"]}, ["'lion' is named twice"]),
    ],
)
def test_what_is_wrong_in_a_study_file_is_named(space: dict[str, Any], said: list[str]):
    with pytest.raises(UserError) as error:
        config(space=space)
    assert all(part in str(error.value) for part in said), error.value


def test_presets_of_an_unknown_catalogue_are_those_of_any():
    with pytest.raises(UserError) as error:
        config(space={"catalogue": "modren", "presets": ["muon"]})
    assert "muon" not in str(error.value)


@pytest.mark.parametrize("sampler", ["genetic", "random", "tpe", "particle"])
def test_samplers_search_the_modern_catalogue(sampler: str):
    sizes: dict[str, dict[str, int]] = {
        "genetic": {"population_size": 6, "n_generations": 3, "n_elites": 2},
        "particle": {"initial_size": 4, "n_particles": 2},
    }
    section = {"kind": sampler, **sizes.get(sampler, {"n_trials": 14})}
    space = {"catalogue": "modern", "presets": ["lion", "ortho_conv"]}

    def found() -> list[dict[str, Any]]:
        study = create(InMemoryStorage(), space=space, sampler=section)
        made = config(space=space, sampler=section).make_space()

        def fitness(trial: optuna.Trial) -> float:
            genome = made.candidate(made.suggest(trial))
            trial.set_user_attr(keys.CANONICAL, genome.canonical())
            return -abs(genome.lr - 0.003)

        study.optimize(fitness, n_trials=14)
        return [trial.params for trial in study.trials]

    first = found()
    assert first == found()
    assert len(set(map(ModernSpace().identity, first))) > 9
