"""Trials of equal operations: what they keep, on one axis, copied and gone on with as ever."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from measuring import Memory
from torch import Tensor, nn

from optevo import keys
from optevo.evaluation.objective import Interrupted, Objective
from optevo.study.config import StudyConfig, parse_config
from optevo.study.studies import create_or_resume
from optevo.tasks import TASKS, Split, Task, build
from optevo.training.bench import Bench

STEPS = 20
pytestmark = pytest.mark.usefixtures("quiet_optuna")


class Small(Task):
    """A matrix for batches so small that updates are most of a step; `bad` says which seeds diverge."""

    name = "small"
    bad: frozenset[int] = frozenset()

    def load(self, root: Path) -> dict[str, Split]:
        x = torch.linspace(-1, 1, 30 * 8).view(30, 8)
        return dict.fromkeys(("train", "validation", "test"), Split(x, torch.arange(30) % 3))

    def model(self, generator: torch.Generator) -> nn.Module:
        self.diverges, self.step = generator.initial_seed() in self.bad, 0
        return build(lambda: nn.Linear(8, 3), generator)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.step += 1
        loss = super().loss(model, batch)
        return loss * math.nan if self.diverges and self.step == 4 else loss


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "small", Small)


def config(**changes: Any) -> StudyConfig:
    evaluation = {"tasks": ["small"], "steps": STEPS, "seeds": [0, 1], "batch_size": 2, "budget": "flops"}
    sampler = {"kind": "genetic", "population_size": 4, "n_generations": 2, "n_elites": 0}
    data = {"name": "one", "space": {"presets": ["sgd", "adamw"]}, "sampler": sampler}
    return parse_config(
        {**data, "evaluation": {**evaluation, "gate": False, "pruner": "none", **changes}}, "t"
    )


def search(one: StudyConfig, n: int = 8, check: Any = lambda: None, storage: Any = None) -> optuna.Study:
    study = create_or_resume(one, storage or Memory(), "cpu")
    objective = Objective(Bench(one, "cpu", Path()), one.make_space(), check)
    study.optimize(objective, n_trials=n, catch=(Interrupted,))
    return study


def outcome(trial: optuna.trial.FrozenTrial) -> tuple[Any, ...]:
    runs = [{k: v for k, v in run.items() if k != "seconds"} for run in trial.user_attrs[keys.RUNS]]
    return trial.params, trial.value, runs, trial.intermediate_values, trial.user_attrs[keys.TRAINED_STEPS]


def test_every_trial_has_the_operations_of_the_budget():
    one = config()
    bench, space = Bench(one, "cpu", Path()), one.make_space()
    lengths = set()
    for trial in search(one).trials:
        cost = bench.operations(space.candidate(trial.params), 0)
        steps = cost.steps_for(STEPS)
        assert steps * cost.total <= STEPS * (cost.model + cost.adamw) < (steps + 1) * cost.total
        assert {run["steps"] for run in trial.user_attrs[keys.RUNS]} == {steps}
        if keys.COPIED_RUNS not in trial.user_attrs:
            assert trial.user_attrs[keys.TRAINED_STEPS] == 2 * steps
        assert max(trial.intermediate_values) == 2 * STEPS  # whatever its own number of steps
        assert len(trial.intermediate_values) == 10
        lengths.add(steps)
    assert len(lengths) > 2
    assert max(lengths) > STEPS


def test_a_run_that_diverged_is_told_by_the_candidate_s_own_steps(monkeypatch: pytest.MonkeyPatch):
    from optevo.training.single import _seed  # noqa: PLC0415  what decides a run's weights

    monkeypatch.setattr(Small, "bad", frozenset({_seed("small", 1, "model")}))
    trial = search(config(), 1).trials[0]
    first, second = trial.user_attrs[keys.RUNS]
    assert first["steps"] > STEPS
    assert second["diverged_at"] == 3
    assert trial.user_attrs[keys.DIVERGED_AT] == first["steps"] + 3


def test_a_study_of_equal_operations_goes_on_where_it_was():
    whole = search(config())
    storage, left = Memory(), [60]

    def check() -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Interrupted

    search(config(), 3, check, storage)
    study = search(config(), 6, storage=storage)
    finished = [t for t in study.trials if t.state.name == "COMPLETE"]
    assert sorted(map(repr, map(outcome, finished))) == sorted(map(repr, map(outcome, whole.trials)))


def test_a_budget_of_steps_counts_no_operations(monkeypatch: pytest.MonkeyPatch):
    def counting(*_: Any) -> None:
        raise AssertionError("counted")

    monkeypatch.setattr(Bench, "operations", counting)
    for trial in search(config(budget="steps"), 3).trials:
        assert {run["steps"] for run in trial.user_attrs[keys.RUNS]} == {STEPS}
