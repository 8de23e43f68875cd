"""A search by generations, as pandas frames: how fit its populations were, and what they were made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from optevo.optim.terms.genome import MAX_TERMS, TERMS, TermGenome
from optevo.reporting.frames import FLAG, INTEGER, NUMBER, TEXT, _frame, trials

if TYPE_CHECKING:
    import optuna

    from optevo.samplers.slots import Member
    from optevo.study.config import StudyConfig

GENERATIONS = {
    "generation": INTEGER,
    "finished": FLAG,
    "best_so_far": NUMBER,
    "best": NUMBER,
    "mean": NUMBER,
    "sd": NUMBER,
    "q25": NUMBER,
    "median": NUMBER,
    "q75": NUMBER,
    "n": INTEGER,
    "pruned_share": NUMBER,
    "trained_steps": INTEGER,
    "cumulative_steps": INTEGER,
}
TERM_COUNTS = {"generation": INTEGER, "term": TEXT, "count": INTEGER, "weight": NUMBER, "members": INTEGER}
SCHEDULES = {"trial": INTEGER, "step": INTEGER, "factor": NUMBER, "step_size": NUMBER}
_MOST_POINTS = 200


def generations(study: optuna.Study, config: StudyConfig) -> pd.DataFrame:
    """A row a generation with a counted trial; samplers that know none have one generation.

    Returns:
        The columns of `GENERATIONS`. A finished generation is its population, elites included; of one in
        progress, what has finished so far. `sd` is the sample standard deviation; `n` counts members with a
        fitness; `pruned_share` is of the generation's own trials; `trained_steps` are those that trials of
        this generation took, whatever became of them.
    """
    frame = trials(study, config)
    populations = _populations(study)
    counted, rows = frame[frame["counted"]], []
    for number in _numbers(populations, counted):
        own = counted[counted["generation"] == number]
        values = own["fitness"].dropna()
        if number in populations:
            values = pd.Series([m.value for m in populations[number] if math.isfinite(m.value)], dtype=NUMBER)
        rows.append(
            {
                "generation": number,
                "finished": number in populations,
                "best": values.max(),
                "mean": values.mean(),
                "sd": values.std(),
                "q25": values.quantile(0.25),
                "median": values.median(),
                "q75": values.quantile(0.75),
                "n": len(values),
                "pruned_share": (own["state"] == "PRUNED").mean(),
                "trained_steps": frame.loc[frame["generation"] == number, "trained_steps"].sum(),
            }
        )
    result = _frame(rows, GENERATIONS)
    result["best_so_far"] = result["best"].cummax()
    result["cumulative_steps"] = result["trained_steps"].cumsum()
    return result


def terms(study: optuna.Study, config: StudyConfig) -> pd.DataFrame:
    """Of term genomes: generation × term → how many the population uses, and their summed |alpha|.

    Every term has its row in every generation. Empty for other spaces. Dormant terms are not in use.
    """
    frame = trials(study, config)
    populations = _populations(study)
    counted, rows = frame[frame["counted"]], []
    if "n_terms" not in frame:
        return _frame([], TERM_COUNTS)
    for number in _numbers(populations, counted):
        if number in populations:
            members: Sequence[Mapping[Any, Any]] = [m.params for m in populations[number]]
        else:
            members = counted[counted["generation"] == number].to_dict("records")
        in_use = [pair for params in members for pair in _terms_in_use(params)]
        for term in TERMS:
            weights = [weight for kind, weight in in_use if kind == term]
            row = {"generation": number, "term": term, "members": len(members)}
            rows.append({**row, "count": len(weights), "weight": math.fsum(weights)})
    return _frame(rows, TERM_COUNTS)


def schedules(study: optuna.Study, config: StudyConfig, numbers: Iterable[int]) -> pd.DataFrame:
    """The learning rate's factor and the step size over a run, of trials by number.

    Returns:
        `factor` of the schedule at a step, and `step_size`, its
        product with the learning rate and, for a term genome, with the sum of |alpha|; at most 200 steps a
        trial. A trial without parameters is left out.
    """
    space, total, rows = config.make_space(), config.evaluation.steps, []
    stored = study.get_trials(deepcopy=False)
    shown = sorted({round(i * (total - 1) / (_MOST_POINTS - 1)) for i in range(_MOST_POINTS)})
    for number in numbers:
        params = stored[number].params
        try:
            candidate: Any = space.candidate(params)
        except (ValueError, KeyError):  # it ended before it had all of them
            continue
        schedule = candidate.schedule(total)
        peak = float(getattr(candidate, "lr", params.get("lr", math.nan)))
        if isinstance(candidate, TermGenome):
            peak *= math.fsum(map(abs, candidate.rule().coefficients))
        for step in shown:
            factor = schedule(step)
            rows.append({"trial": number, "step": step, "factor": factor, "step_size": peak * factor})
    return _frame(rows, SCHEDULES)


def _populations(study: optuna.Study) -> dict[int, list[Member]]:
    """Finished generations, where the sampler keeps a board of slots."""
    board = getattr(study.sampler, "slot_table", None)
    return {} if board is None else board(study).populations


def _numbers(populations: Mapping[int, Any], counted: pd.DataFrame) -> list[int]:
    return sorted({*populations, *(int(number) for number in counted["generation"].dropna())})


def _terms_in_use(params: Mapping[Any, Any]) -> list[tuple[str, float]]:
    n = params.get("n_terms")
    if not isinstance(n, (int, float)) or math.isnan(n):
        return []
    in_use = range(min(int(n), MAX_TERMS))
    pairs = [(params.get(f"term_{i}"), params.get(f"alpha_{i}")) for i in in_use]
    return [(kind, abs(weight)) for kind, weight in pairs if isinstance(kind, str) and weight is not None]
