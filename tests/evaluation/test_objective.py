"""One trial: what it records, how it is scored, and how it ends when something goes wrong."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState
from torch import Tensor, nn

from optevo import keys
from optevo.errors import UserError
from optevo.evaluation.curve import CURVE_POINTS
from optevo.evaluation.objective import Interrupted, Objective
from optevo.study.config import StudyConfig, parse_config
from optevo.study.studies import make_pruner, make_sampler
from optevo.tasks import TASKS, Split, Task, build
from optevo.training.bench import Bench, resolve_device

Loss = Callable[[int, int], float]


class Stub(Task):
    """Its loss is `script(run, step)`; counts its runs."""

    def __init__(self, name: str, script: Loss = lambda run, step: 1.0) -> None:
        self.name, self.script, self.run, self.step = name, script, -1, 0
        self.looked_at: set[str] = set()

    def load(self, root: Path) -> dict[str, Split]:
        x = torch.arange(24.0).view(24, 1)
        return {name: Split(x + i, torch.zeros(24)) for i, name in enumerate(("train", "validation", "test"))}

    def model(self, generator: torch.Generator) -> nn.Module:
        self.run, self.step = self.run + 1, 0
        return build(lambda: nn.Linear(1, 1), generator)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        value, self.step = self.script(self.run, self.step), self.step + 1
        return model(batch[0]).sum() * 0.0 + value

    def score(self, model: nn.Module, split: Split) -> float:
        self.looked_at.add(("train", "validation", "test")[int(split.inputs[0])])
        return (self.run + 1) / 10


def config(tasks: tuple[str, ...] = ("stub",), **evaluation: Any) -> StudyConfig:
    return parse_config(
        {
            "name": "one",
            "space": {"presets": ["sgd", "adam"]},
            "sampler": {"kind": "genetic", "population_size": 4, "n_generations": 2, "n_elites": 1},
            "evaluation": {
                **{"tasks": list(tasks), "steps": 20, "seeds": [0], "batch_size": 8},
                **{"gate": False, "pruner": "none", **evaluation},
            },
        },
        "test",
    )


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stub]:
    def register(name: str = "stub", script: Loss = lambda run, step: 1.0) -> Stub:
        task = Stub(name, script)
        monkeypatch.setitem(TASKS, name, lambda: task)
        return task

    return register


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR + 10)
    yield
    optuna.logging.set_verbosity(before)


def search(config: StudyConfig, n: int, check: Callable[[], None] = lambda: None) -> optuna.Study:
    space = config.make_space()
    study = optuna.create_study(
        direction="maximize", sampler=make_sampler(config), pruner=make_pruner(config)
    )
    objective = Objective(Bench(config, "cpu", Path()), space, check)
    study.optimize(objective, n_trials=n, catch=(Exception,))
    return study


def trial_of(config: StudyConfig) -> optuna.trial.FrozenTrial:
    return search(config, 1).trials[0]


# What a trial keeps


def test_a_trial_keeps_everything_the_design_promises(stub):
    stub()
    study = search(config(), 6)
    for trial in study.trials:
        attrs = trial.user_attrs
        assert set(attrs) >= {keys.GENERATION, keys.SLOT, keys.PARENTS, keys.ORIGIN, keys.FORMULA}
        assert set(attrs) >= {keys.CANONICAL, keys.FITNESS_PREFIX + "stub", keys.RUNS, keys.SECONDS}
        (run,) = attrs[keys.RUNS]
        assert set(run) >= {"task", "seed", "metric", "loss", "losses", "steps", "seconds", "diverged_at"}
        assert run["steps"] == 20
        assert len(run["losses"]) == 10
        assert attrs[keys.FORMULA].startswith("Δ")
        assert len(trial.params) == 22
    assert {keys.ours(t)[keys.ORIGIN] for t in study.trials} == {"preset", "random", "crossover+mutation"}
    assert [len(keys.ours(t)[keys.PARENTS]) for t in study.trials] == [0, 0, 0, 0, 2, 2]
    assert [keys.ours(t)[keys.GENERATION] for t in study.trials] == [0, 0, 0, 0, 1, 1]
    assert [keys.ours(t)[keys.SLOT] for t in study.trials] == [0, 1, 2, 3, 0, 1]


def test_the_attributes_of_every_trial_are_json_that_browsers_read(stub):
    stub(script=lambda run, step: math.nan if run == 1 else 1.0)
    for trial in search(config(), 2).trials:
        json.dumps(trial.user_attrs, allow_nan=False)


def test_runs_go_seed_by_seed_through_tasks_that_cost_the_same(stub):
    stub("a")
    stub("b")
    runs = trial_of(config(("a", "b"), seeds=[4, 2])).user_attrs[keys.RUNS]
    assert [(run["task"], run["seed"]) for run in runs] == [("a", 4), ("b", 4), ("a", 2), ("b", 2)]


def test_fitness_is_the_mean_over_seeds_then_tasks(stub):
    stub("a")
    stub("b", lambda run, step: 0.5)
    trial = trial_of(config(("a", "b"), seeds=[0, 1]))
    assert keys.ours(trial)[keys.FITNESS_PREFIX + "a"] == pytest.approx(0.15)
    assert keys.ours(trial)[keys.FITNESS_PREFIX + "b"] == pytest.approx(0.15 + 0.05 * 0.5)
    assert trial.value == pytest.approx((0.15 + 0.175) / 2)


def test_two_tasks_of_one_name_are_refused(stub, monkeypatch: pytest.MonkeyPatch):
    stub("a")
    monkeypatch.setitem(TASKS, "b", lambda: Stub("a"))
    with pytest.raises(UserError, match="name"):
        Bench(config(("a", "b")), "cpu", Path())


# The test split


def test_a_search_does_not_even_hold_the_test_split(stub):
    task = stub()
    bench = Bench(config(), "cpu", Path())
    assert [set(splits) for _, splits in bench.tasks] == [{"train", "validation"}]
    trial_of(config())
    assert task.looked_at == {"validation"}


def test_selection_on_the_test_split_scores_it_alone(stub):
    task = stub()
    trial_of(config(split="test"))
    assert task.looked_at == {"test"}


def test_a_task_without_all_three_splits_is_refused(stub, monkeypatch: pytest.MonkeyPatch):
    task = stub()
    monkeypatch.setattr(task, "load", lambda root: {"train": None, "validation": None})
    with pytest.raises(UserError, match="'test'"):
        Bench(config(), "cpu", Path())


def test_a_batch_larger_than_the_data_is_refused_before_anything_is_trained(stub):
    stub()
    with pytest.raises(UserError, match="batch_size"):
        Bench(config(batch_size=25), "cpu", Path()).rehearse()


# The learning curve


@pytest.mark.parametrize("runs", [1, 2, 3, 4, 6, 9, 20])
@pytest.mark.parametrize("steps", [1, 3, 20])
def test_a_learning_curve_has_at_most_ten_points_at_rising_steps(stub, runs: int, steps: int):
    stub("a")
    trial = trial_of(config(("a",), seeds=list(range(runs)), steps=steps))
    points = list(trial.intermediate_values)
    assert 1 <= len(points) <= CURVE_POINTS == 10
    assert points == sorted(points)
    assert points[0] >= 1
    assert points[-1] == runs * steps
    assert trial.intermediate_values[points[-1]] == trial.value


def test_every_trial_reports_at_the_same_steps(stub):
    stub("a", lambda run, step: 0.1 * run + step)
    study = search(config(("a",), seeds=[0, 1, 2]), 4)
    assert len({tuple(trial.intermediate_values) for trial in study.trials}) == 1


def test_a_loss_far_below_zero_is_no_divergence(stub):
    # A user's negative log likelihood of a density: exp(−loss) overflows from −710 on.
    stub(script=lambda run, step: -1000.0)
    assert trial_of(config()).state == TrialState.COMPLETE


# Divergence


@pytest.mark.parametrize("bad", [math.nan, math.inf, 51.0])
def test_a_diverged_trial_is_pruned_and_has_no_value(stub, bad: float):
    task = stub(script=lambda run, step: bad if (run, step) == (1, 7) else 1.0)
    trial = trial_of(config(seeds=[0, 1, 2]))
    assert trial.state == TrialState.PRUNED
    assert trial.value is None
    assert math.isnan(trial.intermediate_values[60])  # for samplers that rank pruned trials by it
    assert keys.FITNESS_PREFIX + "stub" not in trial.user_attrs
    assert task.run == 1  # the third run was not begun
    assert len(keys.ours(trial)[keys.RUNS]) == 2
    assert keys.ours(trial)[keys.RUNS][1]["diverged_at"] == 7
    assert keys.ours(trial)[keys.DIVERGED_AT] == 20 + 7
    assert keys.ours(trial)[keys.PRUNED_BY] == "diverged: stub, seed 1, step 7"
    assert list(trial.intermediate_values) == sorted(trial.intermediate_values)
    assert len(trial.intermediate_values) <= CURVE_POINTS


def test_a_study_whose_every_trial_diverges_goes_through_its_generations(stub):
    stub(script=lambda run, step: math.nan)
    study = search(config(), 7)
    assert {trial.state for trial in study.trials} == {TrialState.PRUNED}
    assert [keys.ours(trial)[keys.GENERATION] for trial in study.trials] == [0] * 4 + [1] * 3


# Failure


def boom(error: BaseException) -> Loss:
    def script(run: int, step: int) -> float:
        raise error

    return script


@pytest.mark.parametrize(
    "error",
    [RuntimeError("a bug of the user's"), MemoryError(), KeyError("x"), torch.OutOfMemoryError("full")],
)
def test_an_exception_in_a_users_task_fails_the_trial_with_its_traceback(stub, error: Exception):
    stub(script=boom(error))
    trial = trial_of(config())
    assert trial.state == TrialState.FAIL
    assert "Traceback" in keys.ours(trial)[keys.ERROR]
    assert type(error).__name__ in keys.ours(trial)[keys.ERROR]
    assert "test_objective.py" in keys.ours(trial)[keys.ERROR]
    assert keys.ours(trial)[keys.FORMULA]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_that_is_not_finite_does_not_fail_the_trial_in_silence(stub, monkeypatch, value: float):
    task = stub()
    monkeypatch.setattr(task, "score", lambda model, split: value)
    trial = trial_of(config())
    assert trial.state == TrialState.PRUNED or keys.ERROR in keys.ours(trial)


def test_a_failed_slot_is_evaluated_again_with_the_same_genome(stub):
    task = stub()
    task.script = lambda run, step: 1.0 if run else boom(RuntimeError("once"))(run, step)
    first, *others = search(config(), 5).trials
    (second,) = [
        trial
        for trial in others
        if (keys.ours(trial)[keys.GENERATION], keys.ours(trial)[keys.SLOT]) == (0, 0)
    ]
    assert (first.state, second.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert first.params == second.params
    assert keys.ours(second)[keys.SLOT] == keys.ours(first)[keys.SLOT] == 0


def test_a_slot_is_given_up_after_three_failures(stub):
    stub(script=boom(RuntimeError("always")))
    slots = [keys.ours(trial)[keys.SLOT] for trial in search(config(), 12).trials]
    assert sorted(slots) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_an_interrupted_trial_fails_and_does_not_count_against_its_slot(stub):
    stub()
    turns = itertools.count()

    def check() -> None:
        if next(turns) < 5:
            raise Interrupted

    trials = search(config(), 6, check).trials
    assert [trial.state for trial in trials] == [TrialState.FAIL] * 5 + [TrialState.COMPLETE]
    assert {keys.ours(trial)[keys.SLOT] for trial in trials} == {0}
    assert all(keys.ours(trial)[keys.INTERRUPTED] for trial in trials[:5])
    assert keys.ERROR not in keys.ours(trials[0])


# Devices


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "mps", "meta", "cpu0"])
def test_an_unknown_device_is_refused_with_the_known_ones(name: str):
    with pytest.raises(UserError, match="expected auto, cpu, cuda or cuda:N"):
        resolve_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
def test_cuda_where_there_is_none_is_refused(name: str):
    with pytest.raises(UserError, match="--device cpu"):
        resolve_device(name)


def test_auto_finds_a_device():
    assert resolve_device("auto").type in ("cpu", "cuda")
