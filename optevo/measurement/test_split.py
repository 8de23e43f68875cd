"""A study's winner on the test split: with the final budget, once a study.

What is read on the test split and then acted upon is no test any more. So the first one is kept with the
study and shown from then on; another one is made only where it is asked for by name, and says that it is
another one. The final budget is one of steps, the same for all, or one of operations, those of so many
steps with AdamW; each has a first one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from optevo import keys
from optevo.errors import UserError
from optevo.liveness.lost import host_name, state_of, worker_identity
from optevo.measurement.pool import Measurer, again_when_killed, form_of, kept_runs, processes
from optevo.optim.candidate import Candidate
from optevo.study.environment import environment
from optevo.training.base import Operations
from optevo.training.run import Run

if TYPE_CHECKING:
    import optuna

    from optevo.study.config import StudyConfig

STEPS, SEEDS = 1000, 3  # as in the published comparison
FIRST_SEED, MOST_SEEDS = 1000, 1000  # the same in every study, so that runs pair
BUDGETS = ("steps", "flops")  # see `optevo.study.evaluation.EvaluationConfig`


@dataclass(frozen=True)
class TestEvaluation:
    """How a study's winner did on the test split.

    Attributes:
        study: The study's name.
        trial: The winner's number.
        attempt: 1 for the first on the test split, the only one that is unbiased.
        steps: Mini-batches a run.
        runs: Task by task, seed by seed.
        environment: Versions and machine that it was begun with.
        budget: One of `BUDGETS`. Default: "steps".
        operations: Of a training step on each task; empty where they were not counted. Default: empty.
    """

    study: str
    trial: int
    attempt: int
    steps: int
    runs: tuple[Run, ...]
    environment: dict[str, Any]
    budget: str = "steps"
    operations: tuple[Operations, ...] = ()

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
    """What a test evaluation is to be, or was begun as."""

    attempt: int
    trial: int
    steps: int
    seeds: tuple[int, ...]
    budget: str = "steps"


def next_evaluation(studies: Sequence[tuple[optuna.Study, StudyConfig, int]], budget: str = "steps") -> int:
    """The number of the test evaluation that `--again` asks for: a new one of all studies, or one cut off.

    Args:
        studies: Each with its configuration and its winner.
        budget: One of `BUDGETS`. Default: "steps".
    """
    counts, cut_off = [], False
    for study, config, winner in studies:
        found = _plans(study, budget)
        counts.append(len(found))
        cut_off |= any(_state(study, config, one, winner) in ("begun", "cut off") for one in found)
    read = {count for count in counts if count}
    return max(counts) + (not cut_off and len(read) < 2)


def plan(
    study: optuna.Study,
    config: StudyConfig,
    winner: int,
    *,
    steps: int | None = None,
    n_seeds: int | None = None,
    number: int = 1,
    budget: str = "steps",
) -> Plan:
    """The test evaluation that the study has, finished or not; or a new one, where it has too few.

    A further one that was cut off is gone on with only where it is asked for, and none is that was cut
    off with another winner. One of which no run is stored never was.

    Args:
        study: A study of ours.
        config: Its configuration.
        winner: The trial to measure.
        steps: Mini-batches a run. Default: None, the stored one's, else 1,000.
        n_seeds: Runs a task. Default: None, the stored one's, else 3.
        number: How many the study is to have. Default: 1.
        budget: One of `BUDGETS`; each has test evaluations of its own. Default: "steps".

    Raises:
        UserError: The stored one has another number of steps or seeds, or is of another trial; or the
            search used the seeds; or its runs have no equal operations.
    """
    if budget == "flops" and config.evaluation.rates is not None:
        raise UserError(
            f"study {config.name!r}: its runs look for their own learning rate, so they have a budget of "
            "steps: leave --budget out"
        )
    found = _plans(study, budget)
    unread = found.pop() if found and not _has_runs(study, found[-1]) else None
    states = [_state(study, config, one, winner) for one in found]
    done = [one for one, state in zip(found, states, strict=True) if state == "done"]
    anew = len(found) < number or (number > 1 and states[-1] == "left")
    if not found or ("cut off" not in states and anew):
        n_seeds = n_seeds or (len(unread.seeds) if unread else SEEDS)
        seeds = tuple(range(FIRST_SEED, FIRST_SEED + n_seeds))
        check_fresh(config, seeds, "the test split")
        return Plan(len(found) + 1, winner, steps or (unread.steps if unread else STEPS), seeds, budget)
    one = found[-1] if number > 1 or not done else done[-1]
    if one.trial != winner:
        raise UserError(
            f"study {config.name!r} was measured on the test split with trial {one.trial}, and its winner is "
            f"now trial {winner}: the search has gone on, or its [rerun] was changed. With the [rerun] of "
            "then that measurement is shown again; --again reads the split anew, and marks the result"
        )
    for name, asked, stored in (("steps", steps, one.steps), ("seeds", n_seeds, len(one.seeds))):
        if asked not in (None, stored):
            state = "was measured" if one in done else "is half measured"
            raise UserError(
                f"study {config.name!r} {state} on the test split with {stored} {name}, not {asked}. That "
                f"split is for one reading: leave --{name} out to see it or go on; once it is finished, "
                "--again reads it anew, and marks the result"
            )
    return one


def check_fresh(config: StudyConfig, seeds: Sequence[int], use: str) -> None:
    """Refuse a study whose search or re-running may have used the seeds that are kept for something else.

    Raises:
        UserError: It may.
    """
    last_of_search = max(config.evaluation.seeds) + 2 * config.rerun.seeds
    if last_of_search >= seeds[0] and min(config.evaluation.seeds) <= seeds[-1]:
        raise UserError(
            f"study {config.name!r} was searched or re-run with seeds up to {last_of_search}, and seeds "
            f"{seeds[0]} to {seeds[-1]} are for {use}: give the search seeds below"
        )


def test_config(config: StudyConfig, plan: Plan) -> StudyConfig:
    """The study's configuration with the final budget, on the test split."""
    update = {"steps": plan.steps, "seeds": plan.seeds, "split": "test", "budget": plan.budget}
    return config.model_copy(update={"evaluation": config.evaluation.model_copy(update=update)})


def finished(study: optuna.Study, config: StudyConfig, plan: Plan) -> TestEvaluation | None:
    """A stored test evaluation, None while a run of it is missing."""
    header = study.user_attrs.get(_key(plan))
    if header is None:
        return None
    n_tasks = len(config.evaluation.tasks)
    runs = kept_runs(study, _prefix(plan), _form(study, config, plan), n_tasks, plan.seeds)
    if runs is None:
        return None
    counted = tuple(Operations(**one) for one in header.get("operations", ()))
    where = header["environment"]
    return TestEvaluation(
        config.name, plan.trial, plan.attempt, plan.steps, runs, where, plan.budget, counted
    )


def stored_evaluation(
    study: optuna.Study, config: StudyConfig, budget: str = "steps"
) -> TestEvaluation | None:
    """The latest that is done with this budget, if there is one."""
    every = [finished(study, config, plan) for plan in _plans(study, budget)]
    return next((final for final in reversed(every) if final is not None), None)


def measure_test_split(
    study: optuna.Study,
    config: StudyConfig,
    plan: Plan,
    *,
    devices: Sequence[str],
    data_root: Path,
    progress: Callable[[int], None] = lambda done: None,
) -> TestEvaluation:
    """Train the planned trial and score it on the test split; runs that are stored are not repeated.

    Args:
        study: A study of ours.
        config: Its configuration.
        plan: From `plan`.
        devices: Where to train, one a process.
        data_root: Where data sets lie.
        progress: Called with the number of runs done so far.

    Raises:
        RunFailed: The processes were killed, again and again, or a task raised.
        UserError: Another process of this machine is at it, or somebody else began another one at the
            same moment.
    """
    done = finished(study, config, plan)
    if done is not None:
        return done
    budget, candidate = test_config(config, plan), _candidate(study, config, plan)
    _begin(study, config, plan, devices[0])
    form = _form(study, config, plan)

    def once() -> None:
        with processes(budget, devices, data_root) as pool:
            measurer = Measurer(study, budget, pool, _prefix(plan), progress, form=form)
            header = study.user_attrs[_key(plan)]
            if "operations" not in header and (counted := measurer.count(candidate)) is not None:
                stored = [dataclasses.asdict(one) for one in counted]
                study.set_user_attr(_key(plan), {**header, "operations": stored})
            measurer.measure({"winner": candidate}, plan.seeds)

    again_when_killed(once)
    measured = finished(study, config, plan)
    assert measured is not None
    return measured


def _begin(study: optuna.Study, config: StudyConfig, plan: Plan, device: str) -> None:
    """Say in the study, before anything is read, that the split is spent, and who is reading it."""
    key = _key(plan)
    stored, me = study.user_attrs.get(key), worker_identity(device)
    holder = stored and stored.get("worker")
    # Of another machine's processes nothing is known; one that was killed must not bar the way for good.
    if holder and _who(holder) != _who(me) and state_of(holder) in ("live", "frozen"):
        raise UserError(
            f"process {holder['pid']} of {host_name(holder)} is measuring study {config.name!r} on the test "
            "split: wait for it, or end it and run this again"
        )
    mine: dict[str, Any] = {"trial": plan.trial, "steps": plan.steps, "seeds": list(plan.seeds)}
    if stored is None or not _has_runs(study, plan):
        form = form_of(_candidate(study, config, plan))
        here = environment(device, config.make_space().package)
        stored = {"environment": here, "form": form}
    elif holder and _who(holder) == _who(me):
        me = holder
    study.set_user_attr(key, {**stored, **mine, "worker": me})
    now = study.user_attrs[key]
    if now | mine != now or _who(now["worker"]) != _who(me):
        raise UserError(f"another `compare` has begun to measure study {config.name!r} at this moment")


def _who(worker: dict[str, Any]) -> tuple[Any, ...]:
    return worker["host"], worker["pid"], worker["started"]


#: A test evaluation that was begun: nothing is read yet; it was cut off, and can be gone on with; it was cut
#: off, and its trial is the winner no more; it is done.
State = Literal["begun", "cut off", "left", "done"]


def _state(study: optuna.Study, config: StudyConfig, plan: Plan, winner: int) -> State:
    if finished(study, config, plan) is not None:
        return "done"
    if plan.trial != winner:
        return "left"
    return "cut off" if _has_runs(study, plan) else "begun"


def _key(plan: Plan) -> str:
    return _name(plan.attempt, plan.budget)


def _name(attempt: int, budget: str) -> str:
    return f"{keys.FINAL}{'' if budget == 'steps' else budget}{attempt}"


def _prefix(plan: Plan) -> str:
    return f"{_key(plan)}:{plan.steps}:"  # no run of another budget is taken for one of these


def _has_runs(study: optuna.Study, plan: Plan) -> bool:
    return any(key.startswith(f"{_key(plan)}:") for key in study.user_attrs)


def _form(study: optuna.Study, config: StudyConfig, plan: Plan) -> str:
    """What the runs' names call the trial: as it was begun, though a later optevo writes forms otherwise."""
    begun: str | None = study.user_attrs[_key(plan)].get("form")
    return begun or form_of(_candidate(study, config, plan))


def _candidate(study: optuna.Study, config: StudyConfig, plan: Plan) -> Candidate:
    return config.make_space().candidate(study.get_trials(deepcopy=False)[plan.trial].params)


def _plans(study: optuna.Study, budget: str = "steps") -> list[Plan]:
    """Every test evaluation that was begun with this budget, in order."""
    stored, found = study.user_attrs, list[Plan]()
    while (header := stored.get(_name(len(found) + 1, budget))) is not None:
        seeds = tuple(header["seeds"])
        found.append(Plan(len(found) + 1, header["trial"], header["steps"], seeds, budget))
    return found
