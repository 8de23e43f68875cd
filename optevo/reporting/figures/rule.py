"""An update rule as a graph, and what of it varies over a run, from a candidate's `Drawing`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from optevo.reporting.figures.drawing import (
    BLUE,
    DASHES,
    GREEN,
    GREY,
    ORANGE,
    VERMILLION,
    blank,
    colour,
    lines,
    text,
)

if TYPE_CHECKING:
    from optevo.optim.candidate import Drawing, DrawnEdge

Place = tuple[float, float]
_KINDS = {"input": ("circle", GREEN), "operation": ("square", BLUE), "output": ("diamond", ORANGE)}
_APART = 0.45  # rows between a line and a node that it passes
_MOST_POINTS = 200
_COLUMN, _MOST_WIDTH = 120, 900  # pixels: narrower, names would lie on one another


def rule_graph(drawing: Drawing | None) -> go.Figure | None:
    """The rule from what it reads, on the left, to the update of the weights; factors on their arrows.

    None where there is no drawing.
    """
    if drawing is None:
        return None
    layers = _layers(drawing)
    places = dict(enumerate(zip(layers, _rows(drawing, layers), strict=True)))
    heights = [y for _, y in places.values()]
    figure = blank(round(150 + 80 * (max(heights) - min(heights))))
    figure.update_layout(meta={"least_width": min(_COLUMN * (max(layers) + 1), _MOST_WIDTH)})
    for edge in drawing.edges:
        _draw(figure, edge, places)
    _write_labels(figure, drawing, places, layers)
    for kind, (symbol, ink) in _KINDS.items():
        shown = [i for i, node in enumerate(drawing.nodes) if node.kind == kind]
        figure.add_scatter(
            x=[places[i][0] for i in shown],
            y=[places[i][1] for i in shown],
            mode="markers+text",
            text=["<br>".join(map(text, drawing.nodes[i].label.split("\n"))) for i in shown],
            textposition=["top center" if _above(layers[i]) else "bottom center" for i in shown],
            marker={"symbol": symbol, "size": 15, "color": ink},
            name=kind,
            hovertext=[lines(drawing.nodes[i].told, *drawing.nodes[i].label.split("\n")) for i in shown],
            hoverinfo="text",
            cliponaxis=False,
        )
    figure.update_xaxes(visible=False, range=[-0.6, max(layers) + 0.6])
    figure.update_yaxes(visible=False, range=[max(heights) + 0.9, min(heights) - 0.9])
    return figure


def rule_curves(drawing: Drawing | None, steps: int) -> go.Figure | None:
    """What varies over a run of so many steps: schedules and factors of time. None where nothing does."""
    if drawing is None or not drawing.curves:
        return None
    figure = blank(340)
    shown = sorted({round(i * (steps - 1) / (_MOST_POINTS - 1)) for i in range(_MOST_POINTS)})
    for i, (name, curve) in enumerate(drawing.curves.items()):
        values = curve(steps)
        figure.add_scatter(
            x=shown,
            y=[values[step] if math.isfinite(values[step]) else None for step in shown],
            mode="lines",
            line={"color": colour(i), "width": 2.2, "dash": DASHES[i % len(DASHES)]},
            name=text(name, 40),
            hovertemplate=f"{lines(name)}<br>step %{{x}}: %{{y:.4g}}<extra></extra>",
        )
    figure.update_xaxes(title_text="training step", rangemode="tozero")
    figure.update_yaxes(title_text="value", rangemode="tozero")
    figure.update_layout(showlegend=True)
    return figure


def _layers(drawing: Drawing) -> list[int]:
    """A column for each node: right of what it reads; one that reads nothing just left of its reader."""
    layers = [0] * len(drawing.nodes)
    for edge in sorted(drawing.edges, key=lambda edge: edge.end):
        layers[edge.end] = max(layers[edge.end], layers[edge.start] + 1)
    reading = {edge.end for edge in drawing.edges}
    for i in set(range(len(layers))) - reading:
        layers[i] = min((layers[edge.end] for edge in drawing.edges if edge.start == i), default=1) - 1
    return layers


def _above(layer: int) -> bool:
    """Whether the names of a column stand above its nodes; neighbours' differ, so that they have room."""
    return layer % 2 == 0


def _rows(drawing: Drawing, layers: Sequence[int]) -> list[float]:
    """A height for each node, from the top: near the mean of what it reads, one apart within a column."""
    rows: dict[int, float] = {}
    inputs: dict[int, list[int]] = {}
    for edge in drawing.edges:
        inputs.setdefault(edge.end, []).append(edge.start)
    leaves = [i for i in range(len(layers)) if i not in inputs]
    for layer in sorted(set(layers)):
        wanted = {
            i: sum(rows[j] for j in inputs[i]) / len(inputs[i]) if i in inputs else float(leaves.index(i))
            for i in range(len(layers))
            if layers[i] == layer
        }
        below = -math.inf
        for i in sorted(wanted, key=lambda i: (wanted[i], i)):
            rows[i] = below = max(wanted[i], below + 1)
    return [rows[i] for i in range(len(layers))]


def _bend(edge: DrawnEdge, places: Mapping[int, Place]) -> Place:
    """Where the middle of an arrow is: off the straight line where a node is in its way."""
    (x0, y0), (x1, y1) = places[edge.start], places[edge.end]
    between = [(x, y) for x, y in places.values() if x0 < x < x1]

    def clear(off: float) -> float:
        def height(x: float) -> float:
            share = (x - x0) / (x1 - x0)
            return y0 + (y1 - y0) * share + off * (1 - abs(2 * share - 1))

        return min((abs(height(x) - y) for x, y in between), default=math.inf)

    off = next((off for off in (0.0, 0.8, -0.8, 1.4, -1.4) if clear(off) >= _APART), 0.8)
    return (x0 + x1) / 2, (y0 + y1) / 2 + off


def _draw(figure: go.Figure, edge: DrawnEdge, places: Mapping[int, Place]) -> None:
    start, middle, end = places[edge.start], _bend(edge, places), places[edge.end]
    common = {"xref": "x", "yref": "y", "axref": "x", "ayref": "y", "text": "", "showarrow": True}
    ink = {"arrowcolor": VERMILLION if edge.label else GREY, "arrowwidth": 1.5}
    bent = middle[1] != (start[1] + end[1]) / 2
    if bent:
        first = {"ax": start[0], "ay": start[1], "x": middle[0], "y": middle[1]}
        figure.add_annotation(**first, **common, **ink, arrowhead=0, startstandoff=8)
    tail = middle if bent else start
    last = {"ax": tail[0], "ay": tail[1], "x": end[0], "y": end[1]}
    figure.add_annotation(**last, **common, **ink, arrowhead=2, standoff=9, startstandoff=0 if bent else 8)


def _write_labels(
    figure: go.Figure, drawing: Drawing, places: Mapping[int, Place], layers: Sequence[int]
) -> None:
    """Factors at the middle of their arrows, and the names of inputs near where they enter."""
    factors = [(edge, _bend(edge, places)) for edge in drawing.edges if edge.label]
    if factors:
        figure.add_scatter(
            x=[x for _, (x, _) in factors],
            y=[y for _, (_, y) in factors],
            mode="markers+text",
            text=[text(edge.label, 40) for edge, _ in factors],
            textposition="top center",
            textfont={"color": VERMILLION},
            marker={"symbol": "x", "size": 8, "color": VERMILLION},
            name="factor of time",
            hovertext=[lines("times", edge.label) for edge, _ in factors],
            hoverinfo="text",
            cliponaxis=False,
        )
    for edge in drawing.edges:
        (x0, y0), (x1, y1) = _bend(edge, places), places[edge.end]
        if edge.place:
            shift = -9 if _above(layers[edge.end]) else 9  # away from the name of the node
            near = {"x": x0 + 0.4 * (x1 - x0), "y": y0 + 0.4 * (y1 - y0), "yshift": shift}
            figure.add_annotation(**near, text=f"<i>{text(edge.place)}</i>", showarrow=False)
