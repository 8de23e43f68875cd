"""Runs that an earlier generation made of the same optimizer are taken over, as if trained."""

from __future__ import annotations

import dataclasses
import functools
import math
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import FrozenTrial, TrialState
from racing import STEPS, Slots, Workers, by_slot, chance, config, raced
from strategies import genome
from torch import Tensor, nn

from optevo import keys
from optevo.evaluation.archive import read_run
from optevo.evaluation.objective import Objective
from optevo.optim.terms import gate as integrity
from optevo.optim.terms.gate import gate
from optevo.optim.terms.genome import TermGenome
from optevo.spaces import TermSpace
from optevo.study.config import StudyConfig, parse_config
from optevo.study.studies import make_sampler
from optevo.tasks import TASKS, Split, Task, build, get_task
from optevo.training.bench import Bench
from optevo.training.run import Run


@pytest.fixture(autouse=True, scope="module")
def _quiet_and_quick() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(integrity, "gate", functools.cache(gate))  # most of what these studies would take
        yield
    optuna.logging.set_verbosity(before)


# Whole studies on a bench that costs nothing

COSTS = {"digits": 5, "mnist": 2}


@pytest.fixture(scope="module", params=["racing", "none"])
def played(request: pytest.FixtureRequest) -> tuple[Slots, Workers]:
    workers = Workers(config(pruner=request.param), 3, costs=COSTS)
    return workers.play(random.Random(1)), workers


def test_a_copy_names_an_earlier_generation_with_the_same_form_and_at_least_as_many_runs(played):
    slots, _ = played
    copies = {slot: found for slot, found in slots.items() if keys.COPIED_FROM in found}
    assert len(copies) > 10
    for (g, _), found in copies.items():
        source = slots[found[keys.COPIED_FROM]]
        assert source[keys.GENERATION] < g
        assert source[keys.CANONICAL] == found[keys.CANONICAL]
        n = found[keys.COPIED_RUNS]
        assert 0 < n <= min(len(source[keys.RUNS]), len(found[keys.RUNS]))
        assert found[keys.RUNS][:n] == source[keys.RUNS][:n]


def test_a_form_known_from_an_earlier_generation_is_never_trained_again(played):
    slots, workers = played
    known: dict[str, int] = {}  # by form: the most runs of any earlier generation
    for g in range(6):
        members = [found for (generation, _), found in slots.items() if generation == g]
        for found in members:
            expected = min(known.get(found[keys.CANONICAL], 0), len(found[keys.RUNS]))
            assert found.get(keys.COPIED_RUNS, 0) == expected
            ended_badly = len(found[keys.RUNS]) - expected > 0 and keys.DIVERGED_AT in found
            steps = STEPS * (len(found[keys.RUNS]) - expected)
            assert found[keys.TRAINED_STEPS] == (steps - STEPS + 7 if ended_badly else steps)
        for found in members:
            known[found[keys.CANONICAL]] = max(known.get(found[keys.CANONICAL], 0), len(found[keys.RUNS]))
    trained = sum(len(bench.trained) for bench in workers.benches)
    taken = sum(len(found[keys.RUNS]) - found.get(keys.COPIED_RUNS, 0) for found in slots.values())
    assert trained == taken


def test_nothing_is_copied_within_a_generation(played):
    slots, _ = played
    twins = defaultdict(list)
    for (g, _), found in slots.items():
        if "gate" not in found.get(keys.PRUNED_BY, ""):
            twins[g, found[keys.CANONICAL]].append(found)
    firsts = [
        found
        for (g, form), same in twins.items()
        for found in same
        if len(same) > 1 and not any((before, form) in twins for before in range(g))
    ]
    assert len(firsts) >= 4  # twins in the generation in which their form first appears
    assert all(keys.COPIED_FROM not in found for found in firsts)


def test_a_copied_diverged_trial_is_pruned_without_a_value_too(played):
    slots, _ = played
    copied = [found for found in slots.values() if keys.COPIED_FROM in found]
    copies = [f for f in copied if keys.DIVERGED_AT in slots[f[keys.COPIED_FROM]] and not raced(f)]
    assert copies
    for found in copies:
        source = slots[found[keys.COPIED_FROM]]
        assert (found["state"], found["value"]) == (TrialState.PRUNED, None)
        assert found[keys.TRAINED_STEPS] == 0
        assert found[keys.PRUNED_BY] == source[keys.PRUNED_BY]
        assert found[keys.DIVERGED_AT] == source[keys.DIVERGED_AT]


def test_a_raced_trial_that_comes_back_goes_on_where_it_stopped():
    slots = Workers(config(), costs=COSTS).play()
    continued = [f for f in slots.values() if keys.COPIED_FROM in f and f[keys.TRAINED_STEPS]]
    assert continued
    for found in continued:
        source = slots[found[keys.COPIED_FROM]]
        assert raced(source)
        assert found[keys.COPIED_RUNS] == len(source[keys.RUNS]) < len(found[keys.RUNS])


def test_copying_changes_neither_genomes_nor_values_nor_verdicts(played, monkeypatch: pytest.MonkeyPatch):
    slots, workers = played
    monkeypatch.setattr("optevo.evaluation.archive.Archive.record", lambda *args: None)
    trained = Workers(workers.config, costs=COSTS).play()
    about_copies = (keys.COPIED_FROM, keys.COPIED_RUNS, keys.TRAINED_STEPS)
    for slot, found in slots.items():
        for key in found.keys() - set(about_copies):
            assert found[key] == trained[slot][key]


def test_samplers_without_generations_copy_nothing():
    slots = Workers(
        config({"kind": "genetic", "population_size": 40, "n_generations": 1, "n_elites": 0})
    ).play()
    assert len({found[keys.CANONICAL] for found in slots.values()}) < 30
    assert not any(keys.COPIED_FROM in found for found in slots.values())


# Real training


class Steep(Task):
    """Least squares whose loss explodes under a large learning rate."""

    name = "steep"

    def load(self, root: Path) -> dict[str, Split]:
        x = torch.randn(90, 3, generator=torch.Generator().manual_seed(0))
        y = x @ torch.tensor([1.0, -2.0, 3.0])
        return {
            "train": Split(x[:60], y[:60]),
            "validation": Split(x[60:75], y[60:75]),
            "test": Split(x[75:], y[75:]),
        }

    def model(self, generator: torch.Generator) -> nn.Module:
        return build(lambda: nn.Linear(3, 1), generator)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (model(batch[0]).squeeze(1) - batch[1]).square().mean() * 40 / 14

    def score(self, model: nn.Module, split: Split) -> float:
        with torch.no_grad():
            return math.exp(-float((model(split.inputs).squeeze(1) - split.targets).square().mean()))


def real_config(task: str = "digits", **evaluation: Any) -> StudyConfig:
    return parse_config(
        {
            "name": "copies",
            "space": {"presets": ["sgd", "adam", "rmsprop"]},
            "sampler": {"kind": "genetic", "population_size": 3, "n_generations": 3, "n_elites": 0},
            "evaluation": {"tasks": [task], "steps": 12, "seeds": [0, 1, 2], "pruner": "none", **evaluation},
        },
        "test",
    )


def asked(config: StudyConfig, *generations: list[TermGenome]) -> list[FrozenTrial]:
    """A study in which these genomes are enqueued, one generation after the other."""
    sampler, space = make_sampler(config), TermSpace()
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=optuna.pruners.NopPruner())
    objective = Objective(Bench(config, "cpu", Path()), space)
    for members in generations:
        for one in members:
            study.enqueue_trial(space.params(one))
        study.optimize(objective, n_trials=len(members))
    return study.trials


def twin(one: TermGenome) -> TermGenome:
    """Other genes, the same optimizer: what a dormant gene says has changed."""
    changed = dataclasses.replace(one, clip_value=1.5, warmup_steps=77)
    assert changed.canonical() == one.canonical()
    return changed


def but_for_time(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in run.items() if k != "seconds"} for run in runs]


GOOD = [
    genome("ADAM_TERM", lr=1e-2),
    genome("MOMENTUM", "SIGN_GRAD", lr=1e-3, cosine_decay=True),
    genome("GRAD", lr=1e-1),
]


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_copy_is_to_the_last_bit_what_training_gives():
    one = real_config()
    trials = asked(one, GOOD, [twin(g) for g in GOOD])
    bench = Bench(one, "cpu", Path())
    for source, copy, candidate in zip(trials[:3], trials[3:], GOOD, strict=True):
        assert copy.state == source.state == TrialState.COMPLETE
        assert copy.params != source.params
        assert keys.ours(copy)[keys.COPIED_FROM] == source.number
        assert keys.ours(copy)[keys.COPIED_RUNS] == 3
        assert keys.ours(copy)[keys.TRAINED_STEPS] == 0
        trained = [dataclasses.asdict(bench.run(twin(candidate), 0, seed)) for seed in (0, 1, 2)]
        assert [read_run(run) for run in but_for_time_zero(copy)] == [
            read_run({**run, "seconds": 0.0}) for run in trained
        ]
        assert copy.value == source.value
        assert (
            keys.ours(copy)[keys.FITNESS_PREFIX + "digits"]
            == keys.ours(source)[keys.FITNESS_PREFIX + "digits"]
        )
        assert copy.intermediate_values[36] == copy.value


def but_for_time_zero(trial: FrozenTrial) -> list[dict[str, Any]]:
    return [{**run, "seconds": 0.0} for run in keys.ours(trial)[keys.RUNS]]


@pytest.mark.usefixtures("one_thread")
def test_another_schedule_or_decay_is_another_optimizer():
    others = [
        dataclasses.replace(GOOD[0], cosine_decay=True),
        dataclasses.replace(GOOD[0], weight_decay=1e-3),
        dataclasses.replace(GOOD[0], lr=9.9e-3),
    ]
    trials = asked(real_config(seeds=[0]), GOOD, others)
    assert not any(keys.COPIED_FROM in keys.ours(trial) for trial in trials)


@pytest.mark.usefixtures("one_thread")
def test_a_copy_of_a_run_that_diverged_ends_as_it_did(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(TASKS, "tests:steep", Steep)
    wild = genome("GRAD", alphas=(5.0,), lr=1e-1)
    one = real_config("tests:steep", batch_size=20)
    trials = asked(one, [wild, *GOOD[:2]], [GOOD[0], twin(wild), GOOD[1]])
    source, copy = trials[0], trials[4]
    assert copy.state == source.state == TrialState.PRUNED
    assert copy.value is source.value is None
    assert keys.ours(copy)[keys.TRAINED_STEPS] == 0
    assert but_for_time(keys.ours(copy)[keys.RUNS]) == but_for_time(keys.ours(source)[keys.RUNS])
    assert keys.ours(copy)[keys.DIVERGED_AT] == keys.ours(source)[keys.DIVERGED_AT]
    assert keys.ours(copy)[keys.PRUNED_BY] == keys.ours(source)[keys.PRUNED_BY]


def test_a_stored_run_is_read_as_it_was():
    run = Run("digits", 3, 0.5, 0.5, None, (1.0, None), 7, 0.1, 6)
    assert read_run(dataclasses.asdict(run)) == run
    assert get_task("digits").name == run.task


def test_a_trial_that_failed_is_no_source():
    calls: list[int] = []

    def fails_once(canonical: str, task: str, seed: int) -> float:
        calls.append(seed)
        if len(calls) == 2:
            raise RuntimeError("once")
        return chance(canonical, task, seed)

    workers = Workers(config(gate=False, pruner="none"), score=fails_once)
    workers.ask(0)
    with pytest.raises(RuntimeError):
        workers.finish(0)
    workers.studies[0].tell(0, state=TrialState.FAIL)
    slots = workers.play()
    assert slots == by_slot(workers.studies[0].trials)
    assert all(len(found[keys.RUNS]) == 4 for found in slots.values())
