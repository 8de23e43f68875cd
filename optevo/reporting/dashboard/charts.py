"""Charts that optuna-dashboard shows with a study."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from optevo.errors import UserError
from optevo.optuna_private import storage_of, study_id
from optevo.reporting import frames, populations
from optevo.reporting.figures.lineage import lineage_graph
from optevo.reporting.figures.rule import rule_curves, rule_graph
from optevo.reporting.figures.runs import fitness_by_task
from optevo.reporting.figures.search import fitness_by_generation, fitness_by_trial, parts_by_generation
from optevo.reporting.rules import candidate_of
from optevo.study.studies import best_trials

if TYPE_CHECKING:
    import optuna

    from optevo.measurement.fresh_seeds import Result
    from optevo.study.config import StudyConfig

_N_BY_TASK = 5  # trials
_ROOM = 470  # pixels that the dashboard has for a chart


def write(study: optuna.Study, config: StudyConfig, result: Result | None) -> None:
    """Attach a study's charts, in the place of those that it has; what has not changed is not written.

    Args:
        study: Whose.
        config: Its configuration.
        result: What its best came to on fresh seeds; with it, the winner's rule is drawn too.
    """
    from optuna_dashboard import save_plotly_graph_object  # noqa: PLC0415  slow to import
    from optuna_dashboard._custom_plot_data import get_plotly_graph_objects  # noqa: PLC0415

    known = get_plotly_graph_objects(storage_of(study).get_study_system_attrs(study_id(study)))
    drawn = [*_of_search(study, config, result), *([] if result is None else _of_rule(study, config, result))]
    for name, title, figure in drawn:
        if figure is None:
            continue
        head = {"text": title, "font": {"size": 15}, "x": 0.01, "xanchor": "left", "y": 0.98}
        figure.update_layout(
            title=head,
            margin={"t": 100},  # the title, the dashboard's buttons, and three lines of a legend
            height=min(figure.layout.height + 60, _ROOM),
        )
        if figure.to_json() != known.get(f"optevo-{name}"):
            save_plotly_graph_object(study, figure, graph_object_id=f"optevo-{name}")


def _of_search(
    study: optuna.Study, config: StudyConfig, result: Result | None
) -> Iterator[tuple[str, str, go.Figure | None]]:
    generations = fitness_by_generation(populations.generations(study, config))
    if generations is None:
        yield "trials", "Fitness by trial", fitness_by_trial(frames.trials(study, config))
    yield "generations", "Fitness by generation", generations
    parts = populations.parts(study, config)
    yield "parts", "Building blocks in the population", None if parts.empty else parts_by_generation(parts)
    try:
        best = [trial.number for trial in best_trials(study, _N_BY_TASK)]
    except UserError:
        return
    winner = best[0] if result is None else result.winner
    yield "lineage", f"Ancestors of trial {winner}", lineage_graph(frames.lineage(study, winner))
    shown = [winner, *(number for number in best if number != winner)]
    yield "tasks", "Fitness on each task", fitness_by_task(frames.runs(study), shown)


def _of_rule(
    study: optuna.Study, config: StudyConfig, result: Result
) -> Iterator[tuple[str, str, go.Figure | None]]:
    candidate = candidate_of(config, study.get_trials(deepcopy=False)[result.winner])
    drawing = None if candidate is None else candidate.drawing()
    if drawing is not None:
        yield "rule", f"The update of trial {result.winner}", rule_graph(drawing)
        yield "curves", "What varies over a run", rule_curves(drawing, config.evaluation.steps)
