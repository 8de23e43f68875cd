"""Studies' winners compared on the test split: means, paired differences, and what finding them cost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from optevo.analysis.load import cost
from optevo.analysis.statistics import holm, paired, verdict
from optevo.config import BaselineConfig, StudyConfig
from optevo.environment import deciding
from optevo.errors import UserError
from optevo.evaluation.final import Final
from optevo.evaluation.rerun import Result
from optevo.evaluation.runs import Run
from optevo.progress import escaped, markdown_table
from optevo.stored import plain

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
        final: How the winner did on the test split.
    """

    study: optuna.Study
    config: StudyConfig
    result: Result
    final: Final


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
                    f"{plain(str(ours))} and {plain(str(theirs))}"
                )


def check_budgets(budgets: Sequence[tuple[str, int, Sequence[int]]]) -> None:
    """Refuse readings of the test split that don't pair: (study, steps, seeds) of each.

    Raises:
        UserError: They have different steps or seeds.
    """
    if len({(steps, tuple(seeds)) for _, steps, seeds in budgets}) > 1:
        said = ", ".join(f"{plain(name)}: {steps} steps × {len(s)} seeds" for name, steps, s in budgets)
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
    """What counts of a run: its fitness, or the task's metric, which is 0 for a run that diverged."""
    if measure == "fitness":
        return run.fitness
    return 0.0 if run.metric is None else run.metric


def runs_frame(finals: Sequence[Final]) -> pd.DataFrame:
    """A row a run on the test split."""
    rows = [
        {
            "study": final.study,
            "trial": final.trial,
            "reading": final.attempt,
            "task": run.task,
            "seed": run.seed,
            "metric": run.metric,
            "fitness": run.fitness,
            "loss": run.loss,
            "steps": run.steps,
            "seconds": round(run.seconds, 2),
            "diverged_at": run.diverged_at,
        }
        for final in finals
        for run in final.runs
    ]
    frame = pd.DataFrame(rows)
    return frame.astype({"diverged_at": "Int64"})


def summary_frame(finals: Sequence[Final], measure: str) -> pd.DataFrame:
    """Mean, sample standard deviation, n and diverged runs of each study, per task and `overall`.

    Overall is, seed by seed, the mean over tasks.
    """
    rows = []
    for final in finals:
        check_tasks(final.study, final.tasks)
        by_task = {task: _scores(final, task, measure) for task in final.tasks}
        by_task[OVERALL] = [float(np.mean(each)) for each in zip(*by_task.values(), strict=True)]
        for task, values in by_task.items():
            diverged = [r for r in final.runs if r.diverged_at is not None and task in (r.task, OVERALL)]
            rows.append(
                {
                    "study": final.study,
                    "task": task,
                    "mean": float(np.mean(values)),
                    "sd": float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"),
                    "n": len(values),
                    "diverged": len(diverged),
                }
            )
    return pd.DataFrame(rows)


def differences_frame(finals: Sequence[Final], reference: str, measure: str) -> pd.DataFrame:
    """Every study minus the reference, paired by task and seed: mean, 95 % interval, test and verdict.

    Holm's correction is over the comparisons overall, which are what is claimed, and separately over all of
    those by task.
    """
    base = next(final for final in finals if final.study == reference)
    rows = []
    for other in finals:
        if other.study == reference:
            continue
        pairs = {
            task: [
                theirs - ours
                for theirs, ours in zip(
                    _scores(other, task, measure), _scores(base, task, measure), strict=True
                )
            ]
            for task in base.tasks
        }
        by_task = [(task, {task: pairs[task]}) for task in base.tasks if len(base.tasks) > 1]
        for task, chosen in [(OVERALL, pairs), *by_task]:
            rows.append((other.study, task, paired(chosen, rng=np.random.default_rng(0))))
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
        trial = entry.study.get_trials(deepcopy=False)[entry.final.trial]
        search, whole = cost(entry.study, rerun=False), cost(entry.study)
        rows.append(
            {
                "study": entry.final.study,
                "winner": f"trial {entry.final.trial}",
                "rule": plain(str(trial.user_attrs.get("formula", ""))),
                "hyperparameters": plain(str(trial.user_attrs.get("hyperparameters", ""))),
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
                "test_reading": entry.final.attempt,
                "final_steps": entry.final.steps,
                "final_seeds": len(entry.final.seeds),
            }
        )
    return pd.DataFrame(rows)


def marks(entries: Sequence[Entry], measure: str) -> list[str]:
    """What a reader must know before believing a number: sentences, none where all is well."""
    said = []
    if len({_deciding(entry.final) for entry in entries}) > 1:
        said.append("The studies were measured in different environments, so that their runs may not pair.")
    counts = "−1" if measure == "fitness" else "0"
    for entry in entries:
        name = plain(entry.final.study)
        if entry.config.evaluation.split == "test":
            said.append(f"{name} was selected on the test split: its numbers flatter it.")
        if "evolved" in getattr(entry.config.space, "presets", ()):
            said.append(
                f"{name} names the preset evolved, which its authors selected on the test splits of MNIST, "
                "Fashion-MNIST and CIFAR-10."
            )
        whole = [run for run in entry.final.runs if run.diverged_at is None]
        if whole and not any(run.losses for run in whole):
            said.append(f"{name}: its tasks score by themselves, on fresh seeds; there is no test split.")
        if entry.final.attempt > 1:
            said.append(f"{name}: this is reading {entry.final.attempt} of the test split.")
        said += [f"{name}: {edge}" for edge in _edges(entry)]
        diverged = sum(run.diverged_at is not None for run in entry.final.runs)
        if diverged:
            said.append(f"{name}: {diverged} of {len(entry.final.runs)} runs diverged; they count {counts}.")
    return said


def _edges(entry: Entry) -> list[str]:
    """Where a sweep's best lies at the end of what it tried, so that it may not be tuned yet."""
    space = entry.config.space
    if not isinstance(space, BaselineConfig):
        return []
    params = entry.study.get_trials(deepcopy=False)[entry.final.trial].params
    ends = [("lr", min, "least"), ("lr", max, "greatest"), ("weight_decay", max, "greatest")]
    if min(space.weight_decay) > 0:  # none at all is no end that one could go beyond
        ends.append(("weight_decay", min, "least"))
    return [
        f"its best {name}, {params[name]:g}, is about the {word} that was tried; it may not be tuned yet."
        for name, end, word in ends
        if len(getattr(space, name)) > 1 and _close(params[name], end(getattr(space, name)))
    ]


def _close(value: float, end: float) -> bool:
    """Within a tenth, which samplers of ranges reach too."""
    return abs(value - end) <= 0.1 * end


def wide(summary: pd.DataFrame) -> list[list[str]]:
    """A header and a row a study with mean ± sd a task, for printing."""
    tasks = list(dict.fromkeys(summary["task"]))
    tasks.sort(key=lambda task: task == OVERALL)
    tasks = tasks[:1] if len(tasks) == 2 else tasks  # the mean over one task is no news
    cells = [["study", *tasks, "n"]]
    for study, rows in summary.groupby("study", sort=False):
        by_task = rows.set_index("task")
        each = [f"{by_task.loc[t, 'mean']:.4f} ± {by_task.loc[t, 'sd']:.4f}" for t in tasks]
        cells.append([plain(str(study)), *(plain(cell) for cell in each), str(by_task["n"].iloc[0])])
    cells[0] = [plain(cell) for cell in cells[0]]
    return cells


def difference_cells(differences: pd.DataFrame) -> list[list[str]]:
    """A header and a row a comparison, the overall ones first, for printing."""
    cells = [["study − reference", "task", "difference", "95 % interval", "n", "p", "p, Holm", "verdict"]]
    order = differences["task"].ne(OVERALL)
    for _, row in differences.loc[order.sort_values(kind="stable").index].iterrows():
        cells.append(
            [
                f"{plain(row['study'])} − {plain(row['reference'])}",
                plain(row["task"]),
                f"{row['mean']:+.4f}",
                f"{row['low']:+.4f} to {row['high']:+.4f}",
                str(row["n"]),
                f"{row['p']:.3g}",
                f"{row['p_holm']:.3g}",
                row["verdict"],
            ]
        )
    return cells


def study_cells(studies: pd.DataFrame) -> list[list[str]]:
    """A header and a row a study: who won and what that cost, for printing."""
    header = ["study", "winner", "fitness in search", "fitness on fresh seeds", "search", "re-running"]
    cells = [header]
    for _, row in studies.iterrows():
        mark = " (selected on test)" if row["selected_on"] == "test" else ""
        cells.append(
            [
                plain(row["study"]) + mark,
                f"{row['winner']}: {row['rule']}; {row['hyperparameters']}",
                f"{row['search_fitness']:.4f}",
                f"{row['fresh_fitness']:.4f} ± {row['fresh_sd']:.4f}, n = {row['fresh_n']}",
                f"{row['trials']} trials, {_spent(row['search_steps'], row['search_hours'])}",
                _spent(row["rerun_steps"], row["rerun_hours"]),
            ]
        )
    return cells


def write_tables(
    folder: Path, entries: Sequence[Entry], reference: str, measure: str
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Write `comparison.md`, `runs.csv`, `summary.csv`, `differences.csv` and `studies.csv`.

    Args:
        folder: Made where it is missing; files of these names in it are replaced.
        entries: The studies.
        reference: The study that the others are compared with.
        measure: One of `MEASURES`.

    Returns:
        The summary, the differences (empty for one study) and the studies.
    """
    finals = [entry.final for entry in entries]
    summary = summary_frame(finals, measure)
    differences = differences_frame(finals, reference, measure)
    studies = studies_frame(entries)
    tables = {"runs": runs_frame(finals), "summary": summary, "differences": differences, "studies": studies}
    final = finals[0]
    environments = list(dict.fromkeys(json.dumps(one.environment) for one in finals))
    what = "the task's metric" if measure == "metric" else "fitness"
    text = [
        f"# {', '.join(escaped(f.study) for f in finals)} on the test split\n",
        f"{final.steps:,} steps, seeds {final.seeds[0]} to {final.seeds[-1]}, {what}: mean ± sample standard "
        f"deviation over seeds. Precision {entries[0].config.evaluation.precision}, batch size "
        f"{entries[0].config.evaluation.batch_size}.\n",
        *(f"**{escaped(mark)}**\n" for mark in marks(entries, measure)),
        markdown_table(wide(summary), entities=False),
    ]
    if len(differences):
        methods = "; ".join(dict.fromkeys(differences["method"]))
        text += [
            f"\nPaired by task and seed: {methods}. Holm's correction is over the comparisons overall, and "
            "separately over those by task.\n",
            markdown_table(difference_cells(differences), entities=False),
        ]
    text += [
        "\nWho was compared, and what finding them cost:\n",
        markdown_table(study_cells(studies), entities=False),
    ]
    for environment in environments:
        names = [escaped(f.study) for f in finals if json.dumps(f.environment) == environment]
        where = f" of {', '.join(names)}" * (len(environments) > 1)
        text += [f"\nEnvironment{where}: {escaped(environment)}\n"]
    files = {f"{name}.csv": frame.to_csv(index=False) for name, frame in tables.items()}
    write_files(folder, {**files, "comparison.md": "\n".join(text)})
    return summary, differences, studies


def write_files(folder: Path, texts: Mapping[str, str]) -> None:
    """Write files by name; the folder is made where it is missing.

    Raises:
        UserError: It can't be done, for want of room or because something else is in the way.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {error.filename or folder}: {error.strerror}") from None


def _deciding(final: Final) -> str:
    """What of its environment a run's numbers depend on."""
    kind = str(final.environment.get("device")).partition(":")[0]
    return json.dumps({**deciding(final.environment), "device": kind})


def _spent(steps: int, hours: float) -> str:
    return f"{steps:,} steps, " + (f"{hours:.2f} h" if hours >= 0.1 else f"{60 * hours:.1f} min")


def _scores(final: Final, task: str, measure: str) -> list[float]:
    """A task's runs by seed, in order."""
    runs = sorted((run for run in final.runs if run.task == task), key=lambda run: run.seed)
    return [score(run, measure) for run in runs]
