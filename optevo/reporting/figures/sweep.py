"""A sweep over learning rate and weight decay as a map."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from optevo.reporting.figures.drawing import (
    GREY,
    SCALE,
    VERMILLION,
    blank,
    colour_bar,
    log_ticks,
    trial_hover,
)

_MOST_CELLS = 400  # of a sweep that is drawn as a grid


def lr_decay_map(trials: pd.DataFrame) -> go.Figure | None:
    """Fitness over learning rate and weight decay: cells where they form a grid, else points.

    Pruned trials are crossed out, the best is framed.
    """
    if not {"lr", "weight_decay"} <= set(trials.columns):
        return None
    trials = trials.assign(lr=trials["found_lr"].fillna(trials["lr"]))  # that which it was trained with
    points = trials[trials["counted"] & trials["lr"].notna() & trials["weight_decay"].notna()]
    if len(points) < 2:
        return None
    # Of a point that was evaluated more than once, the complete and better trial.
    points = points.sort_values(["state", "fitness"], ascending=[True, False])
    points = points.drop_duplicates(["lr", "weight_decay"])
    points = points.assign(hover=[trial_hover(row) for row in points.to_dict("records")])
    rates, decays = sorted(points["lr"].unique()), sorted(points["weight_decay"].unique())
    if len(rates) * len(decays) <= min(2 * len(points), _MOST_CELLS):
        points = points.assign(x=points["lr"].map(rates.index), y=points["weight_decay"].map(decays.index))
        figure = _cells(points[points["state"] == "COMPLETE"], rates, decays)
    else:
        points = points.assign(x=points["lr"], y=points["weight_decay"])
        figure = _points(points[points["state"] == "COMPLETE"], rates, decays)
    pruned = points[points["state"] == "PRUNED"]
    figure.add_scatter(
        x=pruned["x"].tolist(),
        y=pruned["y"].tolist(),
        mode="markers",
        name="pruned",
        marker={"symbol": "x-thin", "size": 10, "line": {"color": GREY, "width": 2}},
        hovertext=pruned["hover"].tolist(),
        hoverinfo="text",
    )
    figure.update_xaxes(title_text="learning rate")
    figure.update_yaxes(title_text="weight decay")
    return figure


def _cells(complete: pd.DataFrame, rates: list[float], decays: list[float]) -> go.Figure:
    figure, found = blank(130 + 44 * len(decays)), complete.set_index(["x", "y"])
    places = [[(x, y) for x in range(len(rates))] for y in range(len(decays))]
    if len(complete):
        figure.add_heatmap(
            z=[[found["fitness"].get(place) for place in row] for row in places],
            hovertext=[[found["hover"].get(place, "") for place in row] for row in places],
            hoverinfo="text",
            hoverongaps=False,
            texttemplate="%{z:.3f}",
            colorscale=SCALE,
            xgap=2,
            ygap=2,
            colorbar=colour_bar("fitness"),
        )
    for x, y in found.index[:1]:
        frame = {"x0": x - 0.5, "x1": x + 0.5, "y0": y - 0.5, "y1": y + 0.5}
        figure.add_shape(**frame, line={"color": VERMILLION, "width": 3}, name="best", showlegend=True)
    for update, values in ((figure.update_xaxes, rates), (figure.update_yaxes, decays)):
        n, names = len(values), [f"{value:g}" for value in values]
        update(tickvals=list(range(n)), ticktext=names, showgrid=False, range=[-0.5, n - 0.5])
    return figure


def _points(complete: pd.DataFrame, rates: list[float], decays: list[float]) -> go.Figure:
    figure, n = blank(400), len(complete)
    complete = complete[::-1]  # the best, which has a ring, on top of the others
    figure.add_scatter(
        x=complete["x"].tolist(),
        y=complete["y"].tolist(),
        mode="markers",
        name="complete",
        marker={
            "color": complete["fitness"].tolist(),
            "colorscale": SCALE,
            "size": 11,
            "line": {"color": [*[GREY] * (n - 1), VERMILLION][:n], "width": [*[1] * (n - 1), 3][:n]},
            "colorbar": colour_bar("fitness"),
        },
        hovertext=complete["hover"].tolist(),
        hoverinfo="text",
    )
    figure.update_xaxes(**(log_ticks(rates) if rates[0] > 0 else {}))
    figure.update_yaxes(**(log_ticks(decays) if decays[0] > 0 else {}))
    return figure
