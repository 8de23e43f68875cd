"""A trial's learning curves as a picture that any browser shows."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

from optevo.escaping import printable

if TYPE_CHECKING:
    import pandas as pd

WIDTH, HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 34, 40
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
_INK = "#808080"  # reads on white and on near-black
_N_TICKS = 4


def curve_picture(curves: pd.DataFrame) -> str | None:
    """Training loss over a run as SVG: a colour a task, a line a seed.

    Args:
        curves: The rows of `optevo.reporting.curves` of one trial.

    Returns:
        The picture, without a background; None without a finite loss.
    """
    known = curves[curves["loss"].map(math.isfinite)]
    if known.empty:
        return None
    low, high = float(known["loss"].min()), float(known["loss"].max())
    low, high = min(low, 0.0), high if high > low else low + 1.0
    last = float(known["step"].max()) or 1.0

    def x(step: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * step / last

    def y(loss: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (loss - low) / (high - low)

    marks = []
    for i in range(_N_TICKS + 1):
        loss, step = low + (high - low) * i / _N_TICKS, last * i / _N_TICKS
        marks.append(
            f'<path d="M{_LEFT} {y(loss):.1f}H{WIDTH - _RIGHT}" stroke="{_INK}" stroke-opacity=".25"/>'
            f'<text x="{_LEFT - 8}" y="{y(loss) + 4:.1f}" text-anchor="end">{loss:.3g}</text>'
            f'<text x="{x(step):.1f}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">{step:.0f}</text>'
        )
    for i, (task, of_task) in enumerate(known.groupby("task", sort=False)):
        colour = _COLOURS[i % len(_COLOURS)]
        for _, run in of_task.groupby("seed", sort=False):
            points = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in zip(run["step"], run["loss"], strict=True))
            marks.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        place = _LEFT + 140 * i
        name = html.escape(printable(str(task))[:18])
        marks.append(f'<text x="{place}" y="18" style="fill:{colour}">{name}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="system-ui, sans-serif" font-size="13" fill="{_INK}">'
        + "".join(marks)
        + f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">training step</text>'
        + f'<text x="14" y="{HEIGHT / 2}" text-anchor="middle" transform="rotate(-90 14 {HEIGHT / 2})">'
        + "training loss</text></svg>\n"
    )
