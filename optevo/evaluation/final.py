"""A study's winner on the test split: with the final budget, once a study.

What is read on the test split and then acted upon is no test any more. So the first measurement is kept with
the study and shown from then on; another one is made only where it is asked for by name, and says that it is
another one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optevo import keys
from optevo.environment import environment
from optevo.errors import UserError
from optevo.evaluation.archive import read_run
from optevo.evaluation.measuring import Measurer, again_when_killed, processes
from optevo.evaluation.runs import Run
from optevo.study import make_space

if TYPE_CHECKING:
    import optuna

    from optevo.config import StudyConfig

STEPS, SEEDS = 1000, 3  # as in the published comparison
FIRST_SEED = 1000  # the same in every study, so that runs pair; searches use seeds far below


@dataclass(frozen=True)
class Final:
    """How a study's winner did on the test split.

    Attributes:
        study: The study's name.
        trial: The winner's number.
        attempt: 1 for the first reading of the test split, the only one that is unbiased.
        steps: Mini-batches a run.
        runs: Task by task, seed by seed.
    """

    study: str
    trial: int
    attempt: int
    steps: int
    runs: tuple[Run, ...]

    @property
    def seeds(self) -> list[int]:
        """Those of every task's runs."""
        return list(dict.fromkeys(run.seed for run in self.runs))

    @property
    def tasks(self) -> list[str]:
        """Task names, in the study's order."""
        return list(dict.fromkeys(run.task for run in self.runs))


@dataclass(frozen=True)
class Plan:
    """What a measurement of a study's winner is, or was begun as."""

    attempt: int
    trial: int
    steps: int
    seeds: tuple[int, ...]


def plan(
    study: optuna.Study,
    winner: int,
    *,
    steps: int | None = None,
    n_seeds: int | None = None,
    again: bool = False,
) -> Plan:
    """The measurement that the study has, finished or not; else, or with `again`, a new one.

    Args:
        study: A study of ours.
        winner: The trial to measure, for a new one.
        steps: Mini-batches a run. Default: None, the stored measurement's, else 1,000.
        n_seeds: Runs a task. Default: None, the stored measurement's, else 3.
        again: Whether to measure anew where a measurement is finished.

    Raises:
        UserError: The stored measurement has another number of steps or seeds, or is of another trial.
    """
    found = _plans(study)
    if found and not (again and finished(study, found[-1]) is not None):
        last = found[-1]
        wanted = {"steps": (steps, last.steps), "seeds": (n_seeds, len(last.seeds))}
        for name, (asked, stored) in wanted.items():
            if asked not in (None, stored):
                raise UserError(
                    f"study {study.study_name!r} was measured on the test split with {stored} {name}, not "
                    f"{asked}. The test split is for one reading: leave --{name} out to see it; --again "
                    "reads it anew, and marks the result"
                )
        return last
    seeds = tuple(range(FIRST_SEED, FIRST_SEED + (n_seeds or SEEDS)))
    return Plan(len(found) + 1, winner, steps or STEPS, seeds)


def final_config(config: StudyConfig, plan: Plan) -> StudyConfig:
    """The study's configuration with the final budget, on the test split."""
    update = {"steps": plan.steps, "seeds": plan.seeds, "split": "test"}
    return config.model_copy(update={"evaluation": config.evaluation.model_copy(update=update)})


def finished(study: optuna.Study, plan: Plan) -> Final | None:
    """The stored measurement, None while a run of it is missing."""
    prefix = f"{keys.FINAL}{plan.attempt}:"
    runs = [read_run(value) for key, value in study.user_attrs.items() if key.startswith(prefix)]
    n_tasks = len(study.user_attrs[keys.CONFIG]["evaluation"]["tasks"])
    if len(runs) < n_tasks * len(plan.seeds):
        return None
    names = [key.removeprefix(prefix) for key in study.user_attrs if key.startswith(prefix)]
    order = sorted(range(len(runs)), key=lambda i: tuple(map(int, names[i].split(":")[1:])))
    return Final(study.study_name, plan.trial, plan.attempt, plan.steps, tuple(runs[i] for i in order))


def stored_final(study: optuna.Study) -> Final | None:
    """The latest finished measurement, if there is one."""
    every = [finished(study, plan) for plan in _plans(study)]
    return next((final for final in reversed(every) if final is not None), None)


def measure_final(
    study: optuna.Study,
    config: StudyConfig,
    plan: Plan,
    *,
    devices: Sequence[str],
    data_root: Path,
    progress: Callable[[int], None] = lambda done: None,
) -> Final:
    """Train the planned trial and score it on the test split; runs that are stored are not repeated.

    Args:
        study: A study of ours.
        config: Its configuration.
        plan: From `plan`.
        devices: Where to train, one a process.
        data_root: Where data sets lie.
        progress: Called with the number of runs done so far.

    Raises:
        RunFailed: The processes were killed, again and again.
    """
    done = finished(study, plan)
    if done is not None:
        return done
    budget = final_config(config, plan)
    candidate = make_space(config).candidate(study.get_trials(deepcopy=False)[plan.trial].params)
    # Before anything is read: whoever comes later sees that the split is spent.
    header: dict[str, Any] = {"trial": plan.trial, "steps": plan.steps, "seeds": list(plan.seeds)}
    if f"{keys.FINAL}{plan.attempt}" not in study.user_attrs:
        where = environment(devices[0])
        study.set_user_attr(f"{keys.FINAL}{plan.attempt}", {**header, "environment": where})

    def once() -> None:
        with processes(budget, devices, data_root) as pool:
            measurer = Measurer(study, budget, pool, f"{keys.FINAL}{plan.attempt}", progress)
            measurer.measure({"winner": candidate}, plan.seeds)

    again_when_killed(once)
    measured = finished(study, plan)
    assert measured is not None
    return measured


def _plans(study: optuna.Study) -> list[Plan]:
    """Every measurement that was begun, in order."""
    found: list[Plan] = []
    while (header := study.user_attrs.get(f"{keys.FINAL}{len(found) + 1}")) is not None:
        found.append(Plan(len(found) + 1, header["trial"], header["steps"], tuple(header["seeds"])))
    return found
