"""A report: one HTML file about one study or several, that opens from a disk and asks nobody for anything.

Its policy allows the scripts that are in it by their digests and no request at all, so that text out of a
database could do nothing even if it were taken for markup; and it is escaped besides.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import importlib.resources
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from optevo import __version__
from optevo.files import write_text
from optevo.measurement.fresh_seeds import Result, stored_result
from optevo.reporting.agreement import screened_agreement
from optevo.reporting.correlation import LEAST
from optevo.reporting.figures import search as figures
from optevo.reporting.figures.agreement import ranks
from optevo.reporting.figures.particles import particle_steps
from optevo.reporting.frames import best, curves, lineage, runs, trials
from optevo.reporting.gate import gate_account
from optevo.reporting.page.html_tables import (
    badge,
    comparison_tables,
    escape,
    result_table,
    stage_tables,
    trial_table,
)
from optevo.reporting.page.summary import findings, meta, toml, winner_number
from optevo.reporting.particles import particles
from optevo.reporting.particles import told as particles_told
from optevo.reporting.populations import generations, parts, schedules
from optevo.reporting.rules import as_trained, candidate_of, runs_of
from optevo.reporting.stages import correlations, funnel

if TYPE_CHECKING:
    import optuna

    from optevo.study.config import StudyConfig

_TOP = 8  # trials in the table
_DRAWN = 5  # trials in figures of the best
_PAGE = Template(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>$title</title>
<style>$css</style>
</head>
<body>
<header class="top"><div><h1>$title</h1><p class="meta">$made</p></div>
<button id="theme" type="button" hidden>Dark</button></header>
<main>
<noscript><p>The figures need JavaScript; text and tables do not.</p></noscript>
$body
</main>
<script>$plotly</script>
<script>$js</script>
</body>
</html>
"""
)


def write_report(
    studies: Sequence[tuple[optuna.Study, StudyConfig]],
    path: Path,
    *,
    summary: pd.DataFrame | None = None,
    differences: pd.DataFrame | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write a report on studies as `optevo.study.studies.load_study` returns them.

    Args:
        studies: At least one, in the order of the report.
        path: The file to write; an existing one is replaced.
        summary: Columns study, task, mean, sd, n. Default: None, no comparison of levels.
        differences: Columns study, reference, task, mean, low, high, p, p_holm, n, verdict. Default: None.
        notes: Paragraphs of plain text for the top. Default: none.

    Raises:
        UserError: The file can't be written.
    """
    page = _Page()
    on_test = {study.study_name for study, config in studies if config.evaluation.split == "test"}
    comparison = _comparison(page, summary, differences, on_test)
    sections = [_study_section(page, i, *one) for i, one in enumerate(studies, start=1)]
    names = [escape(study.study_name) for study, _ in studies]
    title = f"Study {names[0]}" if len(names) == 1 else f"{len(names)} studies"
    body = "".join(f"<p>{escape(note)}</p>" for note in notes)
    if len(sections) > 1 or comparison:
        body += _contents(studies, bool(comparison))
    css, js = (
        importlib.resources.files(__package__).joinpath(f"report.{kind}").read_text("utf-8")
        for kind in ("css", "js")
    )
    scripts = [_inline(get_plotlyjs()), _inline(js)]
    now = datetime.datetime.now().astimezone()
    text = _PAGE.substitute(
        policy=_policy(scripts),
        title=title,
        css=css,
        made=f"Written {now:%Y-%m-%d %H:%M} by optevo {escape(__version__)}.",
        body=body + comparison + "".join(sections),
        plotly=scripts[0],
        js=scripts[1],
    )
    write_text(path, text)


class _Page:
    """Numbers figures as they come."""

    def __init__(self) -> None:
        self.n = 0

    def figure(self, figure: go.Figure | None, caption: str) -> str:
        """A figure with its caption, empty where there is nothing to draw; `caption` is HTML."""
        if figure is None:
            return ""
        self.n += 1
        # "<" and ">" as escapes of JSON: nothing in it can end the script that it lies in.
        data = figure.to_json()
        for character in "<>&\u2028\u2029":
            data = data.replace(character, f"\\u{ord(character):04x}")
        least = (figure.layout.meta or {}).get("least_width", 0)  # a page that is narrower scrolls it
        style = f"height:{figure.layout.height}px;min-width:{least}px"
        plot = f'<div class="plot" id="figure-{self.n}" style="{style}"></div>'
        if least:
            plot = f'<div class="scroll" tabindex="0">{plot}</div>'
        return (
            f'<figure>{plot}<script type="application/json" data-figure="figure-{self.n}">{data}</script>'
            f"<figcaption><b>Figure {self.n}.</b> {caption}</figcaption></figure>\n"
        )


def _contents(studies: Sequence[tuple[optuna.Study, StudyConfig]], compared: bool) -> str:
    items = ['<li><a href="#comparison">Comparison</a></li>'] if compared else []
    for i, (study, config) in enumerate(studies, start=1):
        items.append(f'<li><a href="#study-{i}">{escape(study.study_name)}</a>{badge(config)}</li>')
    return f'<nav aria-label="Contents"><b>Contents</b><ol>{"".join(items)}</ol></nav>'


def _comparison(
    page: _Page, summary: pd.DataFrame | None, differences: pd.DataFrame | None, on_test: set[str]
) -> str:
    rows = comparison_tables(summary, differences, on_test)
    if not rows:
        return ""
    caption = (
        "Points with a bar to each side: the standard deviation above, the interval of a difference below. "
        "A difference whose bar crosses the dotted line may be none at all. A cross is no number: "
        "a run diverged."
    )
    drawn = page.figure(figures.comparison(summary, differences, on_test=on_test), caption)
    return f'<section id="comparison"><h2>Comparison</h2>{rows}{drawn}</section>'


def _study_section(page: _Page, i: int, study: optuna.Study, config: StudyConfig) -> str:
    frame, result = trials(study, config), stored_result(study, config)
    begun = [t.datetime_start for t in study.get_trials(deepcopy=False) if t.datetime_start is not None]
    top, winner = best(frame, _TOP), result.winner if result is not None else None
    configuration = "\n".join(map(escape, toml(config.to_dict()).split("\n")))
    drawn = _figures(study, config, frame, winner)
    text = [
        f'<section id="study-{i}"><h2>{escape(study.study_name)}{badge(config)}</h2>',
        meta(study, min(begun, default=None)),
        findings(study, config, frame, result),
        "" if (gate := gate_account(study, config)) is None else f"<p>{escape(gate.told())}</p>",
        _rule(page, study, config, frame, result),
        result_table(result, config) if result is not None else "",
        _stages(page, study, config),
        "<h3>The search</h3>" if len(frame) else "",
        trial_table(top, config, winner) if len(top) else "",
        *(page.figure(figure, f"{caption}{badge(config)}") for figure, caption in drawn),
        f"<details><summary>Configuration</summary><pre>{configuration}</pre></details>",
        "</section>\n",
    ]
    return "".join(text)


def _rule(
    page: _Page, study: optuna.Study, config: StudyConfig, frame: pd.DataFrame, result: Result | None
) -> str:
    """The winner's rule as a picture, as curves, and as text to copy, as far as it has them."""
    number = winner_number(frame, result)
    trial = None if number is None else study.get_trials(deepcopy=False)[number]
    candidate = None if trial is None else candidate_of(config, trial)
    if trial is None or candidate is None:
        return ""
    drawing = as_trained(candidate, runs_of(trial, result)).drawing()
    notes = "; ".join(map(escape, drawing.notes)) if drawing is not None else ""
    caption = (
        f"The rule of trial {number}, from what it reads on the left to the update of the weights w at "
        f"learning rate η; factors of training time stand on their arrows. {notes}{badge(config)}"
    )
    over_time = f"What of it varies over a run of {config.evaluation.steps:,} steps.{badge(config)}"
    drawn = page.figure(figures.rule_graph(drawing), caption)
    drawn += page.figure(figures.rule_curves(drawing, config.evaluation.steps), over_time)
    texts = [("In optevo’s notation", candidate.text()), ("LaTeX", candidate.latex())]
    copied = "".join(f"<p>{name}:</p><pre>{escape(text)}</pre>" for name, text in texts if text is not None)
    return drawn + (f"<details><summary>The rule as text</summary>{copied}</details>" if copied else "")


def _stages(page: _Page, study: optuna.Study, config: StudyConfig) -> str:
    """Who fell in which stage and whether rankings held; empty for a study without stages."""
    frame = funnel(study, config)
    if frame.empty:
        return ""
    held = correlations(frame, np.random.default_rng(0))
    caption = (
        "The best of the search in each stage that they entered: a line a candidate, the best on top, and a "
        "cross where it has no score. Lines that cross are two that changed places. Those of the last stage "
        f"are coloured; numbers are the search’s trials.{badge(config)}"
    )
    drawn = page.figure(figures.ranks_by_stage(frame), caption)
    return f"<h3>Stages</h3>{stage_tables(frame, held, config)}{drawn}"


def _figures(
    study: optuna.Study, config: StudyConfig, frame: pd.DataFrame, winner: int | None
) -> Iterator[tuple[go.Figure | None, str]]:
    """Figures with their captions."""
    numbers = [int(number) for number in best(frame, _DRAWN)["number"]]
    if winner is not None:  # first, whatever its place in the search
        numbers = [winner, *(number for number in numbers if number != winner)][:_DRAWN]
    generation = generations(study, config)
    yield (
        figures.fitness_by_generation(generation),
        "Above, the best fitness so far; below, the mean of each generation’s complete members, elites "
        "included, with a band from their lower to their upper quartile. Pruned members are left out: they "
        "were stopped early, or have no fitness.",
    )
    if len(generation) < 2:
        yield (
            figures.fitness_by_trial(frame),
            "Each point is a complete trial, the line the best so far. Crosses at the lower edge are trials "
            "that were stopped early; triangles have no fitness, as where a run diverged.",
        )
    screened = screened_agreement(study, config)
    if screened is not None and len(screened.common) >= LEAST:
        held, _ = screened.measured()
        yield (
            ranks(screened),
            "Those that were evaluated in full after screening, by their ranks in either; 1 is the best. "
            f"Spearman’s ρ is {held.spearman:.2f} ({held.low:.2f} to {held.high:.2f}, n = {held.n}). "
            "Screening had chosen them, so those that it left out are missing.",
        )
    if config.make_space().grid() is not None:
        yield (
            figures.lr_decay_map(frame),
            "Fitness at each learning rate and weight decay; crosses were pruned, the best is outlined.",
        )
    yield (
        figures.parts_by_generation(parts(study, config)),
        "How often the members of a generation use each building block together; a band that widens is one "
        "that spreads.",
    )
    if len(followed := particles(study, config)):
        yield (
            particle_steps(followed),
            f"{particles_told(followed)} Distinct sets of building blocks are a share of the particles.",
        )
    for number in numbers[:1]:
        yield (
            figures.lineage_graph(lineage(study, number)),
            f"The ancestors of trial {number}, a column a generation, the lighter the fitter (the darkest "
            "may be far below); the bold line follows the fitter parent back. Hover for the rules.",
        )
    yield (
        figures.fitness_by_task(runs(study), numbers),
        "Fitness of the best trials on each task, in the search: the dot is the mean over its seeds, the bar "
        "spans them.",
    )
    yield (
        figures.learning_curves(curves(study), numbers),
        "Training loss of the best trials, averaged over each tenth of a run and over seeds; lower and "
        "earlier is faster.",
    )
    yield (
        figures.step_sizes(schedules(study, config, numbers)),
        "The factor that the schedule puts on the learning rate, and below it the step size: learning "
        "rate × factor × the sum of the magnitudes of the rule’s weights, if it has any.",
    )
    yield (
        figures.importances(study),
        "Which parameters tell the best tenth of the complete trials from the rest (PED-ANOVA), each among "
        "the trials that use it.",
    )


def _inline(script: str) -> str:
    """A script as it may stand in a page: nothing in it ends its element."""
    script = script.replace("\r\n", "\n").replace("\r", "\n")  # as a browser reads it, for its digest
    return re.sub(r"<(?=/script|!--)", r"\\x3c", script, flags=re.IGNORECASE)


def _policy(scripts: Sequence[str]) -> str:
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
