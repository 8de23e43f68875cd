"""Candidates' ranks from stage to stage, as lines: who crosses whom, and who falls where."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from optevo.reporting.figures.drawing import GREY, blank, colour, fade, lines, text, whole_ticks

_LEAST_HEIGHT, _MOST_HEIGHT, _ROW = 260, 900, 22  # pixels; of a candidate
_NAMED = 30  # candidates, of more of whom only the last stage's have their number beside their line


def ranks_by_stage(funnel: pd.DataFrame) -> go.Figure | None:
    """A line a candidate of `optevo.reporting.stages.funnel`, from its rank in the search on.

    Those of the last stage are coloured. Who has no score in a stage is a cross, below the others of it.
    """
    done = funnel[funnel["trial"].notna()]
    if done["stage"].nunique() < 2:
        return None
    last, entered = int(done["stage"].max()), int((funnel["stage"] == 0).sum())
    figure = blank(min(_MOST_HEIGHT, max(_LEAST_HEIGHT, 90 + _ROW * entered)))
    in_colour = [int(row["candidate"]) for row in _ordered(done[done["stage"] == last])]
    places = {(row["candidate"], row["stage"]): place for row, place in _placed(done)}
    for candidate, rows in reversed(list(done.sort_values("stage").groupby("candidate", sort=False))):
        shines = candidate in in_colour
        ink = colour(in_colour.index(candidate)) if shines else GREY
        own = rows.to_dict("records")
        scored = [not pd.isna(row["rank"]) for row in own]
        crowded = entered > _NAMED and not shines
        figure.add_scatter(
            x=[int(row["stage"]) for row in own],
            y=[places[candidate, row["stage"]] for row in own],
            mode="lines+markers+text",
            line={"color": ink if shines else fade(GREY, 0.55), "width": 2.5 if shines else 1.5},
            marker={
                "color": ink,
                "size": 8,
                "symbol": ["circle" if has else "x-thin" for has in scored],
                "line": {"color": ink, "width": [0 if has else 2 for has in scored]},
            },
            text=["" if crowded or place < len(own) - 1 else f"  {candidate}" for place in range(len(own))],
            textposition="middle right",
            textfont={"color": ink},
            hovertext=[_hover(row, done) for row in own],
            hoverinfo="text",
            showlegend=False,
            cliponaxis=False,
        )
    names = done.groupby("stage")["name"].first()
    figure.update_xaxes(
        tickvals=list(range(last + 1)),
        ticktext=[text(names[stage], 24) for stage in range(last + 1)],
        range=[-0.1, last + 0.25],
        showgrid=True,
    )
    figure.update_yaxes(title_text="rank", range=[entered + 0.6, 0.4], **whole_ticks([entered]))
    figure.update_yaxes(tick0=1, showgrid=False)
    return figure


def _ordered(stage: pd.DataFrame) -> list[dict[Any, Any]]:
    """The candidates of one stage by rank, those without a score last."""
    rows: list[dict[Any, Any]] = stage.sort_values("rank", na_position="last", kind="stable").to_dict(
        "records"
    )
    return rows


def _placed(done: pd.DataFrame) -> list[tuple[dict[Any, Any], int]]:
    """Each row with its place on the axis, which is its rank where it has one."""
    stages = (_ordered(rows) for _, rows in done.groupby("stage"))
    return [placed for rows in stages for placed in zip(rows, range(1, len(rows) + 1), strict=True)]


def _hover(row: Mapping[Any, Any], done: pd.DataFrame) -> str:
    n = int((done["stage"] == row["stage"]).sum())
    score = "no score" if math.isnan(row["fitness"]) else f"rank {row['rank']} of {n}, {row['fitness']:.4f}"
    told = [f"trial {row['candidate']} in {row['name']}: {score}"]
    told += [str(row["pruned_by"])] if isinstance(row["pruned_by"], str) else []
    return lines(*told, row["formula"])
