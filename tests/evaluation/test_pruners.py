"""Optuna's own pruners: who they end, what that is worth, and what they may not be mixed with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.pruners import MedianPruner, NopPruner, WilcoxonPruner
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState
from strategies import genome
from torch import Tensor, nn

from optevo import keys
from optevo.errors import UserError
from optevo.evaluation.objective import Objective
from optevo.spaces import TermSpace
from optevo.study.config import StudyConfig, parse_config
from optevo.study.studies import create_or_resume, load_study, make_pruner
from optevo.tasks import TASKS, Split, Task, build
from optevo.training.bench import Bench

STEPS = 20
#: Loss and score of a run of the n-th trial, by seed.
Script = Callable[[int, int], tuple[float, float]]


class Scripted(Task):
    """Its loss and score are what `script(number of the trial, run of the trial)` says."""

    name = "scripted"

    def __init__(self, script: Script, n_runs: int) -> None:
        self.script, self.n_runs = script, n_runs
        self.trial, self.begun = -1, 0

    def load(self, root: Path) -> dict[str, Split]:
        x = torch.arange(24.0).view(24, 1)
        return {name: Split(x, torch.zeros(24)) for name in ("train", "validation", "test")}

    def model(self, generator: torch.Generator) -> nn.Module:
        self.begun += 1
        return build(lambda: nn.Linear(1, 1), generator)

    def now(self) -> tuple[float, float]:
        return self.script(self.trial, self.begun - 1)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return model(batch[0]).sum() * 0.0 + self.now()[0]

    def score(self, model: nn.Module, split: Split) -> float:
        return self.now()[1]


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def config(pruner: str, n_runs: int = 1, **more: Any) -> StudyConfig:
    evaluation = {"tasks": ["tests:scripted"], "steps": STEPS, "seeds": list(range(n_runs)), "batch_size": 8}
    return parse_config(
        {
            "name": "pruned",
            "space": {"presets": []},
            "sampler": {"kind": "genetic", "population_size": 8, "n_generations": 3, "n_elites": 0},
            **more,
            "evaluation": {**evaluation, "gate": False, "pruner": pruner, **more.get("evaluation", {})},
        },
        "test",
    )


def opened(config: StudyConfig) -> optuna.Study:
    """The study as a worker opens it."""
    storage = InMemoryStorage()
    create_or_resume(config, storage, "cpu")
    return load_study(storage, config.name)[0]


class Search:
    """A study of scripted trials."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, config: StudyConfig, script: Script) -> None:
        self.task = Scripted(script, len(config.evaluation.seeds))
        monkeypatch.setitem(TASKS, "tests:scripted", lambda: self.task)
        self.study = opened(config)
        self.objective = Objective(Bench(config, "cpu", Path()), config.make_space())

    def run(self, n: int) -> list[FrozenTrial]:
        def objective(trial: optuna.Trial) -> float:
            self.task.trial, self.task.begun = trial.number, 0
            return self.objective(trial)

        self.study.optimize(objective, n_trials=n, catch=(Exception,))
        return self.study.trials


# Which pruner


@pytest.mark.parametrize(
    ("name", "kind"),
    [("racing", NopPruner), ("none", NopPruner), ("median", MedianPruner), ("wilcoxon", WilcoxonPruner)],
)
def test_a_study_has_optunas_own_pruner_of_that_name(name: str, kind: type):
    one = config(name, n_runs=5)
    assert type(make_pruner(one)) is kind
    assert type(opened(one).pruner) is kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [("racing", NopPruner), ("none", NopPruner), ("median", MedianPruner), ("wilcoxon", WilcoxonPruner)],
)
def test_the_study_that_was_just_created_has_it_too(name: str, kind: type):
    # Optuna's default is a MedianPruner: whoever optimizes this study would prune under "none".
    assert type(create_or_resume(config(name, n_runs=5), InMemoryStorage(), "cpu").pruner) is kind


# Median


def losses(hopeless: int, loss: float = 3.0) -> Script:
    return lambda trial, run: (loss, 0.1) if trial == hopeless else (0.1 - 0.001 * trial, 0.9)


def test_the_median_pruner_ends_a_hopeless_trial_within_its_first_run(monkeypatch: pytest.MonkeyPatch):
    *others, last = Search(monkeypatch, config("median"), losses(5)).run(6)
    assert all(trial.state == TrialState.COMPLETE for trial in others)
    assert last.state == TrialState.PRUNED
    assert keys.ours(last)[keys.PRUNED_BY].startswith("MedianPruner: ")
    assert keys.ours(last)[keys.PRUNED_BY].endswith("at step 2")
    assert keys.ours(last)[keys.RUNS] == []
    assert last.value == 0.0


def test_a_trial_that_the_median_pruner_ends_keeps_what_its_runs_were_worth(monkeypatch: pytest.MonkeyPatch):
    def script(trial: int, run: int) -> tuple[float, float]:
        good = [(2.0, 0.2), (1.0, 0.4), (0.1, 0.9), (0.1, 0.9)]
        return (4.0, 0.05) if trial == 6 and run == 2 else good[run]

    *others, last = Search(monkeypatch, config("median", n_runs=4), script).run(7)
    assert all(trial.state == TrialState.COMPLETE for trial in others)
    assert last.state == TrialState.PRUNED
    assert len(keys.ours(last)[keys.RUNS]) == 2
    assert last.value == pytest.approx((0.2 + 0.4) / 4)
    assert keys.ours(last)[keys.TRAINED_STEPS] == 2 * STEPS
    assert keys.ours(last)[keys.FITNESS_PREFIX + "scripted"] == pytest.approx(0.3)


def test_a_pruned_trial_counts_in_its_generation_and_ranks_by_its_worth(monkeypatch: pytest.MonkeyPatch):
    search = Search(monkeypatch, config("median"), losses(5))
    search.run(8)
    board = search.study.sampler.slot_table(search.study)
    assert board.generation == 1
    assert board.populations[0][-1].number == 5


def test_without_a_pruner_the_same_trial_is_trained(monkeypatch: pytest.MonkeyPatch):
    for name in ("none", "racing"):
        trials = Search(monkeypatch, config(name), losses(5)).run(6)
        assert all(trial.state == TrialState.COMPLETE for trial in trials)


# Wilcoxon


def instances(trial: int, run: int) -> tuple[float, float]:
    return 1.0, (0.3 if trial == 1 else 0.8) + 0.01 * run


def test_the_wilcoxon_pruner_ends_a_hopeless_trial_after_a_run(monkeypatch: pytest.MonkeyPatch):
    first, second, third = Search(monkeypatch, config("wilcoxon", n_runs=8), instances).run(3)
    assert (first.state, second.state, third.state) == (
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.COMPLETE,
    )
    runs = keys.ours(second)[keys.RUNS]
    assert 2 <= len(runs) < 8
    assert keys.ours(second)[keys.PRUNED_BY].startswith("WilcoxonPruner: ")
    assert second.value == pytest.approx(math.fsum(run["fitness"] for run in runs) / 8)


def test_the_wilcoxon_pruner_compares_runs_by_their_number(monkeypatch: pytest.MonkeyPatch):
    first, second = Search(monkeypatch, config("wilcoxon", n_runs=8), instances).run(2)
    fitness = [run["fitness"] for run in keys.ours(first)[keys.RUNS]]
    assert [first.intermediate_values[i] for i in range(7)] == fitness[:7]
    n = len(keys.ours(second)[keys.RUNS])
    assert {step for step in second.intermediate_values if step < 8} == set(range(n))


def test_the_wilcoxon_pruner_spares_a_trial_that_is_as_good(monkeypatch: pytest.MonkeyPatch):
    trials = Search(
        monkeypatch, config("wilcoxon", n_runs=8), lambda trial, run: (1.0, 0.5 + 0.01 * run)
    ).run(4)
    assert all(trial.state == TrialState.COMPLETE for trial in trials)


# Copies under a pruner


@pytest.mark.parametrize("pruner", ["median", "wilcoxon"])
def test_copied_runs_that_the_pruner_frowns_on_do_not_fail_the_trial(
    monkeypatch: pytest.MonkeyPatch, pruner: str
):
    # Trial 0 comes when there is nothing to compare with, and is trained; its twin comes when there is.
    n = 6
    search = Search(
        monkeypatch,
        config(pruner, n_runs=n),
        lambda trial, run: (1.0, 0.2 if trial == 0 else 0.8 + 0.001 * run),
    )
    space = TermSpace()
    search.study.enqueue_trial(space.params(genome("ADAM_TERM")))
    search.run(8)
    search.study.enqueue_trial(space.params(genome("ADAM_TERM", clip_value=1.7)))
    source, *_, twin = search.run(1)
    assert keys.ours(source)[keys.CANONICAL] == keys.ours(twin)[keys.CANONICAL]
    assert source.state == TrialState.COMPLETE
    assert keys.ERROR not in keys.ours(twin), keys.ours(twin)[keys.ERROR]
    assert twin.state in (TrialState.COMPLETE, TrialState.PRUNED)
    assert keys.ours(twin)[keys.TRAINED_STEPS] == 0


# What a study file may say


@pytest.mark.parametrize("pruner", ["median", "wilcoxon"])
def test_a_pruner_that_judges_one_trial_at_a_time_is_refused_for_groups(pruner: str):
    with pytest.raises(UserError, match="batch_candidates"):
        config(pruner, n_runs=5, evaluation={"batch_candidates": 2})


@pytest.mark.parametrize("pruner", ["racing", "none"])
def test_other_pruners_go_with_groups(pruner: str):
    assert config(pruner, evaluation={"batch_candidates": 2}).evaluation.batch_candidates == 2


def test_a_wilcoxon_pruner_that_could_never_prune_is_refused():
    with pytest.raises(UserError, match="at least 5 runs"):
        config("wilcoxon", n_runs=4)
    assert config("wilcoxon", n_runs=5).evaluation.pruner == "wilcoxon"


def test_tpe_is_refused_for_groups():
    tpe = {"kind": "tpe", "n_trials": 5}
    with pytest.raises(UserError, match="batch_candidates"):
        config("none", sampler=tpe, evaluation={"batch_candidates": 2})
    assert config("median", sampler=tpe).evaluation.pruner == "median"


@pytest.mark.parametrize("pruner", ["", "Median", "hyperband", True])
def test_an_unknown_pruner_is_refused_with_the_known_ones(pruner: Any):
    with pytest.raises(
        UserError, match=r"evaluation\.pruner.*'racing', 'racing_within_runs', 'wilcoxon', 'median' or 'none'"
    ):
        config(pruner)
