"""Figures of a search: generations, trials, building blocks, importances; with those beside this module.

Each takes a frame of `optevo.reporting`, returns a plotly figure without a title, and None where there is
nothing to draw. Backgrounds are transparent; colours read on white and on near-black.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence

import optuna
import pandas as pd
import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState, create_trial

from optevo import keys
from optevo.optuna_private import Memory
from optevo.reporting.figures.drawing import (
    BLUE,
    GREY,
    PALETTE,
    VERMILLION,
    blank,
    colour,
    fade,
    lines,
    text,
    trial_hover,
    whole_ticks,
)
from optevo.reporting.figures.lineage import lineage_graph
from optevo.reporting.figures.rule import rule_curves, rule_graph
from optevo.reporting.figures.runs import comparison, fitness_by_task, learning_curves, step_sizes
from optevo.reporting.figures.stages import ranks_by_stage
from optevo.reporting.figures.sweep import lr_decay_map
from optevo.study.config import parse_config
from optevo.study.studies import contenders, search_trials

__all__ = [
    "comparison",
    "fitness_by_generation",
    "fitness_by_task",
    "fitness_by_trial",
    "importances",
    "learning_curves",
    "lineage_graph",
    "lr_decay_map",
    "parts_by_generation",
    "ranks_by_stage",
    "rule_curves",
    "rule_graph",
    "step_sizes",
]

_FEWEST = 10  # complete trials that importances are told of: a tenth of fewer is none
_MOST_BARS = 12
_MOST_PARTS = 12


def fitness_by_generation(generations: pd.DataFrame) -> go.Figure | None:
    """Best so far above; below it the mean of a generation's complete members, and their middle half."""
    known = generations[generations["complete_mean"].notna()]
    if len(known) < 2:
        return None
    x = known["generation"].tolist()
    figure = blank(430, rows=2, shared_xaxes=True, vertical_spacing=0.07, row_heights=[0.45, 0.55])
    for name, edge in (("complete_q75", None), ("complete_q25", "tonexty")):
        figure.add_scatter(
            x=x,
            y=known[name].tolist(),
            mode="lines",
            line={"width": 0},
            fill=edge,
            fillcolor=fade(BLUE, 0.22),
            name="middle half",
            showlegend=edge is not None,
            hoverinfo="skip",
            row=2,
            col=1,
        )
    marker = {"size": 6}
    hover = [
        lines(
            f"generation {row.generation}" + ("" if row.finished else ", in progress"),
            f"best {row.best:.4f}, mean of the complete {row.complete_mean:.4f}",
            f"their middle half {row.complete_q25:.4f} to {row.complete_q75:.4f}",
            f"{row.complete} complete of {row.n} members"
            + ("" if math.isnan(row.pruned_share) else f", {row.pruned_share:.0%} of its own trials pruned"),
            *_diversity(row.part_sets, row.step_size_sd),
            f"{row.cumulative_steps:,} training steps so far",
        )
        for row in known.itertuples()
    ]
    common = {"x": x, "mode": "lines+markers", "marker": marker, "hovertext": hover, "hoverinfo": "text"}
    best = {"color": VERMILLION, "shape": "hv"}
    figure.add_scatter(y=known["best_so_far"].tolist(), line=best, name="best so far", **common, row=1, col=1)
    mean = known["complete_mean"].tolist()
    figure.add_scatter(y=mean, line={"color": BLUE}, name="mean", **common, row=2, col=1)
    figure.update_yaxes(title_text="best fitness", row=1, col=1)
    figure.update_yaxes(title_text="fitness", row=2, col=1)
    figure.update_xaxes(title_text="generation", row=2, col=1, **whole_ticks(x))
    return figure


def _diversity(part_sets: float, step_size_sd: float) -> Iterator[str]:
    if not math.isnan(part_sets):
        yield f"distinct sets of building blocks: {part_sets:.0%} of the members"
    if not math.isnan(step_size_sd):
        yield f"step sizes: a standard deviation of {step_size_sd:.2f} powers of ten"


def fitness_by_trial(trials: pd.DataFrame) -> go.Figure | None:
    """Every counted trial's fitness in the order of their numbers, and the best so far.

    The scale is that of the complete ones: marks at its lower end are trials that were stopped, whose fitness
    is of a part of their runs, and those that have none.
    """
    counted = trials[trials["counted"]].sort_values("number")
    whole = counted["state"] == "COMPLETE"
    known = counted["fitness"].notna()
    shown = whole & known if (whole & known).any() else known
    if len(counted) < 2 or not shown.any():
        return None
    low, high = _scale(counted.loc[shown, "fitness"])
    figure = blank(340)
    for part, name, symbol, ink in (
        (counted[shown], "complete" if whole.any() else "stopped", "circle", BLUE),
        (counted[known & ~shown], "stopped", "x-thin", GREY),
        (counted[~known], "no fitness", "triangle-down-open", VERMILLION),
    ):
        edge = part["number"].isin(counted.loc[~shown, "number"])
        if len(part):
            figure.add_scatter(
                x=part["number"].tolist(),
                y=part["fitness"].mask(edge, low).tolist(),
                mode="markers",
                name=name + " (at the edge)" * bool(edge.all()),
                marker={"symbol": symbol, "color": ink, "size": 7, "line": {"color": ink, "width": 1.5}},
                hovertext=[trial_hover(row) for row in part.to_dict("records")],
                hoverinfo="text",
                cliponaxis=False,
            )
    complete = counted[whole]
    figure.add_scatter(
        x=complete["number"].tolist(),
        y=complete.groupby("screened")["fitness"].cummax().tolist(),  # each on its own scale
        mode="lines",
        line={"color": VERMILLION, "shape": "hv"},
        name="best so far",
        hoverinfo="skip",
    )
    figure.update_xaxes(title_text="trial")
    figure.update_yaxes(title_text="fitness", range=[low, high])
    return figure


def _scale(fitness: pd.Series) -> tuple[float, float]:
    """An axis from below the least to above the greatest, with room for marks at its lower end."""
    low, high = float(fitness.min()), float(fitness.max())
    room = (high - low) or abs(high) or 1.0
    return low - 0.12 * room, high + 0.06 * room


def parts_by_generation(parts: pd.DataFrame) -> go.Figure | None:
    """How often each building block is in use in the population, stacked, over the generations.

    Of more than 12 that a space has, those most in use are drawn, and the others together.
    """
    if parts["generation"].nunique() < 2 or not parts["count"].sum():
        return None
    figure = blank(360)
    for i, (name, rows) in enumerate(_most_used(parts).groupby("part", sort=False)):
        if not rows["count"].sum():  # the others keep their colours, so that studies can be compared
            continue
        x, y, members = (rows[column].tolist() for column in ("generation", "count", "members"))
        ink = GREY if i >= _MOST_PARTS else colour(i)
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            stackgroup="parts",
            line={"color": ink, "width": 1},
            fillcolor=fade(ink, 0.75 if i < len(PALETTE) else 0.35),  # colours repeat
            name=text(name),
            hovertext=[
                lines(f"{name}, generation {generation}", f"{uses} uses in {n} members")
                for generation, uses, n in zip(x, y, members, strict=True)
            ],
            hoverinfo="text",
        )
    figure.update_xaxes(title_text="generation", **whole_ticks(parts["generation"]))
    figure.update_yaxes(title_text="uses in the population", rangemode="tozero")
    return figure


def _most_used(parts: pd.DataFrame) -> pd.DataFrame:
    """The rows of the parts most in use, those of equal use in the space's order, and the others' sums."""
    uses = parts.groupby("part", sort=False)["count"].sum()
    if len(uses) <= _MOST_PARTS:
        return parts
    kept = set(uses.sort_values(ascending=False, kind="stable").index[:_MOST_PARTS])
    others = parts[~parts["part"].isin(kept)]
    n = int((others.groupby("part")["count"].sum() > 0).sum())
    summed = others.groupby("generation", as_index=False).agg({"count": "sum", "members": "first"})
    return pd.concat([parts[parts["part"].isin(kept)], summed.assign(part=f"{n} others")])


def importances(study: optuna.Study) -> go.Figure | None:
    """Which parameters tell the best tenth of a study's complete trials from the rest, by Optuna's PED-ANOVA.

    A parameter counts in the trials alone whose candidate uses it. None where it can't say.
    """
    complete = contenders(search_trials(study, TrialState.COMPLETE))
    if len(complete) < _FEWEST or len({trial.value for trial in complete}) < 2:
        return None  # Optuna calls all parameters alike then
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = optuna.importance.get_param_importances(_expressed(study, complete))
    shown = sorted(found.items(), key=lambda item: (item[1], item[0]))[-_MOST_BARS:]
    if not shown or not shown[-1][1] > 0:
        return None
    names, values = zip(*shown, strict=True)
    figure = blank(70 + 24 * len(shown))
    figure.add_bar(
        x=list(values),
        y=list(range(len(values))),
        orientation="h",
        marker={"color": BLUE},
        hovertext=[lines(f"{name}: {value:.3f}") for name, value in shown],
        hoverinfo="text",
        showlegend=False,
    )
    figure.update_layout(bargap=0.35)
    labels = [text(name, 24) for name in names]
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=labels, showgrid=False)
    figure.update_xaxes(title_text="importance, as a share of 1", rangemode="tozero")
    return figure


def _expressed(study: optuna.Study, complete: Sequence[FrozenTrial]) -> optuna.Study:
    """A study in memory of these trials, with the parameters that each uses."""
    space = parse_config(study.user_attrs[keys.CONFIG], f"study {study.study_name!r}").make_space()
    storage = Memory()
    storage.create_new_study(study.directions, study.study_name)
    copy = optuna.load_study(study_name=study.study_name, storage=storage)
    for trial in complete:
        params = space.expressed(trial.params)
        distributions = {name: trial.distributions[name] for name in params}
        copy.add_trial(create_trial(value=trial.value, params=params, distributions=distributions))
    return copy
