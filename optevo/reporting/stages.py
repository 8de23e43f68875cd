"""Stages as frames and words: who fell where, with which score, and whether rankings held.

Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from optevo import keys
from optevo.escaping import printable
from optevo.optuna_private import all_trials
from optevo.reporting.correlation import LEAST, Correlation, correlation
from optevo.reporting.frames import FLAG, INTEGER, NUMBER, TEXT, frame_of
from optevo.samplers.slots import Slot, claimed, earned
from optevo.samplers.stages import stage_sampler_of
from optevo.study.promotion import staged_study, stored_pipeline
from optevo.study.studies import COUNTED

if TYPE_CHECKING:
    import optuna

    from optevo.study.config import StudyConfig

SEARCH = "search"  # what comes before the first stage
FUNNEL = {
    "candidate": INTEGER,
    "stage": INTEGER,
    "name": TEXT,
    "trial": INTEGER,
    "fitness": NUMBER,
    "rank": INTEGER,
    "fell": FLAG,
    "pruned_by": TEXT,
    "formula": TEXT,
    "trained_steps": INTEGER,
    "seconds": NUMBER,
}


class Held(NamedTuple):
    """Whether the ranking of one stage held in the next.

    Attributes:
        earlier: The name of a stage, or "search".
        later: That of the next.
        correlation: Over those who are done with both; who has no score in one is its last.
    """

    earlier: str
    later: str
    correlation: Correlation


def funnel(study: optuna.Study, config: StudyConfig) -> pd.DataFrame:
    """A row a candidate and stage that it entered; stage 0 is the search. Empty for a study without stages.

    Returns:
        The columns of `FUNNEL`. `candidate` is the number of the search's trial, `trial` that of its trial in
        the stage, none before it is done. `rank` is from 1, among those done so far; who has no `fitness`, as
        where a run diverged, has none. `fell` says that it goes on to no other stage, or is not reported of
        the last; of a stage that goes on nobody has, but for those without a fitness.
    """
    pipeline = stored_pipeline(study, config)
    if pipeline is None:
        return frame_of([], FUNNEL)
    staged = staged_study(study, config, pipeline)
    sampler = stage_sampler_of(staged)
    table, deciders = sampler.slot_table(staged), _deciders(staged)
    rows = [
        _row(source, 0, SEARCH, source) | {"rank": i} for i, source in enumerate(sampler.entrants, start=1)
    ]
    for stage, one in enumerate(pipeline.stages[: table.generation + 1]):
        slots = [Slot(stage, place) for place in range(table.size(stage))]
        done = [slot for slot in slots if slot in deciders]
        ranked = [slot for slot in done if _score(deciders[slot]) is not None]
        ranked.sort(key=lambda slot: (-(_score(deciders[slot]) or 0.0), slot.index))
        ended = stage < table.generation
        for slot in [*ranked, *(slot for slot in slots if slot not in ranked)]:
            row = _row(sampler.candidate_of(staged, slot), stage + 1, one.name, deciders.get(slot))
            if slot in ranked:
                rank = ranked.index(slot) + 1
                row |= {"rank": rank, "fell": ended and rank > one.keep}
            elif slot in done:
                row |= {"fell": True}
            rows.append(row)
    return frame_of(rows, FUNNEL)


def correlations(frame: pd.DataFrame, rng: np.random.Generator) -> list[Held]:
    """The rank correlation of each two neighbouring stages of a `funnel`, where enough are done with both."""
    found = []
    for stage in range(1, int(frame["stage"].max()) + 1 if len(frame) else 1):
        one, other = (_scores(frame, each) for each in (stage - 1, stage))
        both = [candidate for candidate in one if candidate in other]
        if len(both) >= LEAST:
            scores = [[of[candidate] for candidate in both] for of in (one, other)]
            it = correlation(scores[0], scores[1], rng=rng)
            found.append(Held(_name(frame, stage - 1), _name(frame, stage), it))
    return found


def funnel_cells(frame: pd.DataFrame) -> list[list[str]]:
    """A header and a row a candidate of a `funnel`: its score and rank in each stage."""
    stages = sorted({int(stage) for stage in frame["stage"]})
    rows = {(int(row["candidate"]), int(row["stage"])): row for row in frame.to_dict("records")}
    cells = [["trial", *(printable(_name(frame, stage)) for stage in stages), ""]]
    for candidate in survivors_first(frame):
        own = [rows.get((candidate, stage)) for stage in stages]
        cells.append([str(candidate), *(_cell(row) for row in own), _end(own)])
    return cells


def survivors_first(frame: pd.DataFrame) -> list[int]:
    """The candidates of a `funnel`: first who came furthest, and of those the best there."""
    last = frame.sort_values("stage", kind="stable").groupby("candidate").tail(1)
    last = last.sort_values("rank", na_position="last", kind="stable")
    last = last.sort_values("stage", ascending=False, kind="stable")
    return [int(candidate) for candidate in last["candidate"]]


def held_cells(found: Sequence[Held]) -> list[list[str]]:
    """A header and a row a pair of neighbouring stages."""
    header = ["from", "to", "n", "Spearman’s ρ", "95 % interval", "Kendall’s τ", "95 % interval"]
    rows = []
    for earlier, later, it in found:
        spearman = (_told(it.spearman), f"{_told(it.low)} to {_told(it.high)}")
        kendall = (_told(it.kendall), f"{_told(it.kendall_low)} to {_told(it.kendall_high)}")
        rows.append([printable(earlier), printable(later), str(it.n), *spearman, *kendall])
    return [header, *rows]


def _told(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:+.2f}".replace("-", "−")


def _deciders(staged: optuna.Study) -> dict[Slot, FrozenTrial]:
    found: dict[Slot, FrozenTrial] = {}
    for trial in all_trials(staged):
        slot = claimed(trial, keys.STAGE_CLAIM)
        if slot is not None and trial.state in COUNTED:
            found.setdefault(slot, trial)
    return found


def _score(trial: FrozenTrial) -> float | None:
    return earned(trial) if trial.state == TrialState.COMPLETE else None


def _row(source: FrozenTrial, stage: int, name: str, trial: FrozenTrial | None) -> dict[str, object]:
    attrs = {} if trial is None else keys.ours(trial)
    verdict = attrs.get(keys.PRUNED_BY)
    return {
        "fell": False,
        "candidate": source.number,
        "stage": stage,
        "name": name,
        "trial": None if trial is None else trial.number,
        "fitness": None if trial is None else _score(trial),
        "pruned_by": None if verdict is None else printable(str(verdict)),
        "formula": printable(str(keys.ours(source).get(keys.FORMULA, ""))),
        "trained_steps": attrs.get(keys.TRAINED_STEPS),
        "seconds": attrs.get(keys.SECONDS),
    }


def _scores(frame: pd.DataFrame, stage: int) -> dict[int, float]:
    """Scores of those who are done with a stage, −∞ where they earned none."""
    done = frame[(frame["stage"] == stage) & frame["trial"].notna()]
    scores = done["fitness"].fillna(-math.inf)
    return {int(candidate): float(s) for candidate, s in zip(done["candidate"], scores, strict=True)}


def _name(frame: pd.DataFrame, stage: int) -> str:
    return str(frame.loc[frame["stage"] == stage, "name"].iloc[0])


def _cell(row: Mapping[Any, Any] | None) -> str:
    if row is None:
        return ""
    if pd.isna(row["trial"]):
        return "waits"
    return "no score" if pd.isna(row["rank"]) else f"{row['fitness']:.4f} ({row['rank']})"


def _end(own: Sequence[Mapping[Any, Any] | None]) -> str:
    """What became of a candidate, after all of its stages."""
    entered = [row for row in own if row is not None]
    last = entered[-1]
    if last["fell"]:
        return f"fell in {printable(str(last['name']))}"
    return ""
