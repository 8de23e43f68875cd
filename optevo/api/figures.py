"""Figures of a study by name; each takes the study, its configuration and its best trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from optevo.reporting.figures import runs as of_runs
from optevo.reporting.figures import search as of_search
from optevo.reporting.figures.lineage import lineage_graph
from optevo.reporting.figures.rule import rule_graph
from optevo.reporting.frames import best, curves, lineage, runs, trials
from optevo.reporting.populations import generations, parts, schedules
from optevo.reporting.rules import candidate_of

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optevo.study.config import StudyConfig

    Draw = Callable[[optuna.Study, StudyConfig, FrozenTrial], go.Figure | None]

_DRAWN = 5  # trials in figures of the best


def _fitness(study: optuna.Study, config: StudyConfig, trial: FrozenTrial) -> go.Figure | None:
    """By generation; by trial where there is one generation."""
    found = generations(study, config)
    drawn = of_search.fitness_by_generation(found) if len(found) > 1 else None
    return of_search.fitness_by_trial(trials(study, config)) if drawn is None else drawn


def _numbers(study: optuna.Study, config: StudyConfig, trial: FrozenTrial) -> list[int]:
    """Of the best trials, this one first."""
    fittest = [int(number) for number in best(trials(study, config), _DRAWN)["number"]]
    return [trial.number, *(number for number in fittest if number != trial.number)][:_DRAWN]


def _rule(study: optuna.Study, config: StudyConfig, trial: FrozenTrial) -> go.Figure | None:
    candidate = candidate_of(config, trial)
    return None if candidate is None else rule_graph(candidate.drawing())


FIGURES: dict[str, Draw] = {
    "fitness": _fitness,
    "trials": lambda study, config, trial: of_search.fitness_by_trial(trials(study, config)),
    "parts": lambda study, config, trial: of_search.parts_by_generation(parts(study, config)),
    "lineage": lambda study, config, trial: lineage_graph(lineage(study, trial.number)),
    "tasks": lambda study, config, trial: of_runs.fitness_by_task(
        runs(study), _numbers(study, config, trial)
    ),
    "curves": lambda study, config, trial: of_runs.learning_curves(
        curves(study), _numbers(study, config, trial)
    ),
    "schedules": lambda study, config, trial: of_runs.step_sizes(
        schedules(study, config, _numbers(study, config, trial))
    ),
    "importances": lambda study, config, trial: of_search.importances(study),
    "rule": _rule,
}
