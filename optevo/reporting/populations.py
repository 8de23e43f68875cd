"""A search by generations, as pandas frames: how fit its populations were, and what they were made of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from optevo.reporting.frames import FLAG, INTEGER, NUMBER, TEXT, frame_of, trials
from optevo.reporting.rules import as_trained, candidate_of, runs_of
from optevo.samplers.base import populations

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optevo.samplers.slots import Member
    from optevo.study.config import StudyConfig

GENERATIONS = {
    "generation": INTEGER,
    "finished": FLAG,
    "screened": FLAG,
    "best_so_far": NUMBER,
    "best": NUMBER,
    "mean": NUMBER,
    "sd": NUMBER,
    "q25": NUMBER,
    "median": NUMBER,
    "q75": NUMBER,
    "n": INTEGER,
    "complete": INTEGER,
    "complete_mean": NUMBER,
    "complete_q25": NUMBER,
    "complete_q75": NUMBER,
    "pruned_share": NUMBER,
    "part_sets": NUMBER,
    "step_size_sd": NUMBER,
    "trained_steps": INTEGER,
    "cumulative_steps": INTEGER,
}
PARTS = {"generation": INTEGER, "part": TEXT, "count": INTEGER, "members": INTEGER}
SCHEDULES = {"trial": INTEGER, "step": INTEGER, "factor": NUMBER, "step_size": NUMBER}
_MOST_POINTS = 200


def generations(study: optuna.Study, config: StudyConfig) -> pd.DataFrame:
    """A row a generation with a counted trial; samplers that know none have one generation.

    Returns:
        The columns of `GENERATIONS`. A finished generation is its population, elites included; of one in
        progress, what has finished so far. `sd` is the sample standard deviation; `n` counts members,
        also those without a fitness. What a pruned one had earned is of a part of its runs: of the `complete`
        ones alone are `complete_mean` and its quartiles. `pruned_share` is of the generation's own trials.
        Of how different members are tell `part_sets`, the distinct sets of building blocks in use, as a share
        of the members, and `step_size_sd`, the sample standard deviation of log₁₀ of their step sizes.
        `trained_steps` are those that trials of this generation took, whatever became of them.
    """
    frame = trials(study, config)
    finished, space = populations(study), config.make_space()
    stored = study.get_trials(deepcopy=False)
    sizes = [_log_step_size(space, trial) for trial in stored]
    counted, rows = frame[frame["counted"]], []
    for number in _numbers(finished, counted):
        own = counted[counted["generation"] == number]
        n, values, complete = len(own), own["fitness"].dropna(), own["state"] == "COMPLETE"
        if number in finished:
            n = len(finished[number])
            members = [member for member in finished[number] if math.isfinite(member.value)]
            values = pd.Series([member.value for member in members], dtype=NUMBER)
            complete = pd.Series([member.complete for member in members], dtype=FLAG)
        whole = values[complete.reindex(values.index)]
        numbers = _members(number, finished, counted)
        sets = {frozenset(space.parts(stored[n].params)) for n in numbers} if space.part_names else ()
        rows.append(
            {
                "generation": number,
                "finished": number in finished,
                "screened": bool(own["screened"].any()),
                "best": (values if whole.empty else whole).max(),
                "mean": values.mean(),
                "sd": values.std(),
                "q25": values.quantile(0.25),
                "median": values.median(),
                "q75": values.quantile(0.75),
                "n": n,
                "complete": len(whole),
                "complete_mean": whole.mean(),
                "complete_q25": whole.quantile(0.25),
                "complete_q75": whole.quantile(0.75),
                "pruned_share": (own["state"] == "PRUNED").mean(),
                "part_sets": len(sets) / len(numbers) if sets else math.nan,
                "step_size_sd": pd.Series([sizes[n] for n in numbers], dtype=NUMBER).std(),
                "trained_steps": frame.loc[frame["generation"] == number, "trained_steps"].sum(),
            }
        )
    result = frame_of(rows, GENERATIONS)
    result["best_so_far"] = result.groupby("screened")["best"].cummax()  # each on its own scale
    result["cumulative_steps"] = result["trained_steps"].cumsum()
    return result


def parts(study: optuna.Study, config: StudyConfig) -> pd.DataFrame:
    """How many of each building block a generation's members use together: a row a generation and part.

    Every part has its row in every generation. Empty for a space without parts, see `optevo.spaces.Space`.
    """
    space, frame = config.make_space(), trials(study, config)
    finished = populations(study)
    stored, counted = study.get_trials(deepcopy=False), frame[frame["counted"]]
    rows = []
    for number in _numbers(finished, counted) if space.part_names else []:
        members = [stored[n].params for n in _members(number, finished, counted)]
        in_use = sum(map(space.parts, members), Counter[str]())
        for name in space.part_names:
            row = {"generation": number, "part": name, "count": in_use[name], "members": len(members)}
            rows.append(row)
    return frame_of(rows, PARTS)


def schedules(study: optuna.Study, config: StudyConfig, numbers: Iterable[int]) -> pd.DataFrame:
    """The learning rate's factor and the step size over a run, of trials by number.

    Returns:
        `factor` of the schedule at a step, and `step_size`, its product with the candidate's step size at the
        learning rate that it was trained with; at most 200 steps a trial. A trial without all of its
        parameters is left out.
    """
    total, rows = config.evaluation.steps, []
    stored = study.get_trials(deepcopy=False)
    shown = sorted({round(i * (total - 1) / (_MOST_POINTS - 1)) for i in range(_MOST_POINTS)})
    for number in numbers:
        candidate = candidate_of(config, stored[number])
        if candidate is None:
            continue
        candidate = as_trained(candidate, runs_of(stored[number]))
        schedule, peak = candidate.schedule(total), candidate.step_size()
        for step in shown:
            factor = schedule(step)
            rows.append({"trial": number, "step": step, "factor": factor, "step_size": peak * factor})
    return frame_of(rows, SCHEDULES)


def _members(generation: int, finished: Mapping[int, Sequence[Member]], counted: pd.DataFrame) -> list[int]:
    """Trial numbers of a generation's members, of one in progress those that have finished so far."""
    if generation in finished:
        return [member.number for member in finished[generation]]
    return [int(number) for number in counted.loc[counted["generation"] == generation, "number"]]


def _log_step_size(space: Any, trial: FrozenTrial) -> float:
    """NaN where a trial has no candidate, or this no step size."""
    try:
        size = as_trained(space.candidate(trial.params), runs_of(trial)).step_size()
    except (ValueError, KeyError):
        return math.nan
    return math.log10(size) if 0 < size < math.inf else math.nan


def _numbers(finished: Mapping[int, Any], counted: pd.DataFrame) -> list[int]:
    return sorted({*finished, *(int(number) for number in counted["generation"].dropna())})
