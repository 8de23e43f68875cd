"""Figures of runs: fitness a task, learning curves, step sizes, and studies compared."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import pandas as pd
import plotly.graph_objects as go

from optevo.reporting.comparison import OVERALL
from optevo.reporting.figures.drawing import BLUE, DASHES, GREY, blank, colour, lines, log_ticks, number, text

_LABEL = 22  # characters of a name at an axis


def fitness_by_task(runs: pd.DataFrame, numbers: Sequence[int]) -> go.Figure | None:
    """Fitness on each task of some trials: a dot a task, with a bar from the least to the most over seeds.

    Args:
        runs: Of `optevo.reporting.runs`.
        numbers: The trials, by number, from the top of the figure down.
    """
    numbers = [n for n in numbers if (runs["trial"] == n).any()]
    if not numbers:
        return None
    tasks = list(runs.loc[runs["trial"].isin(numbers), "task"].unique())
    figure = blank(100 + len(numbers) * (22 + 10 * len(tasks)))
    for i, task in enumerate(tasks):
        x, y, above, below, hover = [], [], [], [], []
        for place, trial in enumerate(numbers):
            values = runs.loc[(runs["trial"] == trial) & (runs["task"] == task), "fitness"]
            if values.empty or values.isna().any():  # it diverged
                continue
            x.append(values.mean())
            y.append(place + _offset(i, len(tasks)))
            above.append(values.max() - values.mean())
            below.append(values.mean() - values.min())
            spread = f"{len(values)} seeds, {values.min():.4f} to {values.max():.4f}"
            hover.append(lines(f"trial {trial}, {task}", f"fitness {values.mean():.4f}", spread))
        figure.add_scatter(
            x=x,
            y=y,
            mode="markers",
            name=text(task, _LABEL),
            marker={"color": colour(i), "size": 9},
            error_x={"array": above, "arrayminus": below, "thickness": 1.5, "width": 3},
            hovertext=hover,
            hoverinfo="text",
        )
    figure.update_xaxes(title_text="fitness")
    labels = [f"trial {trial}" for trial in numbers]
    figure.update_yaxes(tickvals=list(range(len(labels))), ticktext=labels, range=[len(labels) - 0.5, -0.5])
    figure.update_layout(showlegend=True)
    return figure


def learning_curves(curves: pd.DataFrame, numbers: Sequence[int]) -> go.Figure | None:
    """Training loss over a run, mean over seeds, a panel a task.

    Args:
        curves: Of `optevo.reporting.curves`.
        numbers: The trials, by number, in the order of the legend.
    """
    shown = curves[curves["trial"].isin(numbers) & curves["loss"].notna()]
    if shown.empty:
        return None
    tasks = list(shown["task"].unique())
    means: dict[str, list[float]] = {task: [] for task in tasks}
    figure = blank(110 + 230 * len(tasks), rows=len(tasks), vertical_spacing=0.28 / len(tasks))
    for i, trial in enumerate(numbers):
        for place, task in enumerate(tasks):
            part = shown[(shown["trial"] == trial) & (shown["task"] == task)]
            if part.empty:
                continue
            mean = part.groupby("step")["loss"].mean()
            means[task] += mean.tolist()
            trace = go.Scatter(
                x=mean.index.tolist(),
                y=mean.tolist(),
                mode="lines+markers",
                line={"color": colour(i), "width": 2, "dash": DASHES[i % len(DASHES)]},
                marker={"size": 5},
                name=f"trial {trial}",
                legendgroup=str(trial),
                showlegend=not any(other.legendgroup == str(trial) for other in figure.data),
                hovertext=[
                    lines(f"trial {trial}, {task}", f"loss {loss:.4g} around step {step:g}")
                    for step, loss in mean.items()
                ],
                hoverinfo="text",
            )
            _add(figure, trace, place, len(tasks))
    for place, task in enumerate(tasks):
        axes = {"row": place + 1, "col": 1} if len(tasks) > 1 else {}
        title = f"{text(task, _LABEL)}: loss"
        figure.update_yaxes(
            title_text=title, **(log_ticks(means[task]) if min(means[task]) > 0 else {}), **axes
        )
        figure.update_xaxes(title_text="training step", rangemode="tozero", **axes)
    return figure


def step_sizes(schedules: pd.DataFrame) -> go.Figure | None:
    """The schedule's factor over a run, and below it the effective step size.

    Args:
        schedules: Of `optevo.reporting.schedules`.
    """
    if schedules.empty:
        return None
    figure = blank(430, rows=2, shared_xaxes=True, vertical_spacing=0.08)
    for i, (trial, part) in enumerate(schedules.groupby("trial", sort=False)):
        for row, column in enumerate(("factor", "step_size"), start=1):
            figure.add_scatter(
                x=part["step"].tolist(),
                y=part[column].tolist(),
                mode="lines",
                line={"color": colour(i), "width": 2.2, "dash": DASHES[i % len(DASHES)]},
                name=f"trial {trial}",
                legendgroup=str(trial),
                showlegend=row == 1,
                hovertemplate=f"trial {trial}<br>step %{{x}}: %{{y:.3g}}<extra></extra>",
                row=row,
                col=1,
            )
    figure.update_yaxes(title_text="schedule factor", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title_text="step size", rangemode="tozero", row=2, col=1)
    peaks = [peak for peak in schedules.groupby("trial")["step_size"].max() if peak > 0]
    if peaks and max(peaks) > 30 * min(peaks):
        low, high = min(peaks) / 100, max(peaks) * 2  # a decay to 0 leaves below
        span = [math.log10(low), math.log10(high)]
        figure.update_yaxes(**log_ticks([low, high]), range=span, row=2, col=1)
    figure.update_xaxes(title_text="training step", row=2, col=1)
    return figure


def comparison(
    summary: pd.DataFrame | None, differences: pd.DataFrame | None, *, on_test: Collection[str] = ()
) -> go.Figure | None:
    """Studies beside each other: mean ± sd above, paired differences with their intervals below.

    Args:
        summary: Columns study, task ("overall" for the mean over tasks), mean, sd, n.
        differences: Columns study, reference, task, mean, low, high, p, p_holm, n, verdict.
        on_test: Names of studies that were selected on the test split; the axis says so. Default: none.
    """
    panels = []
    if summary is not None and not summary.empty:
        rows = summary.assign(label=summary["study"], low=summary["mean"] - summary["sd"])
        panels.append((rows.assign(high=summary["mean"] + summary["sd"]), "mean ± sd"))
    if differences is not None and not differences.empty:
        labels = [f"{a} − {b}" for a, b in zip(differences["study"], differences["reference"], strict=True)]
        panels.append((differences.assign(label=labels), "paired difference"))
    if not panels:
        return None
    tasks = list(dict.fromkeys(task for rows, _ in panels for task in rows["task"]))
    tasks.sort(key=lambda task: task != OVERALL)
    sizes = [rows["label"].nunique() * (16 + 13 * len(tasks)) + 70 for rows, _ in panels]
    heights = [size / sum(sizes) for size in sizes]
    gap = {"vertical_spacing": 70 / (sum(sizes) + 60), "row_heights": heights} if len(panels) > 1 else {}
    figure = blank(sum(sizes) + 60, rows=len(panels), **gap)
    for place, (given, title) in enumerate(panels):
        labels = list(dict.fromkeys(given["label"]))
        # Where a run diverged, there is a mark at the edge of what the others span.
        off = ~given["mean"].map(math.isfinite)
        edges = _edges(given[~off])
        rows = given.assign(
            mean=[edges[mean > 0] if out else mean for mean, out in zip(given["mean"], off, strict=True)],
            diverged_runs=off,
        )
        ends = rows[["low", "high"]]
        finite = [0.0, *(v for v in [*rows["mean"], *ends.to_numpy().ravel()] if math.isfinite(v))]
        room = 0.1 * (max(finite) - min(finite)) or 0.1
        for i, task in enumerate(tasks):
            part = rows[rows["task"] == task]
            if part.empty:
                continue
            spread = {
                # An interval without an end goes on beyond the axis.
                "array": _bar(part["high"] - part["mean"], part["diverged_runs"], 100 * room),
                "arrayminus": _bar(part["mean"] - part["low"], part["diverged_runs"], 100 * room),
                "thickness": 2 if task == OVERALL else 1.3,
                "width": 4,
            }
            trace = go.Scatter(
                x=part["mean"].tolist(),
                y=[labels.index(label) + _offset(i, len(tasks)) for label in part["label"]],
                mode="markers",
                name=text(task, _LABEL),
                legendgroup=str(i),
                showlegend=not any(other.legendgroup == str(i) for other in figure.data),
                marker={
                    "color": BLUE if task == OVERALL else colour(i),
                    "symbol": [
                        "x-thin" if out else "diamond" if task == OVERALL else "circle"
                        for out in part["diverged_runs"]
                    ],
                    "line": {"color": BLUE if task == OVERALL else colour(i), "width": 2},
                    "size": 11 if task == OVERALL else 7,
                },
                error_x=spread,
                hovertext=[_compared(row) for row in part.to_dict("records")],
                hoverinfo="text",
            )
            _add(figure, trace, place, len(panels))
        axes = {"row": place + 1, "col": 1} if len(panels) > 1 else {}
        flagged = dict(zip(rows["label"], rows["study"].isin(set(on_test)), strict=True))
        if "reference" in rows:
            for label, reference in zip(rows["label"], rows["reference"], strict=True):
                flagged[label] |= reference in set(on_test)
            figure.add_vline(x=0, line={"color": GREY, "width": 1.5, "dash": "dot"}, **axes)
        ticks = [_tick(label) + ("<br>(selected on test)" if flagged[label] else "") for label in labels]
        figure.update_yaxes(tickvals=list(range(len(labels))), ticktext=ticks, showgrid=False, **axes)
        figure.update_yaxes(range=[len(labels) - 0.5, -0.5], **axes)
        figure.update_xaxes(title_text=title, **axes)
        if ends.isin([math.inf, -math.inf]).any(axis=None):  # plotly would show all of them
            figure.update_xaxes(range=[min(finite) - room, max(finite) + room], **axes)
    figure.update_layout(showlegend=len(tasks) > 1)
    return figure


def _tick(label: str) -> str:
    """A name at an axis, a difference on two lines."""
    first, minus, second = label.partition(" − ")
    return text(first, _LABEL) + (f"<br>− {text(second, _LABEL)}" if minus else "")


def _compared(row: dict[str, object]) -> str:
    def value(name: str) -> str:
        return number(row[name])  # type: ignore[arg-type]

    if row["diverged_runs"]:
        return lines(f"{row['label']}, {row['task']}", "a run diverged")
    if "reference" not in row:
        return lines(f"{row['study']}, {row['task']}", f"{value('mean')} ± {value('sd')}, n = {row['n']}")
    return lines(
        f"{row['study']} − {row['reference']}, {row['task']}",
        f"{value('mean')} in [{value('low')}, {value('high')}], n = {row['n']}",
        f"p {value('p')}, Holm {value('p_holm')}",
        str(row["verdict"]),
    )


def _edges(rows: pd.DataFrame) -> tuple[float, float]:
    """Just beyond what a panel's means and their bars span."""
    known = [v for v in rows[["mean", "low", "high"]].to_numpy(float).ravel() if math.isfinite(v)]
    if not known:
        return 0.0, 0.0
    room = 0.1 * ((max(known) - min(known)) or abs(max(known)) or 1.0)
    return min(known) - room, max(known) + room


def _bar(lengths: pd.Series, none: pd.Series, most: float) -> list[float]:
    return [float(length) for length in lengths.mask(none, 0.0).fillna(0.0).clip(upper=most)]


def _offset(i: int, n: int) -> float:
    """Where the i-th of n tasks stands within a row of height 1."""
    return (i - (n - 1) / 2) * 0.7 / max(n, 1)


def _add(figure: go.Figure, trace: go.Scatter, place: int, panels: int) -> None:
    if panels > 1:
        figure.add_trace(trace, row=place + 1, col=1)
    else:
        figure.add_trace(trace)
