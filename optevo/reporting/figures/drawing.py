"""What all figures share: colours, axes, and text that can't turn into markup."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from optevo.escaping import printable

# Okabe and Ito's colours for the colour-blind, without black, those that bear white and near-black first.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, YELLOW = PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#F0E442",
)
SCALE = "Cividis"
GREY = "#808080"  # reads on both; a page may relay fonts and grid out in its own colours
GRID = "rgba(128,128,128,0.22)"
CLEAR = "rgba(0,0,0,0)"
DASHES = ("solid", "dash", "dot", "dashdot", "11px,4px")  # lines that lie on one another still show
_HOVER_WIDTH = 60


def text(value: object, most: int | None = None) -> str:
    """Anybody's text for a figure, in which nothing is markup: one line, or cut to `most` characters."""
    line = printable(str(value))
    if most is not None and len(line) > most:
        line = line[: most - 1] + "…"
    return html.escape(line, quote=False)


def lines(*parts: object) -> str:
    """Text for a hover label: a part a line, long ones wrapped, empty ones left out."""
    wrapped = [piece for part in parts for piece in textwrap.wrap(printable(str(part)), _HOVER_WIDTH)]
    return "<br>".join(html.escape(piece, quote=False) for piece in wrapped)


def number(value: float, digits: int = 4) -> str:
    """A fitness in words, "none" where there is none."""
    return f"{value:.{digits}f}" if not math.isnan(value) else "none"


def colour(i: int) -> str:
    """The i-th colour; they repeat."""
    return PALETTE[i % len(PALETTE)]


def fade(colour: str, alpha: float) -> str:
    """A hexadecimal colour made transparent; `alpha` in [0, 1], 1 is opaque."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def blank(height: int, rows: int = 1, **options: Any) -> go.Figure:
    """An empty figure of `height` pixels, transparent, with `rows` panels one above the other.

    Other options are those of `plotly.subplots.make_subplots`.
    """
    figure = make_subplots(rows=rows, **options) if rows > 1 else go.Figure()
    figure.update_layout(
        template=go.layout.Template(),
        height=height,
        autosize=True,
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font={"family": "system-ui, sans-serif", "size": 13, "color": GREY},
        margin={"l": 8, "r": 12, "t": 12, "b": 8},  # axes make their own room
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": CLEAR},
        hovermode="closest",
        hoverlabel={"align": "left"},
        modebar={"bgcolor": CLEAR, "color": fade(GREY, 0.6), "activecolor": GREY},
    )
    title = {"title_standoff": 8, "title_font": {"size": 13}}
    line = {"gridcolor": GRID, "linecolor": GRID, "zeroline": False, "automargin": True, **title}
    figure.update_xaxes(showline=True, **line)
    figure.update_yaxes(**line)
    return figure


def whole_ticks(numbers: Iterable[float]) -> dict[str, Any]:
    """An axis of whole numbers from 0 on, with ten ticks or fewer."""
    return {"tickformat": "d", "dtick": max(1, math.ceil(max(numbers) / 10))}


def log_ticks(values: Iterable[float]) -> dict[str, Any]:
    """A logarithmic axis over positive values, with ticks at 1, 2 and 5 unless it spans many decades."""
    low, high = min(values := list(values)), max(values)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if math.log10(high / low) <= 2 else (1,)
    ticks = [(step, power) for power in range(first, last + 1) for step in steps]
    names = [f"{s * 10**p:g}" if -4 < p < 5 else f"{s}·10<sup>{p}</sup>".removeprefix("1·") for s, p in ticks]
    values = [step * 10.0**power for step, power in ticks]
    return {"type": "log", "tickmode": "array", "tickvals": values, "ticktext": names}


def colour_bar(title: str) -> dict[str, Any]:
    """A slim colour bar."""
    return {
        "title": {"text": title, "side": "right", "font": {"size": 13}},
        "thickness": 12,
        "outlinewidth": 0,
        "len": 0.9,
    }


def trial_hover(row: dict[str, object]) -> str:
    """A row of `optevo.reporting.trials` as the text of a hover label."""
    what = [f"trial {row['number']}: fitness {number(row['fitness'])}"]  # type: ignore[arg-type]
    for name in ("formula", "hyperparameters", "pruned_by"):
        if isinstance(row[name], str):
            what.append(f"pruned: {row[name]}" if name == "pruned_by" else str(row[name]))
    return lines(*what)
