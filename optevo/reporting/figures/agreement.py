"""Two evaluations of the same candidates, as their ranks by either."""

from __future__ import annotations

import math

import plotly.graph_objects as go
from scipy.stats import rankdata

from optevo.reporting.agreement import Agreement
from optevo.reporting.correlation import LEAST
from optevo.reporting.figures.drawing import BLUE, GREY, blank, lines, number, text, whole_ticks


def ranks(found: Agreement) -> go.Figure | None:
    """Each candidate's rank by one evaluation over that by the other, 1 being the best.

    Who diverged shares the last ranks. None of too few candidates for a rank correlation.
    """
    n = len(found.common)
    if n < LEAST:
        return None
    scores = [[-math.inf if one is None else one for one in each] for each in found.scores]
    x, y = ((n + 1 - rankdata(each)).tolist() for each in scores)
    hover = [
        lines(
            found.first.formulas[form], f"{found.first.name}: {_said(a)}", f"{found.second.name}: {_said(b)}"
        )
        for form, a, b in zip(found.common, *found.scores, strict=True)
    ]
    figure = blank(380)
    figure.add_scatter(
        x=[1, n],
        y=[1, n],
        mode="lines",
        line={"color": GREY, "dash": "dot"},
        hoverinfo="skip",
        showlegend=False,
    )
    figure.add_scatter(
        x=x,
        y=y,
        mode="markers",
        marker={"color": BLUE, "size": 8},
        hovertext=hover,
        hoverinfo="text",
        showlegend=False,
        cliponaxis=False,
    )
    figure.update_xaxes(
        title_text=f"rank: {text(found.first.name, 40)}", range=[n + 0.5, 0.5], **whole_ticks([n])
    )
    figure.update_yaxes(
        title_text=f"rank: {text(found.second.name, 40)}", range=[n + 0.5, 0.5], **whole_ticks([n])
    )
    return figure


def _said(score: float | None) -> str:
    return "diverged" if score is None else number(score)
