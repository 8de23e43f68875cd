"""A particle search through the objective: refused and diverged candidates, groups, and who reads it."""

from __future__ import annotations

import functools
import io
import random
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from particles import check, claims
from racing import FINISHED, STEPS, Line, Scored, Workers, chance
from rich.console import Console
from switch_space import SwitchSpace

from optevo import keys
from optevo.cli.status import _row
from optevo.errors import UserError
from optevo.evaluation.objective import Objective
from optevo.optim.terms import gate as integrity
from optevo.optim.terms.gate import gate
from optevo.reporting.frames import trials as frame
from optevo.reporting.populations import generations
from optevo.reporting.progress import SearchProgress
from optevo.samplers import GeneticSampler, ParticleSampler
from optevo.samplers.base import sampler_of
from optevo.samplers.individuals import params_of
from optevo.spaces import SPACES, SpaceKind, SpaceSection
from optevo.storage.counting import count_rows, count_trials
from optevo.storage.opening import open_storage
from optevo.study.check import checked
from optevo.study.check_trials import gate_of
from optevo.study.config import StudyConfig, parse_config
from optevo.study.studies import counted, create_or_resume, is_complete

SIZES = {"initial_size": 20, "n_particles": 3, "n_steps": 3, "n_mutations": 4, "n_attempts": 3}
TINY = {"initial_size": 8, "n_particles": 2, "n_steps": 2, "n_mutations": 3, "n_attempts": 3}
PLACES = 8 + 2 + 2 * 6


@pytest.fixture(autouse=True, scope="module")
def _quiet_and_quick() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(integrity, "gate", functools.cache(gate))  # most of what these studies would take
        yield
    optuna.logging.set_verbosity(before)


def config(space: str = "terms", seed: int = 7, **evaluation: Any) -> StudyConfig:
    return parse_config(
        {
            "name": "swarm",
            "seed": seed,
            "space": {"presets": []} if space == "terms" else {"kind": space},
            "sampler": {"kind": "particle", **(SIZES if space == "terms" else TINY)},
            "evaluation": {"tasks": ["digits", "mnist"], "steps": STEPS, "seeds": [0, 1], **evaluation},
        },
        "test",
    )


class Swarm(Workers):
    """Workers of a particle search on a line of rates, of which three ascend."""

    def __init__(self, n: int = 1) -> None:
        super().__init__(config(), n, make=self.sampler)  # type: ignore[arg-type]

    @staticmethod
    def sampler(config: StudyConfig) -> ParticleSampler:
        return ParticleSampler(**SIZES, seed=config.seed, space=Line(), max_failures=None, endless=False)

    def complete(self) -> bool:
        return sampler_of(self.studies[0]).slot_table(self.studies[0]).ended

    def play(self, luck: random.Random | None = None, kills: float = 0.0) -> dict[tuple[int, ...], Any]:
        luck = luck or random.Random(0)
        while not self.complete():
            worker = luck.randrange(len(self.studies))
            if worker not in self.live:
                self.ask(worker)
            elif luck.random() < kills:
                self.studies[worker].tell(self.live.pop(worker), state=TrialState.FAIL)
            else:
                self.finish(worker)
        return self.outcomes()

    def outcomes(self) -> dict[tuple[int, ...], Any]:
        found = claims(self.studies[0])
        name = {trial.number: claim for claim, trial in found.items()}
        return {
            claim: (
                trial.params,
                trial.state,
                trial.value,
                [name[number] for number in keys.ours(trial)[keys.PARENTS]],
                name.get(keys.ours(trial).get(keys.COPIED_FROM)),
                keys.ours(trial).get(keys.PRUNED_BY),
            )
            for claim, trial in found.items()
        }


@pytest.fixture(scope="module")
def swarm() -> Swarm:
    world = Swarm()
    world.play()
    return world


def test_what_the_gate_refuses_and_what_diverges_is_tried_again(swarm: Swarm):
    study, found = swarm.studies[0], claims(swarm.studies[0])
    check(study)
    reasons = [
        keys.ours(trial)[keys.PRUNED_BY] for trial in found.values() if trial.state == TrialState.PRUNED
    ]
    assert {reason.split(":")[0].split()[0] for reason in reasons} >= {"gate", "diverged"}
    assert not any(reason.startswith("racing") for reason in reasons)
    assert any(len(claim) == 3 for claim in found)
    assert study.best_value == max(t.value for t in found.values() if t.state == TrialState.COMPLETE)
    again = [trial for claim, trial in found.items() if claim[0] == 1]
    assert all(keys.COPIED_FROM in keys.ours(trial) for trial in again)  # nothing to train


@pytest.mark.parametrize("seed", range(4))
def test_neither_workers_nor_kills_change_fitness(swarm: Swarm, seed: int):
    assert Swarm(3).play(random.Random(seed), kills=0.2) == swarm.outcomes()


# A study of a file


class SwitchSection(SpaceSection):
    kind: str = "switch"


@pytest.fixture
def switches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPACES, "switch", SpaceKind(SwitchSection, SwitchSpace))


def step(study: optuna.Study, objective: Objective) -> None:
    study.optimize(objective, n_trials=1)


@pytest.mark.usefixtures("switches")
def test_a_study_file_of_a_define_by_run_space_is_read_by_everybody(tmp_path):
    study_config = config("switch")
    assert study_config.n_trials == PLACES
    url = f"sqlite:///{tmp_path}/optevo.db"
    study = create_or_resume(study_config, open_storage(url, create=True), "cpu")
    progress = SearchProgress(study, study_config)
    seen = []
    while not is_complete(study):
        study = create_or_resume(study_config, open_storage(url), "cpu")  # a new process
        objective = Objective(Scored(study_config), study_config.make_space())
        for _ in range(9):
            if not is_complete(study):
                step(study, objective)
        seen.append(counted(study))
        progress.study = study
        progress.lines()
        assert progress.counted == counted(study) <= PLACES
        counts = count_trials(study.trials)
        assert counts.decided == counted(study)
        with study._storage._backend.engine.connect() as connection:
            assert count_rows(connection, study._study_id) == counts
    assert seen[-1] == PLACES
    assert _row(study, study_config, counts, [])["state"] == "complete, not measured"
    found = claims(study)
    assert any(len(claim) == 3 for claim in found)  # the gate refuses rates above 5
    check(study, lambda params: (params["kind"], params[params["kind"]]))
    assert checked(study) == study_config
    assert found[0, 0].params == {"kind": "x", "x": 0.25}
    assert all(params_of(trial).keys() >= {"asleep"} for trial in found.values())
    table = frame(study, study_config)
    assert table["counted"].sum() == PLACES
    by_generation = generations(study, study_config)
    assert by_generation["n"].tolist() == [8, 2, 6, 6]
    Console(file=io.StringIO()).print(progress.table())


@pytest.mark.usefixtures("switches")
def test_a_search_whose_last_attempts_are_to_come_is_not_complete():
    study_config = config("switch")
    study = create_or_resume(study_config, optuna.storages.InMemoryStorage(), "cpu")
    while sampler_of(study).slot_table(study).generation < 3:
        step(study, Objective(Scored(study_config), study_config.make_space()))
    for trial in [study.ask() for _ in range(6)]:
        study.tell(trial, state=TrialState.PRUNED)
    counts = count_trials(study.trials)
    assert counts.decided == counted(study) == PLACES
    assert not is_complete(study)
    assert _row(study, study_config, counts, [])["state"] == "idle"


@pytest.mark.usefixtures("switches")
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (keys.CLAIM, [2, 6], "at most [3, 5]"),
        (keys.CLAIM, [1, 2], "at most [3, 1]"),
        (keys.CLAIM, [2, 0, 3], "at most [3, 5, 2]"),
        (keys.CLAIM, [2, 0, 1, 0], "'optevo:slot' is wrong"),
        (keys.CLAIM, [2, 0, -1], "'optevo:slot' is wrong"),
        (keys.DORMANT, [0.5], "'optevo:dormant' is wrong"),
    ],
)
def test_what_no_search_would_have_written_is_refused(key: str, value: object, message: str):
    gate = gate_of("a study", config("switch"), 1)

    def trial(**attrs: Any) -> optuna.trial.FrozenTrial:
        made = optuna.trial.create_trial(state=TrialState.FAIL, system_attrs=attrs)
        made.number = 0
        return made

    gate(trial(**{keys.CLAIM: [3, 5, 2], keys.DORMANT: {"asleep": 0.5}}), ("head",))
    with pytest.raises(UserError) as caught:
        gate(trial(**{key: value}), ("head",))
    assert message in str(caught.value)


@pytest.mark.usefixtures("switches")
def test_a_group_keeps_what_sleeps_in_its_members():
    def searched(k: int) -> dict[tuple[int, ...], Any]:
        world = Workers(
            parse_config(
                {
                    "name": "groups",
                    "space": {"kind": "switch"},
                    "sampler": {"kind": "genetic", "population_size": 8, "n_generations": 3, "n_elites": 2},
                    "evaluation": {
                        "tasks": ["digits"],
                        "steps": STEPS,
                        "pruner": "none",
                        "batch_candidates": k,
                    },
                },
                "test",
            ),
            score=lambda canonical, task, seed: chance(canonical),
            make=lambda one: GeneticSampler(
                population_size=8,
                n_generations=3,
                n_elites=2,
                seed=0,
                space=SwitchSpace(),
                group_size=k,
                endless=False,
            ),
        )
        world.play()
        done = [trial for trial in world.studies[0].trials if trial.state in FINISHED]
        for trial in done:
            assert trial.params.keys() == trial.distributions.keys() == {"kind", trial.params["kind"]}
            assert trial.system_attrs[keys.DORMANT].keys() == {"asleep"}
        return {tuple(trial.system_attrs[keys.CLAIM]): params_of(trial) for trial in done}

    assert searched(4) == searched(1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"evaluation": {"tasks": ["digits"], "batch_candidates": 2}},
            "particle proposes one trial at a time",
        ),
        ({"space": {"kind": "adam"}}, "the space 'adam' does not evolve; take grid, tpe or random"),
        ({"sampler": {"kind": "particle", "n_particles": 501}}, "must be at most initial_size, which is 500"),
        ({"sampler": {"kind": "particle", "initial_size": 3}}, "must be at most initial_size, which is 3"),
    ],
)
def test_what_does_not_go_together_is_told(changes: dict[str, Any], message: str):
    given = {"name": "a", "sampler": {"kind": "particle"}, "evaluation": {"tasks": ["digits"]}}
    parse_config(given, "test")
    with pytest.raises(UserError) as caught:
        parse_config({**given, **changes}, "test")
    assert message in str(caught.value)


def test_the_published_sizes_are_the_defaults():
    given = {"name": "a", "sampler": {"kind": "particle"}, "evaluation": {"tasks": ["digits"]}}
    assert parse_config(given, "test").n_trials == 500 + 50 + 50 * 5 * 7
