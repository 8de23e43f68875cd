"""A space of viable individuals draws until one passes its gate; other spaces draw what they always drew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from optuna.storages import InMemoryStorage
from small_studies import GENETIC, RANDOM, TPE, config, create, finish

from optevo import keys
from optevo.errors import UserError
from optevo.samplers.slots import Slot
from optevo.spaces import Params, TermSpace
from optevo.spaces.base import ATTEMPTS
from optevo.storage.study_file import read_study
from optevo.study.studies import load_study, make_sampler

RESULTS = Path(__file__).parents[2] / "studies" / "results"
PLAIN, VIABLE = TermSpace(), TermSpace(viable=True)

pytestmark = pytest.mark.usefixtures("quiet_optuna")


def passes(params: Params) -> bool:
    return PLAIN.candidate(params).gate() is None


def generator() -> np.random.Generator:
    return np.random.default_rng(7)


def test_a_random_individual_is_the_first_of_the_prior_that_passes():
    one, other = generator(), generator()
    draws = [PLAIN.sample(one) for _ in range(30)]
    expected = list(filter(passes, draws))
    assert 8 < len(expected) < 25
    assert [VIABLE.sample(other) for _ in expected] == expected


def test_a_child_is_the_first_of_its_parents_children_that_passes():
    one, other = generator(), generator()
    parents = [params for params in (PLAIN.sample(one) for _ in range(8)) if not passes(params)][:2]
    other.bit_generator.state = one.bit_generator.state
    child = VIABLE.vary(parents, other, 1.0)
    children = [PLAIN.vary(parents, one, 1.0) for _ in range(60)]
    assert not passes(children[0])
    assert next(filter(passes, children)) == child


class Counted(TermSpace):
    """What is drawn is counted; nothing passes."""

    def __init__(self) -> None:
        super().__init__(viable=True)
        self.draws: list[Params] = []

    def _random(self, rng: np.random.Generator) -> Params:
        self.draws.append(super()._random(rng))
        return self.draws[-1]

    def viable(self, params: Params) -> Params | None:
        return None


def test_drawing_ends_where_nothing_passes():
    space = Counted()
    assert space.sample(generator()) is space.draws[-1]
    assert len(space.draws) == ATTEMPTS


class Mended(TermSpace):
    """A space that knows how to repair the sign of its weights."""

    def viable(self, params: Params) -> Params | None:
        other = {**params, **{f"alpha_{i}": -params[f"alpha_{i}"] for i in range(4)}}
        return super().viable(params) or super().viable(other)


def test_a_space_may_repair_what_it_draws():
    rng, space = generator(), Mended(viable=True)
    mended = [space.sample(rng) for _ in range(20)]
    assert all(map(passes, mended))
    plain = [PLAIN.sample(rng) for rng in [generator()] for _ in range(20)]
    assert any(a != b and abs(a["alpha_0"]) == abs(b["alpha_0"]) for a, b in zip(mended, plain, strict=True))


@pytest.mark.parametrize("sampler", [GENETIC, RANDOM], ids=lambda one: one["kind"])
def test_every_individual_of_a_search_passes(sampler: dict):
    study = create(InMemoryStorage(), space__viable=True, sampler=sampler, space__presets=[])
    finish(study)
    assert all(passes(trial.params) for trial in study.trials)
    again = create(InMemoryStorage(), space__viable=True, sampler=sampler, space__presets=[])
    finish(again)
    assert [trial.params for trial in again.trials] == [trial.params for trial in study.trials]


def test_tpe_which_draws_by_itself_refuses_such_a_space():
    with pytest.raises(UserError, match=r"space\.viable: tpe draws by itself"):
        config(space__viable=True, sampler=TPE)


# Studies that were stored before there was the key


def test_the_key_is_stored_where_it_is_true_alone():
    assert config(space__viable=False).to_dict()["space"] == {"kind": "terms", "presets": ["sgd", "adam"]}
    stored = config(space__viable=True).to_dict()
    assert stored["space"]["viable"] is True
    assert config(**stored) == config(space__viable=True)
    assert not config().make_space().only_viable
    assert config(space__viable=True).make_space().only_viable


def test_a_study_that_was_stored_without_the_key_is_resumed():
    storage = InMemoryStorage()
    study = create(storage)
    assert "viable" not in study.user_attrs[keys.CONFIG]["space"]
    create(storage, space__viable=False)
    with pytest.raises(UserError, match=r"space\.viable: absent → true"):
        create(storage, space__viable=True)


def test_a_published_search_keeps_its_fingerprint_and_breeds_the_same_genomes():
    study, config = load_study(read_study(RESULTS / "quickstart" / "quickstart.json"), "quickstart")
    assert config.fingerprint() == study.user_attrs[keys.FINGERPRINT]
    sampler = make_sampler(config)
    sampler.slot_table(study)
    compared = 0
    for trial in study.trials:
        slot = Slot(keys.ours(trial)[keys.GENERATION], keys.ours(trial)[keys.SLOT])
        assert sampler.group(study, slot)[slot] == trial.params
        compared += 1
    assert compared == config.n_trials
