"""Small searches and the stages that their best go into, trained in this process."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
from measuring import Memory
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from small_studies import config, create, finish

from optevo import keys
from optevo.evaluation.objective import Objective
from optevo.evaluation.stages import StageObjective
from optevo.samplers import NoSlot
from optevo.study.config import StudyConfig, parse_stages
from optevo.study.promotion import begin_stages, begun_pipeline, staged_study
from optevo.study.stages import Pipeline
from optevo.study.studies import is_complete, load_study
from optevo.tasks import ScoredTask
from optevo.training.benches import make_bench

STAGES: dict[str, Any] = {
    "promote": 5,
    "stages": [
        {"name": "longer", "keep": 3, "tasks": ["staging:Far"], "steps": 7},
        {"name": "longest", "keep": 1, "tasks": ["staging:Far"], "steps": 20, "seeds": [0, 1]},
    ],
}


class Far(ScoredTask):
    """Another order than the search's: momentum counts for more the longer a run is."""

    name = "far"
    diverges: Callable[[Any, int], bool] = staticmethod(lambda candidate, steps: False)

    def score(self, candidate: Any, seed: int, steps: int) -> float | None:
        if self.diverges(candidate, steps):
            return None
        return float(-abs(candidate.lr - 0.003) + 1e-3 * steps * candidate.beta1 + 1e-3 * seed)


def pipeline(one: StudyConfig | None = None, **changes: Any) -> Pipeline:
    return parse_stages({**STAGES, **changes}, "test", one or config())


def searched(storage: BaseStorage | None = None, **changes: Any) -> optuna.Study:
    """A finished search."""
    storage = storage or Memory()
    finish(create(storage, **changes))
    return load_study(storage, "one")[0]


def worker(study: optuna.Study, one: StudyConfig) -> tuple[optuna.Study, StageObjective]:
    """What a worker process has: the study by its stages, and their objective."""
    stages = begun_pipeline(study, one)
    objective = StageObjective(
        lambda staged: Objective(make_bench(staged, "cpu", Path()), staged.make_space()),
        [one.staged(stage) for stage in stages.stages],
    )
    return staged_study(study, one, stages), objective


def train(
    study: optuna.Study,
    one: StudyConfig | None = None,
    *,
    workers: int = 1,
    most: int | None = None,
    **changes: Any,
) -> None:
    """The stages of `STAGES`, to their end or until so many trials have been begun."""
    one = one or config()
    begin_stages(study, one, pipeline(one, **changes))

    def work(number: int) -> None:
        staged, objective = worker(study, one)
        begun = 0
        while not is_complete(staged) and (most is None or begun < most):
            begun += 1
            try:
                staged.optimize(objective, n_trials=1)
            except NoSlot:
                continue

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers)))


def outcome(study: optuna.Study) -> set[tuple[Any, ...]]:
    """Stage, place and candidate of every trial of a stage that counts, with its fitness."""
    trials = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    return {
        (*trial.system_attrs[keys.STAGE_CLAIM], trial.user_attrs[keys.PROMOTED_FROM], trial.value)
        for trial in trials
        if keys.STAGE_CLAIM in trial.system_attrs
    }
