"""What came of a particle search's mutations, and how different the particles stayed."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from optevo.reporting.figures.drawing import (
    BLUE,
    DASHES,
    GREEN,
    PURPLE,
    VERMILLION,
    blank,
    lines,
    whole_ticks,
)

#: Name, what is counted, of what, colour.
_SHARES = (
    ("mutations with a value", "alive", "mutations", BLUE),
    ("mutations better than their parent", "better", "compared", VERMILLION),
    ("particles that moved", "moved", "particles", GREEN),
    ("distinct sets of building blocks", "part_sets", "particles", PURPLE),
)


def particle_steps(particles: pd.DataFrame) -> go.Figure | None:
    """Shares by step, of a frame of `optevo.reporting.particles.particles`; None of less than two steps."""
    if len(particles) < 2:
        return None
    x = particles["generation"].tolist()
    figure = blank(340)
    for i, (name, counted, among, ink) in enumerate(_SHARES):
        found, n = particles[counted].tolist(), particles[among].tolist()
        hover = [
            lines(
                f"generation {generation}: {name}, {a} of {b}",
                f"a particle has stood still for {standing:.1f} steps, the longest for {longest}",
            )
            for generation, a, b, standing, longest in zip(
                x, found, n, particles["standing"], particles["longest_standing"], strict=True
            )
        ]
        figure.add_scatter(
            x=x,
            y=[a / b if b else None for a, b in zip(found, n, strict=True)],
            mode="lines+markers",
            name=name,
            line={"color": ink, "dash": DASHES[i]},
            marker={"size": 6},
            hovertext=hover,
            hoverinfo="text",
        )
    figure.update_xaxes(title_text="generation", **whole_ticks(x))
    figure.update_yaxes(title_text="share", range=[-0.03, 1.03])
    return figure
