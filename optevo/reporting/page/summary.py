"""A study in words: the text of a report, as HTML in which nothing of a database is markup."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from optevo import keys
from optevo.escaping import printable
from optevo.reporting.frames import best, cost
from optevo.reporting.page.html_tables import BADGE, escape, rule_text
from optevo.reporting.rules import hyperparameters, runs_of
from optevo.reporting.text import told_budget, told_hours

if TYPE_CHECKING:
    import optuna

    from optevo.measurement.fresh_seeds import Result, Row
    from optevo.study.config import StudyConfig
_NOT_FRESH = (
    "<b>It has not been trained on fresh seeds yet</b>: the fittest of many noisy trials owes part of "
    "its number to luck."
)


def meta(study: optuna.Study, first: pd.Timestamp | None) -> str:
    """When, where and with what a study was run."""
    made = study.user_attrs.get(keys.ENVIRONMENT, {})
    versions = [f"{name} {made[name]}" for name in ("optevo", "torch", "optuna", "python") if made.get(name)]
    parts = [f"begun {first:%Y-%m-%d}" if first is not None else "not begun", *versions]
    parts.append(f"commit {made['git_commit']}" if made.get("git_commit") else "commit not recorded")
    parts += [str(made[name]) for name in ("machine", "device") if made.get(name)]
    accepted = sum(key.startswith(keys.ACCEPTED) for key in study.user_attrs)
    parts += [f"went on in {accepted} other environment(s)"] if accepted else []
    return f'<p class="meta">{escape(" · ".join(parts))}</p>'


def findings(study: optuna.Study, config: StudyConfig, frame: pd.DataFrame, result: Result | None) -> str:
    """What was searched, what was found, how it fares on fresh seeds, and what that took."""
    text = [_searched(study, config, frame)]
    winner = _winner(frame, result)
    if winner is None:
        pruned = int((frame["counted"] & (frame["state"] == "PRUNED")).sum())
        text.append(f"No trial is complete: {pruned} were pruned, so there is no best rule to show.")
        return f"<p>{' '.join(text)} {_cost(study)}</p>"
    text.append(
        f"The fittest is trial {winner['number']}, with {winner['fitness']:.4f}. {_NOT_FRESH}"
        if result is None
        else f"Of its fittest, trial {winner['number']} did best on fresh seeds and is the winner; in the "
        f"search its fitness was {winner['fitness']:.4f}. {_fresh(result)}"
    )
    trial = study.get_trials(deepcopy=False)[winner["number"]]
    rule = rule_text(winner["formula"]) if isinstance(winner["formula"], str) else ""
    described = rule_text(hyperparameters(trial, runs_of(trial, result)) or "")
    block = f'<p class="formula">{rule or "no formula recorded"}<small>{described}</small></p>'
    test = ""
    if config.evaluation.split == "test":
        test = (
            f"<p>{BADGE} The search chose by scores on the test split: none of these numbers estimates how "
            "a rule does on data that it has not seen.</p>"
        )
    return f"<p>{' '.join(text)} {_cost(study)}</p>{test}{block}"


def _searched(study: optuna.Study, config: StudyConfig, frame: pd.DataFrame) -> str:
    counted, planned = frame[frame["counted"]], config.n_trials
    n, runs = len(counted), config.evaluation
    space = config.make_space().title
    how = f"A {config.sampler.title}"
    tasks = _listed([task.name for task in runs.tasks])
    seeds = f"{len(runs.seeds)} seed" + ("s" if len(runs.seeds) != 1 else "")
    pruned = int((counted["state"] == "PRUNED").sum())
    failed = int((frame["state"] == "FAIL").sum())
    state = f"{n:,} trials, {pruned:,} of them pruned" + (
        f"; {failed:,} more failed and were repeated or not counted" if failed else ""
    )
    if n < planned:
        state += f"; <b>the search is not complete</b> ({n:,} of {planned:,} slots decided)"
    length = told_budget(runs.steps, runs.budget)
    return (
        f"{escape(how)} over {escape(space)} on {escape(tasks)}, {length} and {seeds} a task, "
        f"scored on the {escape(runs.split)} split: {state}."
    )


def winner_number(frame: pd.DataFrame, result: Result | None) -> int | None:
    """The trial that a report is about: the winner on fresh seeds, else the fittest of the search, if any."""
    winner = _winner(frame, result)
    return None if winner is None else int(winner["number"])


def _winner(frame: pd.DataFrame, result: Result | None) -> dict[Any, Any] | None:
    found = best(frame, 1) if result is None else frame[frame["number"] == result.winner]
    return found.iloc[0].to_dict() if len(found) else None


def _fresh(result: Result) -> str:
    row, others = result.rows[-1], result.rows[:-1]
    text = f"On {len(row.by_seed)} other fresh seeds, which had no say in choosing it, it {_earns(row)}"
    text += "" if row.diverged else " (mean ± sd)"
    if row.search is not None and not row.diverged:
        gap = row.mean - row.search
        text += f", {abs(gap):.4f} {'less' if gap < 0 else 'more'} than in the search"
    text += "."
    if others:
        top = max(others, key=lambda other: other.rank)
        known = f"the best of the {len(others)} presets" if len(others) > 1 else "the preset"
        text += f" There {known}, {escape(top.name)}, {_earns(top)}."
    return text


def _cost(study: optuna.Study) -> str:
    search, total = cost(study, rerun=False), cost(study)
    again = total.steps - search.steps
    text = f"The search took {search.steps:,} training steps"
    text += f" and measuring again {again:,} more, together" if again else " and"
    return f"{text} {told_hours(total.hours)} of one worker’s time."


def _earns(row: Row) -> str:
    if row.diverged:
        return f"diverged in {row.diverged} of {len(row.runs)} runs"
    return f"earns {row.mean:.4f} ± {row.sd:.4f}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def toml(value: Mapping[str, Any]) -> str:
    """A plain configuration as the text of a study file."""
    simple = [f"{k} = {_literal(v)}" for k, v in value.items() if v is not None and not isinstance(v, dict)]
    for name, section in value.items():
        if isinstance(section, dict):
            simple += ["", f"[{name}]"]
            simple += [f"{k} = {_literal(v)}" for k, v in section.items() if v is not None]
    return "\n".join(printable(line) for line in simple)


def _literal(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_literal(v)}" for k, v in value.items()) + " }" if value else "{}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_literal, value))}]"
    return json.dumps(value, ensure_ascii=False)
