"""A trial and a result in words, as terminals and notes show them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from optevo import keys
from optevo.escaping import markdown_table, printable
from optevo.reporting.rules import candidate_of, hyperparameters
from optevo.samplers.slots import earned
from optevo.study.studies import COUNTED

if TYPE_CHECKING:
    import optuna

    from optevo.measurement.fresh_seeds import Result, Row
    from optevo.study.config import StudyConfig

#: What stands beside every number of a study whose file says `split = "test"`.
TEST_MARK = "selected and scored on the test split: these numbers flatter what was selected"


def told_budget(steps: int, budget: str) -> str:
    """What every run has: so many steps, or with "flops" as many operations as so many with AdamW."""
    return f"{steps:,} steps" if budget == "steps" else f"the operations of {steps:,} steps with AdamW"


def told_hours(hours: float) -> str:
    """Hours in a unit that suits them."""
    if hours >= 1:
        return f"{hours:,.1f} hours"
    return f"{hours * 60:.1f} minutes" if hours * 60 >= 1 else f"{hours * 3600:.0f} seconds"


def formula(trial: FrozenTrial) -> str:
    """A trial's update rule, empty before it was built."""
    return printable(str(keys.ours(trial).get(keys.FORMULA, "")))


def trial_lines(study: optuna.Study, config: StudyConfig, trial: FrozenTrial) -> list[str]:
    """A trial in words: rule, hyperparameters, lineage, fitness, runs. No line can steer a terminal."""
    return [printable(line) for line in _trial_lines(study, config, trial)]


def _trial_lines(study: optuna.Study, config: StudyConfig, trial: FrozenTrial) -> list[str]:
    attrs = keys.ours(trial)
    lines = [f"trial {trial.number} of study {study.study_name!r}: {trial.state.name}{_fitness(trial)}"]
    lines += [f"  {TEST_MARK}"] * (config.evaluation.split == "test")
    if keys.FORMULA in attrs:
        candidate = candidate_of(config, trial)
        text = None if candidate is None else candidate.text()
        lines += [f"  {formula(trial)}", *[f"  {text}"] * (text is not None)]
        lines.append(f"  {hyperparameters(trial) or ''}")
    if keys.ORIGIN in attrs:
        origin = attrs[keys.ORIGIN]
        if origin == "preset":
            origin = " ".join(["preset", *list(config.make_space().starts())[attrs[keys.SLOT] :][:1]])
        parents = [str(number) for number in attrs[keys.PARENTS]]
        lines.append(
            f"  generation {attrs[keys.GENERATION]}, slot {attrs[keys.SLOT]}, {origin}"
            + (f" of trial{'s' * (len(parents) > 1)} {' and '.join(parents)}" if parents else "")
        )
    if keys.STAGE in attrs:
        lines.append(f"  stage {attrs[keys.STAGE]}, promoted from trial {attrs[keys.PROMOTED_FROM]}")
    unfinished = [attrs[keys.UNFINISHED]] if keys.UNFINISHED in attrs else []
    for run in [*attrs.get(keys.RUNS, []), *unfinished]:
        lines.append(f"  {run['task']}, seed {run['seed']}: {_outcome(run)}, {run['seconds']:.1f} s")
    if keys.COPIED_FROM in attrs:
        copied = f"{attrs[keys.COPIED_RUNS]} of {len(attrs[keys.RUNS])} runs"
        if unfinished and not attrs[keys.TRAINED_STEPS]:
            copied = "all runs"
        lines.append(f"  {copied} taken over from trial {attrs[keys.COPIED_FROM]}, the same optimizer")
    if keys.PRUNED_BY in attrs:
        lines.append(f"  pruned: {attrs[keys.PRUNED_BY]}")
    if trial.state == TrialState.FAIL and keys.ERROR not in attrs:
        why = trial.system_attrs.get(keys.LOST, "its process was lost")
        if attrs.get(keys.INTERRUPTED):
            why = "interrupted"
        if attrs.get(keys.SURPLUS):
            why = "surplus: every slot was taken"
        lines.append(f"  not counted: {why}")
    if keys.ERROR in attrs:
        lines += ["  failed:", *(f"    {line}" for line in attrs[keys.ERROR].splitlines())]
    return lines


def _outcome(run: Mapping[str, Any]) -> str:
    if run["diverged_at"] is not None:
        failure: str | None = run.get("failure")
        return failure or f"diverged at step {run['diverged_at']}"
    if run["metric"] is None:
        return f"ended after {run['steps']} steps"
    said = [f"metric {run['metric']:.4f}"]
    if run["loss"] is not None:  # a task that scores by itself has none
        said.append(f"training loss {run['loss']:.4f}")
    if run.get("lr") is not None:
        said.append(f"learning rate {run['lr']:g}")
    return ", ".join(said)


def _fitness(trial: FrozenTrial) -> str:
    fitness = earned(trial)
    if fitness is None:
        return ", no fitness" if trial.state in COUNTED else ""
    return f", fitness {fitness:.4f}" + " of the screening" * bool(keys.ours(trial).get(keys.SCREENED))


def told(mean: float, sd: float, diverged: int, n: int) -> str:
    """A mean with its spread; of `n` runs with diverged ones among them, how many those are."""
    if math.isfinite(mean):
        return f"{mean:.4f} ± {sd:.4f}"
    return f"diverged ({diverged} of {n})"


def told_difference(mean: float) -> str:
    """A mean difference; which side has diverged where there is none."""
    if math.isnan(mean):
        return "both diverged"
    if math.isinf(mean):
        return "diverged" if mean < 0 else "the other diverged"
    return f"{mean:+.4f}"


def told_interval(mean: float, low: float, high: float) -> str:
    """A difference's interval, where there is one."""
    return f"{low:+.4f} to {high:+.4f}" if math.isfinite(mean) else "none"


def fresh(row: Row) -> str:
    """A candidate's fitness on fresh seeds."""
    return told(row.mean, row.sd, row.diverged, len(row.runs))


def result_cells(result: Result) -> list[list[str]]:
    """A header and a row a candidate: fitness and each task's metric as mean ± sd over the fresh seeds."""
    n = len(result.rows[0].by_seed)
    cells = [["optimizer", "fitness in search", f"fitness, {n} fresh seeds", *map(printable, result.tasks)]]
    for row in result.rows:
        metrics = [row.metric(task) for task in result.tasks]
        cells.append(
            [
                printable(row.name),
                "" if row.search is None else f"{row.search:.4f}",
                fresh(row),
                *("diverged" if m is None else f"{m[0]:.4f} ± {m[1]:.4f}" for m in metrics),
            ]
        )
    return cells


def result_table(result: Result) -> Table:
    """`result_cells` for a terminal."""
    header, *rows = result_cells(result)
    table = Table(title="mean ± sd of fitness, and of each task's metric", title_justify="left")
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left", overflow="fold")  # never cut a number
    for row in rows:
        table.add_row(*row, style="bold" if row is rows[-1] else None)
    return table


def result_markdown(result: Result) -> str:
    """`result_cells` for a note."""
    return markdown_table(result_cells(result))
