"""Studies as pandas frames: trials, runs, learning curves, lineage, cost.

Every function takes a study in whatever state: unfinished, of one trial, with nothing but pruned trials.
Other people's text in it passes `optevo.escaping.printable`. Nothing here imports torch.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from optevo import keys
from optevo.escaping import printable
from optevo.reporting.rules import hyperparameters, runs_of
from optevo.samplers.slots import claimed, earned
from optevo.study.studies import COUNTED, search_trials
from optevo.training.fitness import tenths
from optevo.training.run import found_rate

if TYPE_CHECKING:
    import optuna

    from optevo.study.config import StudyConfig

INTEGER, NUMBER, TEXT, FLAG, ANY = "Int64", "float64", "str", "bool", "object"

TRIALS = {
    "number": INTEGER,
    "state": TEXT,
    "counted": FLAG,
    "generation": INTEGER,
    "slot": INTEGER,
    "origin": TEXT,
    "parents": ANY,
    "fitness": NUMBER,
    "screened": FLAG,
    "formula": TEXT,
    "hyperparameters": TEXT,
    "found_lr": NUMBER,
    "canonical": ANY,
    "trained_steps": INTEGER,
    "seconds": NUMBER,
    "pruned_by": TEXT,
    "copied_from": INTEGER,
    "copied_runs": INTEGER,
    "diverged_at": INTEGER,
    "error": TEXT,
}
RUNS = {
    "trial": INTEGER,
    "task": TEXT,
    "seed": INTEGER,
    "fitness": NUMBER,
    "metric": NUMBER,
    "loss": NUMBER,
    "steps": INTEGER,
    "seconds": NUMBER,
    "diverged_at": INTEGER,
    "copied": FLAG,
}
CURVES = {"trial": INTEGER, "task": TEXT, "seed": INTEGER, "step": NUMBER, "loss": NUMBER}
LINEAGE = {
    "trial": INTEGER,
    "parent": INTEGER,
    "generation": INTEGER,
    "origin": TEXT,
    "state": TEXT,
    "fitness": NUMBER,
    "formula": TEXT,
}


class Cost(NamedTuple):
    """What a study took.

    Attributes:
        steps: Training steps.
        hours: Hours of workers: two workers for an hour are two.
    """

    steps: int
    hours: float


def trials(study: optuna.Study, config: StudyConfig) -> pd.DataFrame:
    """A row a trial, whatever its state.

    Returns:
        The columns of `TRIALS`; ``fitness:TASK`` for the mean over seeds on a task; and every parameter that
        it suggested under its own name (``param:NAME`` where that is a column already). `fitness` is
        what counts in the search: a pruned trial's is what it had earned, none where it diverged, was refused
        or given up; nor has it one on the task where it diverged. `screened` says that the fitness is of the
        cheap evaluation, on another scale than others. `found_lr` is the learning rate that most of its runs
        found, where they looked for one. `counted` says whether the trial decided its slot.
        `seconds` is wall-clock time; where the trial recorded none, up to its end or, for a lost one, its
        last sign of life.
    """
    stored = search_trials(study)
    deciders = _deciders(stored)
    names = list(
        dict.fromkeys([*config.make_space().distributions(), *(p for t in stored for p in t.params)])
    )
    tasks = list(dict.fromkeys(key for t in stored for key in keys.ours(t) if _is_task(key)))
    rows = []
    for trial in stored:
        attrs, diverged = keys.ours(trial), _diverged(trial)
        rows.append(
            {
                **trial_row(trial, counted=trial.number in deciders),
                **{_task_column(key): attrs.get(key) for key in tasks if key not in diverged},
                **{_param_column(name): trial.params.get(name) for name in names},
            }
        )
    columns = {**TRIALS, **{_task_column(key): NUMBER for key in tasks}}
    return frame_of(rows, columns, [_param_column(name) for name in names])


def trial_row(trial: FrozenTrial, *, counted: bool) -> dict[str, Any]:
    """The columns of `TRIALS` for one trial, of a stage too."""
    attrs = keys.ours(trial)
    return {
        # Most are attributes under these names.
        **{name: attrs.get(keys.PREFIX + name) for name in TRIALS},
        **{name: _text(attrs.get(keys.PREFIX + name)) for name, kind in TRIALS.items() if kind == TEXT},
        "number": trial.number,
        "state": trial.state.name,
        "counted": counted,
        "parents": tuple(attrs.get(keys.PARENTS, ())),
        "fitness": _value(trial),
        "hyperparameters": _text(hyperparameters(trial)),
        "found_lr": found_rate(runs_of(trial)),
        "screened": bool(attrs.get(keys.SCREENED)),
        "seconds": _seconds(trial),
        "error": _text(attrs.get(keys.ERROR, "").strip().rpartition("\n")[2] or None),
    }


def runs(study: optuna.Study) -> pd.DataFrame:
    """A row a run (one task with one seed) of every trial; `loss` is missing where the task scores by itself.

    `copied` says that another trial trained it: `steps` and `seconds` are that one's.
    """
    return frame_of([_run_row(*one) for one in _runs(search_trials(study))], RUNS)


def record(study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
    """One trial, of a stage too, for programs: the columns of `TRIALS`, its parameters and its runs."""
    attrs = keys.ours(trial)
    return {
        **trial_row(trial, counted=trial.number in _deciders(search_trials(study))),
        "stage": attrs.get(keys.STAGE),
        "promoted_from": attrs.get(keys.PROMOTED_FROM),
        "params": dict(trial.params),
        "runs": [
            {name: row.get(name) for name in (*RUNS, "lr", "failure")}
            for row in (_run_row(*one) for one in _runs([trial]))
        ],
    }


def curves(study: optuna.Study) -> pd.DataFrame:
    """Learning curves: a row a tenth of a run, with the mean training loss over it, at its middle step.

    A tenth in which the loss was not finite has none, and a run that diverged has only the tenths before.
    Where all runs have the same operations, steps are those of a run with AdamW.
    """
    rows = []
    evaluation = study.user_attrs.get(keys.CONFIG, {}).get("evaluation", {})
    cheap = {**evaluation, **evaluation.get("screening", {})}
    for trial, run, _ in _runs(search_trials(study)):
        planned = (cheap if keys.ours(trial).get(keys.SCREENED) else evaluation).get("steps")
        steps = planned if isinstance(planned, int) else run["steps"]
        ends: list[float] = list(tenths(steps))
        short = run["metric"] is not None and len(run["losses"]) < len(ends)  # less than ten steps
        if evaluation.get("budget") == "flops" and short:
            ends = [end * steps / run["steps"] for end in tenths(run["steps"])]
        for start, end, loss in zip([0, *ends], ends, run["losses"], strict=False):
            row = {"trial": trial.number, "task": printable(run["task"]), "seed": run["seed"]}
            rows.append({**row, "step": (start + end) / 2, "loss": loss})
    return frame_of(rows, CURVES)


def lineage(study: optuna.Study, trial_number: int) -> pd.DataFrame:
    """A trial and its ancestors: a row a parent of each, one with no parent for who has none.

    Empty where there is no trial of that number.
    """
    stored, rows = study.get_trials(deepcopy=False), []
    waiting, seen = [trial_number], {trial_number}
    while waiting:
        number = waiting.pop(0)
        if not 0 <= number < len(stored):
            continue
        trial = stored[number]
        attrs = keys.ours(trial)
        parents = list(dict.fromkeys(attrs.get(keys.PARENTS, ())))
        known = {
            "trial": number,
            "generation": attrs.get(keys.GENERATION),
            "origin": _text(attrs.get(keys.ORIGIN)),
            "state": trial.state.name,
            "fitness": _value(trial),
            "formula": _text(attrs.get(keys.FORMULA)),
        }
        rows += [{**known, "parent": parent} for parent in parents or [None]]
        waiting += [parent for parent in parents if parent not in seen]
        seen.update(parents)
    return frame_of(rows, LINEAGE)


def cost(study: optuna.Study, *, rerun: bool = True) -> Cost:
    """Training steps and hours of all trials, failed and lost ones included.

    Args:
        study: Whose.
        rerun: Whether to add what measuring the best again on fresh seeds took. Default: True.
    """
    stored = search_trials(study)
    attrs = [keys.ours(trial) for trial in stored]
    steps = sum(one.get(keys.TRAINED_STEPS, 0) + one.get(keys.AUDIT, {"steps": 0})["steps"] for one in attrs)
    seconds = sum(_seconds(trial) or 0.0 for trial in stored)
    if rerun:
        for key, again in study.user_attrs.items():
            if key.startswith((f"{keys.RERUN}:", keys.FRESH)):
                measured = again if isinstance(again, list) else [again]  # a list in older studies
                steps += sum(run["steps"] for run in measured)
                seconds += sum(run["seconds"] for run in measured)
    return Cost(steps, seconds / 3600)


def best(frame: pd.DataFrame, n: int) -> pd.DataFrame:
    """The n fittest complete trials of a frame of `trials`, best first, no two of one canonical form.

    As in `optevo.study.studies.contenders`, none that was only screened, unless all were.
    """
    complete = frame[(frame["state"] == "COMPLETE") & frame["counted"] & frame["fitness"].notna()]
    if not complete["screened"].all():
        complete = complete[~complete["screened"]]
    ranked = complete.sort_values(
        ["fitness", "generation", "slot", "number"], ascending=[False, True, True, True]
    )
    form = ranked["canonical"].where(ranked["canonical"].notna(), ranked["number"].astype(ANY))
    return ranked[~form.duplicated()].head(n)


def frame_of(
    rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str], others: Sequence[str] = ()
) -> pd.DataFrame:
    """Columns of the given types, present without a row too; of `others` pandas finds the type."""
    frame = pd.DataFrame(list(rows), columns=[*columns, *others])
    return frame.astype(dict(columns))


def _runs(trials: Iterable[FrozenTrial]) -> Iterator[tuple[FrozenTrial, Mapping[str, Any], bool]]:
    for trial in trials:
        copied = keys.ours(trial).get(keys.COPIED_RUNS, 0)
        for i, run in enumerate(keys.ours(trial).get(keys.RUNS, [])):
            yield trial, run, i < copied


def _run_row(trial: FrozenTrial, run: Mapping[str, Any], copied: bool) -> dict[str, Any]:
    fitness = run["fitness"] if run["diverged_at"] is None else None
    own = {"trial": trial.number, "task": printable(run["task"]), "fitness": fitness, "copied": copied}
    return {**run, **own}


def _deciders(stored: Sequence[FrozenTrial]) -> set[int]:
    """Who counts: the first to finish in the last attempt at a place, as in `SlotTable`."""
    deciders: dict[object, tuple[int, int]] = {}
    for trial in stored:
        if trial.state in COUNTED and keys.LATE not in trial.system_attrs:
            slot = claimed(trial)
            place = trial.number if slot is None else slot.place
            attempt = 0 if slot is None else slot.attempt
            if place not in deciders or deciders[place][0] < attempt:
                deciders[place] = attempt, trial.number
    return {number for _, number in deciders.values()}


def _value(trial: FrozenTrial) -> float | None:
    return earned(trial) if trial.state in COUNTED else None


def _diverged(trial: FrozenTrial) -> set[str]:
    """The attributes of fitness that older studies have of tasks on which a trial diverged."""
    runs = keys.ours(trial).get(keys.RUNS, [])
    return {keys.FITNESS_PREFIX + run["task"] for run in runs if run["diverged_at"] is not None}


def _seconds(trial: FrozenTrial) -> float | None:
    recorded: float | None = keys.ours(trial).get(keys.SECONDS)
    start, end = trial.datetime_start, trial.datetime_complete
    if recorded is not None or start is None or end is None:
        return recorded
    # Naive local times, which are no hour apart from one another where clocks are put back or forward.
    start, end = start.astimezone(datetime.UTC), end.astimezone(datetime.UTC)
    if trial.state == TrialState.FAIL and keys.LOST in trial.system_attrs:
        # It may have been noticed days later, by the command that resumed the study.
        beat = trial.system_attrs.get(keys.BEAT)
        end = min(end, datetime.datetime.fromisoformat(beat[1]) if beat else start)
    return max(0.0, (end - start).total_seconds())


def _is_task(key: str) -> bool:
    return key.startswith(keys.FITNESS_PREFIX)


def _task_column(key: str) -> str:
    return printable(key.removeprefix(keys.PREFIX))


def _param_column(name: str) -> str:
    return f"param:{name}" if name in TRIALS or _is_task(keys.PREFIX + name) else name


def _text(value: Any) -> str | None:
    return None if value is None else printable(str(value))
