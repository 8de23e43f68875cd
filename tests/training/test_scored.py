"""Studies whose tasks score candidates by themselves: evaluated like others, and without torch."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState

from optevo import keys
from optevo.errors import UserError
from optevo.evaluation.objective import Interrupted, Objective
from optevo.measurement.fresh_seeds import measure
from optevo.optim.terms.presets import PRESETS
from optevo.samplers import NoSlot
from optevo.storage.opening import open_storage
from optevo.study.config import StudyConfig, parse_config
from optevo.study.studies import create_or_resume, make_sampler
from optevo.tasks import TASKS, ScoredTask, get_task
from optevo.training.bench import Bench
from optevo.training.benches import ScoredBench, make_bench, make_worker_bench
from optevo.training.fitness import DIVERGED

OWN = """
import sys
from pathlib import Path
from optevo.tasks import ScoredTask

with open("imported.txt", "a") as file:
    file.write("x")

class Surrogate(ScoredTask):
    name = "surrogate"

    def __init__(self):
        with open("made.txt", "a") as file:
            file.write("x")

    def score(self, candidate, seed, steps):
        if "torch" in sys.modules:
            Path("torch.txt").touch()
        Path(f"seed {seed}.txt").touch()
        return candidate.lr + 1e-6 * seed
"""


class Stub(ScoredTask):
    """Scores by a function of (candidate, seed, steps)."""

    def __init__(self, name: str = "stub", score: Callable[..., Any] = lambda c, seed, steps: c.lr) -> None:
        self.name, self.function = name, score
        self.loaded: list[Path] = []

    def load(self, root: Path) -> None:
        self.loaded.append(root)

    def score(self, candidate: Any, seed: int, steps: int) -> float | None:
        return self.function(candidate, seed, steps)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stub]:
    def register(*args: Any, **options: Any) -> Stub:
        task = Stub(*args, **options)
        monkeypatch.setitem(TASKS, task.name, lambda: task)
        return task

    return register


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "own_surrogate.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("own_surrogate", None)


def config(*tasks: str, sampler: dict[str, Any] | None = None, **evaluation: Any) -> StudyConfig:
    sizes = {"kind": "genetic", "population_size": 6, "n_generations": 3, "n_elites": 1}
    return parse_config(
        {
            "name": "scored",
            "space": {"presets": ["sgd", "adam"]},
            "sampler": sampler or sizes,
            "evaluation": {"tasks": list(tasks) or ["stub"], "steps": 7, "gate": False, **evaluation},
            "rerun": {"candidates": 2, "seeds": 2},
        },
        "test",
    )


def search(one: StudyConfig) -> optuna.Study:
    study = optuna.create_study(sampler=make_sampler(one), direction="maximize")
    objective = Objective(make_bench(one, "cpu", Path()), one.make_space())
    with contextlib.suppress(NoSlot):  # a group's lead adds the others' trials
        study.optimize(objective, n_trials=one.n_trials)
    return study


def test_a_study_file_names_a_scored_task_as_any_other(own: Path):
    assert isinstance(get_task("own_surrogate:Surrogate"), ScoredTask)
    assert isinstance(make_bench(config("own_surrogate:Surrogate"), "cpu", Path()), ScoredBench)


def test_a_scored_task_has_no_operations_to_count(stub: Callable[..., Stub]):
    stub()
    assert make_bench(config(), "cpu", Path()).operations(PRESETS["adam"], 0) is None
    with pytest.raises(UserError, match=r"evaluation\.budget: the task 'stub' scores candidates by itself"):
        make_bench(config(budget="flops"), "cpu", Path())


@pytest.mark.parametrize("make", [make_bench, make_worker_bench])
def test_a_users_module_is_imported_and_its_task_made_once(own: Path, make: Callable[..., Any]):
    make(config("own_surrogate:Surrogate"), "cpu", Path())
    assert (own / "imported.txt").read_text() == (own / "made.txt").read_text() == "x"


def test_tasks_that_train_get_the_bench_that_trains():
    assert isinstance(make_bench(config("digits"), "cpu", Path()), Bench)


def test_a_worker_that_trains_has_one_thread(stub: Callable[..., Stub]):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        stub()
        make_worker_bench(config(), "cpu", Path())
        assert torch.get_num_threads() == 2
        make_worker_bench(config("digits"), "cpu", Path())
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("order", [("digits", "stub"), ("stub", "digits")])
def test_the_two_kinds_of_task_do_not_mix(stub: Callable[..., Stub], order: tuple[str, str]):
    stub()
    with pytest.raises(UserError, match=r"'stub' scores .* 'digits' trains"):
        make_bench(config(*order), "cpu", Path())
    with pytest.raises(UserError, match="'stub' scores candidates by itself"):
        Bench(config(*order), "cpu", Path())


def test_two_scored_tasks_of_one_name_are_refused(stub: Callable[..., Stub], monkeypatch: pytest.MonkeyPatch):
    stub("a")
    monkeypatch.setitem(TASKS, "b", lambda: Stub("a"))
    with pytest.raises(UserError, match="two tasks have the name 'a'"):
        make_bench(config("a", "b"), "cpu", Path())


def test_a_task_loads_once_from_the_data_root(stub: Callable[..., Stub]):
    task = stub()
    bench = make_bench(config(), "cpu", Path("somewhere"))
    bench.run(PRESETS["adam"], 0, seed=0)
    bench.run(PRESETS["adam"], 0, seed=1)
    assert task.loaded == [Path("somewhere")]


def test_a_score_is_metric_and_fitness_and_sees_seed_and_steps(stub: Callable[..., Stub]):
    stub(score=lambda candidate, seed, steps: np.float32(0.25) + seed + 100 * steps)
    run = make_bench(config(), "cpu", Path()).run(PRESETS["adam"], 0, 3, on_point=None)
    assert (run.metric, run.fitness, run.steps, run.losses, run.loss) == (703.25, 703.25, 7, (), None)
    assert run.diverged_at is None
    assert json.loads(json.dumps(run.fitness)) == 703.25


@pytest.mark.parametrize("score", [None, math.nan, math.inf, -math.inf, -1e301])
def test_no_finite_score_is_a_diverged_run(stub: Callable[..., Stub], score: float | None):
    stub(score=lambda *_: score)
    run = make_bench(config(), "cpu", Path()).run(PRESETS["adam"], 0, 0)
    assert (run.metric, run.fitness, run.diverged_at) == (None, DIVERGED, 7)
    trial = search(config(sampler={"kind": "random", "n_trials": 2})).trials[0]
    assert (trial.state, trial.value) == (TrialState.PRUNED, None)


def test_a_run_does_not_begin_once_the_worker_is_to_stop(stub: Callable[..., Stub]):
    asked: list[int] = []
    stub(score=lambda candidate, seed, steps: asked.append(seed))

    def stop() -> None:
        raise Interrupted

    bench = make_bench(config(), "cpu", Path())
    with pytest.raises(Interrupted):
        bench.run(PRESETS["adam"], 0, 0, check=stop)
    with pytest.raises(Interrupted):
        bench.run_together([PRESETS["adam"], PRESETS["sgd"]], 0, 0, stop)
    assert not asked


def test_runs_go_seed_by_seed_since_all_tasks_cost_the_same(stub: Callable[..., Stub]):
    stub("a")
    stub("b")
    bench = make_bench(config("a", "b", seeds=[4, 2]), "cpu", Path())
    assert bench.order(bench.rehearse()) == [(0, 4), (1, 4), (0, 2), (1, 2)]


def test_runs_together_are_those_alone(stub: Callable[..., Stub]):
    stub(score=lambda candidate, seed, steps: candidate.lr + seed)
    bench = make_bench(config(), "cpu", Path())
    together = bench.run_together([PRESETS["adam"], PRESETS["sgd"]], 0, 1, lambda: None)
    assert not bench.stacks(0)
    assert [run.fitness for run in together] == [
        bench.run(PRESETS[name], 0, 1).fitness for name in ("adam", "sgd")
    ]


def test_a_trials_fitness_is_the_mean_over_seeds_then_tasks(stub: Callable[..., Stub]):
    stub("a", lambda candidate, seed, steps: float(seed))
    stub("b", lambda candidate, seed, steps: 10.0)
    trial = search(config("a", "b", seeds=[0, 1], pruner="none")).trials[0]
    assert (
        keys.ours(trial)[keys.FITNESS_PREFIX + "a"],
        keys.ours(trial)[keys.FITNESS_PREFIX + "b"],
        trial.value,
    ) == (0.5, 10.0, 5.25)
    assert keys.ours(trial)[keys.TRAINED_STEPS] == 4 * 7


@pytest.mark.parametrize("together", [1, 3])
def test_a_scored_study_copies_and_races(stub: Callable[..., Stub], together: int):
    stub(score=lambda candidate, seed, steps: 0.5 + candidate.lr + 0.1 * seed)
    sizes = {"kind": "genetic", "population_size": 12, "n_generations": 6, "n_elites": 2}
    trials = search(config(sampler=sizes, batch_candidates=together)).trials
    assert any(keys.ours(t).get(keys.PRUNED_BY, "").startswith("racing") for t in trials)
    counted = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    slots = [(keys.ours(t)[keys.GENERATION], keys.ours(t)[keys.SLOT]) for t in counted]
    assert len(set(slots)) == len(slots) == 12 + 5 * 10


def test_the_gate_turns_rules_away_where_the_study_wants_it(stub: Callable[..., Stub]):
    stub(score=lambda candidate, seed, steps: 0.5)
    trials = search(config(sampler={"kind": "random", "n_trials": 12}, gate=True)).trials
    gated = [t for t in trials if keys.ours(t).get(keys.PRUNED_BY, "").startswith("gate")]
    assert gated
    assert all(t.value is None and keys.ours(t)[keys.TRAINED_STEPS] == 0 for t in gated)


def test_the_best_is_measured_on_fresh_seeds_in_processes_without_torch(own: Path):
    one = config("own_surrogate:Surrogate", seeds=[0, 1])
    study = create_or_resume(one, open_storage(f"sqlite:///{own / 'a.db'}", create=True), "cpu")
    study.optimize(Objective(make_bench(one, "cpu", Path()), one.make_space()), n_trials=16)
    (own / "torch.txt").unlink()  # this process has imported it, for other tests
    result = measure(study, one, devices=["cpu"], data_root=Path())
    assert {path.stem for path in own.glob("seed *.txt")} == {f"seed {seed}" for seed in range(6)}
    assert not (own / "torch.txt").exists()
    assert result.rows[-1].mean == pytest.approx(study.trials[result.winner].params["lr"] + 4.5e-6)
