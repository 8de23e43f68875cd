"""The ancestors of a trial as a graph, generation by generation."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pandas as pd
import plotly.graph_objects as go

from optevo.reporting.figures.drawing import (
    GREY,
    SCALE,
    VERMILLION,
    blank,
    colour_bar,
    fade,
    lines,
    number,
    text,
    whole_ticks,
)

_MOST = 150  # trials that are drawn with all their parents
_LABELLED = 40  # trials that bear their number
_SYMBOLS = {"preset": "square", "random": "triangle-up", "crossover+mutation": "circle"}


def lineage_graph(lineage: pd.DataFrame) -> go.Figure | None:
    """A trial's ancestors, a column a generation, coloured by fitness; a bold line follows the fitter parent.

    Of a long line the nearest 150 ancestors are drawn, and the fitter parents back to the first. None for a
    trial without parents.
    """
    lineage = lineage[lineage["generation"].notna()]
    nodes = lineage.drop_duplicates("trial").set_index("trial")
    edges = [
        (int(child), int(parent))
        for child, parent in zip(lineage["trial"], lineage["parent"], strict=True)
        if not pd.isna(parent) and parent in nodes.index
    ]
    if not edges:
        return None
    fitter = nodes["fitness"].fillna(-math.inf)
    ranks = dict(zip(nodes.index, zip(_complete(nodes), fitter, strict=True), strict=True))
    main = _main_line(int(lineage["trial"].iloc[0]), edges, ranks)
    kept = {*main, *(int(trial) for trial in nodes.index[:_MOST])}  # rows go from near to far
    nodes = nodes.loc[[trial for trial in nodes.index if trial in kept]]
    edges = [(child, parent) for child, parent in edges if child in kept and parent in kept]
    columns = {int(trial): int(generation) for trial, generation in nodes["generation"].items()}
    rows = _rows(columns, edges)
    figure = blank(min(640, 170 + 40 * max(Counter(columns.values()).values())))
    bold = set(itertools.pairwise(main))
    for name, ink, width, chosen in (
        ("parent", fade(GREY, 0.55), 1.2, [edge for edge in edges if edge not in bold]),
        ("fitter parent", VERMILLION, 3, [edge for edge in edges if edge in bold]),
    ):
        figure.add_scatter(
            x=[v for child, parent in chosen for v in (columns[parent], columns[child], None)],
            y=[v for child, parent in chosen for v in (rows[parent], rows[child], None)],
            mode="lines",
            line={"color": ink, "width": width},
            name=name,
            hoverinfo="skip",
        )
    origins = nodes["origin"].fillna("unknown")
    whole = nodes["fitness"].where(_complete(nodes))
    low, high = _limits(nodes["fitness"] if whole.isna().all() else whole)
    for i, origin in enumerate(sorted(origins.unique())):
        part = nodes[origins == origin]
        figure.add_scatter(
            x=[columns[trial] for trial in part.index],
            y=[rows[trial] for trial in part.index],
            mode="markers+text" if len(nodes) <= _LABELLED else "markers",
            text=[str(trial) for trial in part.index] if len(nodes) <= _LABELLED else None,
            textposition="top center",
            cliponaxis=False,
            name=text(origin, 24),
            marker={
                "symbol": _SYMBOLS.get(origin, "diamond"),
                "size": 14 if len(nodes) <= _LABELLED else 9,
                "color": part["fitness"].tolist(),
                "colorscale": SCALE,
                "cmin": low if low < high else None,
                "cmax": high if low < high else None,
                "line": {"color": GREY, "width": 1.5},
                "showscale": i == 0 and low < high,
                "colorbar": colour_bar("fitness"),
            },
            hovertext=[_hover(trial, row) for trial, row in part.iterrows()],
            hoverinfo="text",
        )
    figure.update_xaxes(title_text="generation", **whole_ticks(columns.values()))
    room = [min(rows.values()) - 0.4, max(rows.values()) + 0.7]  # above, for the highest number
    figure.update_yaxes(visible=False, range=room)
    return figure


def _complete(nodes: pd.DataFrame) -> pd.Series:
    """Which trials are complete; all, where nothing is said of their states."""
    return nodes["state"] == "COMPLETE" if "state" in nodes else nodes["fitness"].notna()


def _limits(fitness: pd.Series) -> tuple[float, float]:
    """Ends of the colour scale, NaN without any fitness; one far below the rest must not use it up."""
    lower, upper = fitness.quantile(0.25), fitness.quantile(0.75)
    near = fitness[fitness >= lower - 1.5 * (upper - lower)]
    return float(near.min()), float(near.max())


def _hover(trial: object, row: pd.Series) -> str:
    formula = row["formula"] if isinstance(row["formula"], str) else ""
    origin = row["origin"] if isinstance(row["origin"], str) else "unknown origin"
    first = f"trial {trial}, generation {row['generation']}, {origin}"
    return lines(first, f"fitness {number(row['fitness'])}", formula)


def _main_line(start: int, edges: list[tuple[int, int]], ranks: dict[int, tuple[bool, float]]) -> list[int]:
    """From a trial to the fitter of its parents, to that one's, and so on."""
    parents: dict[int, list[int]] = {}
    for child, parent in edges:
        parents.setdefault(child, []).append(parent)
    line = [start]
    while options := [parent for parent in parents.get(line[-1], []) if parent not in line]:
        line.append(max(options, key=lambda n: (ranks[n], -n)))
    return line


def _rows(columns: dict[int, int], edges: list[tuple[int, int]]) -> dict[int, float]:
    """A height for each trial: near its children's mean, one apart within a column, columns centred."""
    children: dict[int, list[int]] = {}
    for child, parent in edges:
        children.setdefault(parent, []).append(child)
    rows: dict[int, float] = {}
    for generation in sorted(set(columns.values()), reverse=True):
        wanted = {}
        for trial in (trial for trial, column in columns.items() if column == generation):
            placed = [rows[child] for child in children.get(trial, []) if child in rows]
            wanted[trial] = sum(placed) / len(placed) if placed else 0.0
        ordered = sorted(wanted, key=lambda trial: (wanted[trial], trial))
        for i, trial in enumerate(ordered):
            rows[trial] = i - (len(ordered) - 1) / 2
    return rows
