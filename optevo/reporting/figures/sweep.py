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
    points = trials[trials["counted"] & trials["lr"].notna() & trials["weight_decay"].notna()]
    if len(points) < 2:
        return None
    # Of a point that was evaluated more than once, the complete and better trial.
    points = points.sort_values(["state", "fitness"], ascending=[True, False])
    points = points.drop_duplicates(["lr", "weight_decay"])
    rates, decays = sorted(points["lr"].unique()), sorted(points["weight_decay"].unique())
    grid = len(rates) * len(decays) <= min(2 * len(points), _MOST_CELLS)
    x = [rates.index(rate) for rate in points["lr"]] if grid else points["lr"].tolist()
    y = [decays.index(decay) for decay in points["weight_decay"]] if grid else points["weight_decay"].tolist()
    points = points.assign(x=x, y=y)
    figure = blank(130 + 44 * len(decays) if grid else 400)
    complete, pruned = points[points["state"] == "COMPLETE"], points[points["state"] == "PRUNED"]
    (_cells if grid else _points)(figure, complete)
    figure.add_scatter(
        x=pruned["x"].tolist(),
        y=pruned["y"].tolist(),
        mode="markers",
        name="pruned",
        marker={"symbol": "x-thin", "size": 10, "line": {"color": GREY, "width": 2}},
        hovertext=[trial_hover(row) for row in pruned.to_dict("records")],
        hoverinfo="text",
    )
    _frame(figure, complete.head(1), grid)
    figure.update_xaxes(title_text="learning rate")
    figure.update_yaxes(title_text="weight decay")
    if grid:
        ticks = {"tickmode": "array", "showgrid": False}
        figure.update_xaxes(tickvals=list(range(len(rates))), ticktext=[f"{v:g}" for v in rates], **ticks)
        figure.update_yaxes(tickvals=list(range(len(decays))), ticktext=[f"{v:g}" for v in decays], **ticks)
        figure.update_xaxes(range=[-0.5, len(rates) - 0.5])
        figure.update_yaxes(range=[-0.5, len(decays) - 0.5])
    else:
        figure.update_xaxes(**(log_ticks(rates) if rates[0] > 0 else {}))
        figure.update_yaxes(**(log_ticks(decays) if decays[0] > 0 else {}))
    return figure


def _cells(figure: go.Figure, complete: pd.DataFrame) -> None:
    if complete.empty:
        return
    width, height = int(complete["x"].max()) + 1, int(complete["y"].max()) + 1
    z: list[list[float | None]] = [[None] * width for _ in range(height)]
    hover = [[""] * width for _ in range(height)]
    for row in complete.to_dict("records"):
        z[row["y"]][row["x"]] = row["fitness"]
        hover[row["y"]][row["x"]] = trial_hover(row)
    figure.add_heatmap(
        z=z,
        hovertext=hover,
        hoverinfo="text",
        hoverongaps=False,
        texttemplate="%{z:.3f}",
        colorscale=SCALE,
        xgap=2,
        ygap=2,
        colorbar=colour_bar("fitness"),
    )


def _points(figure: go.Figure, complete: pd.DataFrame) -> None:
    figure.add_scatter(
        x=complete["x"].tolist(),
        y=complete["y"].tolist(),
        mode="markers",
        name="complete",
        marker={
            "color": complete["fitness"].tolist(),
            "colorscale": SCALE,
            "size": 11,
            "line": {"color": GREY, "width": 1},
            "colorbar": colour_bar("fitness"),
        },
        hovertext=[trial_hover(row) for row in complete.to_dict("records")],
        hoverinfo="text",
    )


def _frame(figure: go.Figure, top: pd.DataFrame, grid: bool) -> None:
    """The best cell in a frame, the best point in a ring."""
    if grid:
        for x, y in zip(top["x"], top["y"], strict=True):
            figure.add_shape(
                x0=x - 0.5,
                x1=x + 0.5,
                y0=y - 0.5,
                y1=y + 0.5,
                line={"color": VERMILLION, "width": 3},
                name="best",
                showlegend=True,
            )
        return
    figure.add_scatter(
        x=top["x"].tolist(),
        y=top["y"].tolist(),
        mode="markers",
        name="best",
        marker={"symbol": "circle-open", "size": 18, "color": VERMILLION, "line": {"width": 2.5}},
        hoverinfo="skip",
    )
