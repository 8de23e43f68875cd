"""Studies' winners compared on the test split: means, paired differences, and what finding them cost."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from optevo import keys
from optevo.errors import UserError
from optevo.escaping import printable
from optevo.measurement.fresh_seeds import Result
from optevo.measurement.test_split import TestEvaluation
from optevo.naming import hint
from optevo.reporting.frames import cost
from optevo.reporting.rules import hyperparameters
from optevo.reporting.statistics import Estimate, holm, paired, verdict
from optevo.study.config import StudyConfig
from optevo.training.run import Run

if TYPE_CHECKING:
    import optuna

MEASURES = ("metric", "fitness")
OVERALL = "overall"


@dataclass(frozen=True)
class Entry:
    """One study in a comparison.

    Attributes:
        study: The study.
        config: Its configuration.
        result: How its best did on fresh seeds of the validation split, and which of them won.
        test: How the winner did on the test split.
    """

    study: optuna.Study
    config: StudyConfig
    result: Result
    test: TestEvaluation


def reference_of(named: str | None, entries: Sequence[Entry]) -> str:
    """The study that the others are compared with, in every table, figure and page alike.

    Args:
        named: By the user. Default: None, the first sweep of a baseline; the first study where there is none.
        entries: At least one; the named study may be missing, as long as it is not measured.
    """
    sweeps = [entry for entry in entries if entry.config.make_space().grid() is not None]
    chosen = [entry for entry in entries if entry.test.study == named] or sweeps or entries
    return chosen[0].test.study


def check_reference(named: str | None, studies: Sequence[str]) -> None:
    """Refuse a reference that is none of the studies.

    Raises:
        UserError: It is none.
    """
    if named is not None and named not in studies:
        said = hint(named, studies, ", ".join(studies))
        raise UserError(f"--reference {named!r} is none of the studies compared: {said}")


def check_comparable(configs: Sequence[StudyConfig]) -> None:
    """Refuse studies whose runs don't pair.

    Raises:
        UserError: Tasks, their options, batch size or precision differ, or a study is named twice.
    """
    names = [config.name for config in configs]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"study {name!r} is named twice")
    for other in configs[1:]:
        first = configs[0]
        for key in ("tasks", "batch_size", "precision"):
            ours, theirs = (c.evaluation.model_dump(mode="json")[key] for c in (first, other))
            if key == "tasks":  # in whatever order
                ours, theirs = (sorted(map(json.dumps, tasks)) for tasks in (ours, theirs))
            if ours != theirs:
                raise UserError(
                    f"studies {first.name!r} and {other.name!r} cannot be compared: evaluation.{key} is "
                    f"{printable(str(ours))} and {printable(str(theirs))}"
                )


def check_budgets(budgets: Sequence[tuple[str, int, Sequence[int]]]) -> None:
    """Refuse test evaluations that don't pair: (study, steps, seeds) of each.

    Raises:
        UserError: They have different steps or seeds.
    """
    if len({(steps, tuple(seeds)) for _, steps, seeds in budgets}) > 1:
        said = ", ".join(f"{printable(name)}: {steps} steps × {len(s)} seeds" for name, steps, s in budgets)
        raise UserError(
            f"the studies have different budgets on the test split: {said}; those that are not measured yet "
            "take the others' --steps and --seeds"
        )


def check_tasks(study: str, names: Iterable[str]) -> None:
    """Refuse a task that is called as the mean over tasks is.

    Raises:
        UserError: There is one.
    """
    if OVERALL in names:
        raise UserError(f"study {study!r} has a task called {OVERALL!r}, as the mean over tasks is")


def score(run: Run, measure: str) -> float:
    """What counts of a run: its fitness, or the task's metric; −∞ for a run that diverged."""
    if measure == "fitness" or run.metric is None:
        return run.earned
    return run.metric


def spread(values: Sequence[float]) -> float:
    """The sample standard deviation; NaN of one value, or where a run diverged."""
    return float(np.std(values, ddof=1)) if len(values) > 1 and np.isfinite(values).all() else math.nan


def difference(ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]]) -> Estimate:
    """Ours minus theirs, paired by task and seed, the mean over tasks.

    Where a run diverged, nothing is estimated and nothing tested: the mean is −∞ or ∞ for who has such a run
    alone, NaN where both have, without bounds, and p = 1.

    Args:
        ours: Scores by task, seed by seed, as `score` gives them.
        theirs: The same for the other, of the same tasks and seeds.
    """
    diverged = [any(math.isinf(value) for each in one.values() for value in each) for one in (ours, theirs)]
    if any(diverged):
        mean = math.nan if all(diverged) else -math.inf if diverged[0] else math.inf
        n = sum(map(len, ours.values()))
        return Estimate(mean, -math.inf, math.inf, 1.0, n, "a run diverged: no interval, no test")
    pairs = {task: [a - b for a, b in zip(ours[task], theirs[task], strict=True)] for task in theirs}
    return paired(pairs, rng=np.random.default_rng(0))


def runs_frame(evaluations: Sequence[TestEvaluation]) -> pd.DataFrame:
    """A row a run on the test split."""
    rows = [
        {
            "study": evaluation.study,
            "trial": evaluation.trial,
            "reading": evaluation.attempt,
            "task": run.task,
            "seed": run.seed,
            "metric": run.metric,
            "fitness": None if run.diverged else run.fitness,
            "loss": run.loss,
            "steps": run.steps,
            "seconds": round(run.seconds, 2),
            "diverged_at": run.diverged_at,
        }
        for evaluation in evaluations
        for run in evaluation.runs
    ]
    frame = pd.DataFrame(rows)
    return frame.astype({"diverged_at": "Int64"})


def summary_frame(evaluations: Sequence[TestEvaluation], measure: str) -> pd.DataFrame:
    """Mean, sample standard deviation, n and diverged runs of each study, per task and `overall`.

    Overall is, seed by seed, the mean over tasks. Where a run diverged the mean is −∞.
    """
    rows = []
    for evaluation in evaluations:
        check_tasks(evaluation.study, evaluation.tasks)
        by_task = {task: _scores(evaluation, task, measure) for task in evaluation.tasks}
        by_task[OVERALL] = [float(np.mean(each)) for each in zip(*by_task.values(), strict=True)]
        for task, values in by_task.items():
            diverged = [r for r in evaluation.runs if r.diverged and task in (r.task, OVERALL)]
            rows.append(
                {
                    "study": evaluation.study,
                    "task": task,
                    "mean": float(np.mean(values)),
                    "sd": spread(values),
                    "n": len(values),
                    "diverged": len(diverged),
                }
            )
    return pd.DataFrame(rows)


def differences_frame(evaluations: Sequence[TestEvaluation], reference: str, measure: str) -> pd.DataFrame:
    """Every study minus the reference, paired by task and seed: mean, 95 % interval, test and verdict.

    Holm's correction is over the comparisons overall, which are what is claimed, and separately over all of
    those by task.
    """
    base = next(evaluation for evaluation in evaluations if evaluation.study == reference)
    rows = []
    for other in evaluations:
        if other.study == reference:
            continue
        ours, theirs = ({task: _scores(one, task, measure) for task in base.tasks} for one in (other, base))
        rows.append((other.study, OVERALL, difference(ours, theirs)))
        for task in base.tasks if len(base.tasks) > 1 else []:
            rows.append((other.study, task, difference({task: ours[task]}, {task: theirs[task]})))
    columns = ["study", "reference", "task", "mean", "low", "high", "p", "p_holm", "n", "verdict", "method"]
    records = [
        {
            "study": study,
            "reference": reference,
            "task": task,
            "mean": estimate.mean,
            "low": estimate.low,
            "high": estimate.high,
            "p": estimate.p,
            "p_holm": 1.0,
            "n": estimate.n,
            "verdict": "",
            "method": estimate.method,
        }
        for study, task, estimate in rows
    ]
    frame = pd.DataFrame(records, columns=columns)
    for overall in (True, False):
        family = [i for i, (_, task, _) in enumerate(rows) if (task == OVERALL) is overall]
        for i, p in zip(family, holm([rows[i][2].p for i in family]), strict=True):
            frame.loc[i, "p_holm"] = p
            frame.loc[i, "verdict"] = verdict(rows[i][2], p)
    return frame


def studies_frame(entries: Sequence[Entry]) -> pd.DataFrame:
    """A row a study: its winner, the fitness that it was found with and that on fresh seeds, and the cost."""
    rows = []
    for entry in entries:
        row = entry.result.rows[-1]
        trial = entry.study.get_trials(deepcopy=False)[entry.test.trial]
        search, whole = cost(entry.study, rerun=False), cost(entry.study)
        rows.append(
            {
                "study": entry.test.study,
                "winner": f"trial {entry.test.trial}",
                "rule": printable(str(keys.ours(trial).get(keys.FORMULA, ""))),
                "hyperparameters": printable(hyperparameters(trial, entry.test.runs) or ""),
                "selected_on": entry.config.evaluation.split,
                "trials": entry.config.n_trials,
                "search_fitness": trial.value,
                "fresh_fitness": row.mean,
                "fresh_sd": row.sd,
                "fresh_n": len(row.by_seed),
                "search_steps": search.steps,
                "search_hours": round(search.hours, 4),
                "rerun_steps": whole.steps - search.steps,
                "rerun_hours": round(whole.hours - search.hours, 4),
                "test_reading": entry.test.attempt,
                "final_steps": entry.test.steps,
                "final_seeds": len(entry.test.seeds),
            }
        )
    return pd.DataFrame(rows)


def _scores(evaluation: TestEvaluation, task: str, measure: str) -> list[float]:
    """A task's runs by seed, in order."""
    runs = sorted((run for run in evaluation.runs if run.task == task), key=lambda run: run.seed)
    return [score(run, measure) for run in runs]
