"""Whether a cheap evaluation ranks candidates as a dear one does: of two studies, or within one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from optevo import keys
from optevo.errors import UserError
from optevo.escaping import printable
from optevo.reporting.correlation import LEAST, Correlation, Recall, correlation, top_k_recall
from optevo.reporting.frames import NUMBER, TEXT, frame_of, trials
from optevo.samplers.slots import earned
from optevo.study.studies import COUNTED

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optevo.study.config import StudyConfig

SCREENING, SEARCH, STAGE = "screening", "search", "stage {}"
TOP = 5  # the best that recall is told of
CORRELATIONS = {
    **{"first": TEXT, "second": TEXT, "n": "int64"},
    **dict.fromkeys(("spearman", "low", "high", "kendall", "kendall_low", "kendall_high"), NUMBER),
    **{"k": "int64", **dict.fromkeys(("recall", "recall_low", "recall_high", "chance"), NUMBER)},
}
CANDIDATES = {"first": TEXT, "second": TEXT, "formula": TEXT, "first_score": NUMBER, "second_score": NUMBER}


class Evaluation(NamedTuple):
    """One way in which candidates were evaluated.

    Attributes:
        name: For people.
        scores: Of each candidate by its canonical form; None for one that diverged.
        formulas: Of these and maybe others.
    """

    name: str
    scores: Mapping[str, float | None]
    formulas: Mapping[str, str]


@dataclass(frozen=True)
class Agreement:
    """Two evaluations of the same candidates.

    Attributes:
        first: The cheap one.
        second: The dear one.
    """

    first: Evaluation
    second: Evaluation

    @property
    def common(self) -> list[str]:
        """The canonical forms that both have, in the first's order."""
        return [form for form in self.first.scores if form in self.second.scores]

    @property
    def scores(self) -> tuple[list[float | None], list[float | None]]:
        """Of the common candidates, in order, by either evaluation."""
        common = self.common
        return [self.first.scores[form] for form in common], [self.second.scores[form] for form in common]

    def measured(self, k: int | None = None) -> tuple[Correlation, Recall]:
        """Rank correlation, and recall of the best k.

        Args:
            k: Default: None, `TOP` or all that there are.

        Raises:
            UserError: There are too few common candidates for that.
        """
        scores, n = self.scores, len(self.common)
        names = f"{self.first.name} and {self.second.name}"
        if not n:
            raise UserError(
                f"{names} have no candidate in common: nothing that both have trained to the end, or until "
                "it diverged, has the same canonical form"
            )
        if n < LEAST:
            raise UserError(f"{names} have {n} candidates in common, a rank correlation needs {LEAST}")
        if k is not None and k > n:
            raise UserError(f"--top {k}: {names} have {n} candidates in common")
        found = correlation(*scores, rng=np.random.default_rng(0))
        return found, top_k_recall(*scores, min(TOP, n) if k is None else k)


def evaluations(study: optuna.Study, config: StudyConfig) -> list[Evaluation]:
    """How a study has evaluated its candidates, the cheapest first: screening, search and each stage.

    Those count who were trained to the end or diverged. Who lost a race has a score of a part of its runs,
    and who was refused has none: they are left out.
    """
    stored, frame = study.get_trials(deepcopy=False), trials(study, config)
    counted = set(frame.loc[frame["counted"], "number"])
    scores: dict[str, dict[str, float | None]] = {}
    formulas: dict[str, str] = {}
    for trial in stored:
        attrs = keys.ours(trial)
        stage = attrs.get(keys.STAGE)
        if not _has_ended(trial) or (stage is None and trial.number not in counted):
            continue
        name = SEARCH if stage is None else STAGE.format(stage)
        if stage is None and attrs.get(keys.SCREENED):
            name = SCREENING
        candidate = keys.ours(stored[attrs.get(keys.PROMOTED_FROM, trial.number)])
        form = candidate[keys.CANONICAL]
        scores.setdefault(name, {}).setdefault(form, earned(trial))
        formulas[form] = printable(str(candidate.get(keys.FORMULA)))
    stages = sorted(scores.keys() - {SCREENING, SEARCH}, key=lambda name: (len(name), name))
    order = [name for name in (SCREENING, SEARCH, *stages) if name in scores]
    return [Evaluation(f"{printable(config.name)}, {name}", scores[name], formulas) for name in order]


def agreements(studies: Sequence[tuple[optuna.Study, StudyConfig]]) -> list[Agreement]:
    """What can be compared: of two studies their full evaluations, of one those that follow each other.

    Raises:
        UserError: There is nothing to compare.
    """
    if len(studies) == 1:
        known = evaluations(*studies[0])
        if len(known) < 2:
            raise UserError(
                f"study {studies[0][1].name!r} has evaluated its candidates in one way only: name another "
                "study of the same candidates, or promote its best through stages"
            )
        pairs = [*itertools.pairwise(known), *([(known[0], known[-1])] if len(known) > 2 else [])]
        return [Agreement(*pair) for pair in pairs]
    dearest = []
    for study, config in studies:
        known = evaluations(study, config)
        if not known:
            raise UserError(f"study {config.name!r} has no trial that was trained to the end, or diverged")
        dearest.append(known[-1]._replace(name=printable(config.name)))
    return [Agreement(*dearest)]


def screened_agreement(study: optuna.Study, config: StudyConfig) -> Agreement | None:
    """How a study's screening agrees with its full evaluation; None where it has not done both."""
    known = evaluations(study, config) if config.evaluation.screening is not None else []
    return Agreement(*known[:2]) if len(known) > 1 and known[0].name.endswith(SCREENING) else None


def correlations_frame(found: Sequence[Agreement], k: int | None = None) -> pd.DataFrame:
    """A row a pair of evaluations, with the columns of `CORRELATIONS`.

    Raises:
        UserError: See `Agreement.measured`.
    """
    rows = []
    for one in found:
        ranks, recall = one.measured(k)
        told: dict[str, Any] = {
            "k": recall.k,
            "recall": recall.share,
            "recall_low": recall.low,
            "recall_high": recall.high,
        }
        names: dict[str, Any] = {"first": one.first.name, "second": one.second.name}
        rows.append({**names, **vars(ranks), **told, "chance": recall.chance})
    return frame_of(rows, CORRELATIONS)


def candidates_frame(found: Sequence[Agreement]) -> pd.DataFrame:
    """A row a candidate and pair, with the columns of `CANDIDATES`; a score is missing where it diverged."""
    rows = [
        {
            "first": one.first.name,
            "second": one.second.name,
            "formula": one.first.formulas[form],
            "first_score": one.first.scores[form],
            "second_score": one.second.scores[form],
        }
        for one in found
        for form in one.common
    ]
    return frame_of(rows, CANDIDATES)


def correlation_cells(frame: pd.DataFrame) -> list[list[str]]:
    """A header and a row a pair, for printing."""
    cells = [
        ["first", "second", "n", "Spearman’s ρ", "95 % interval", "Kendall’s τ", "95 % interval", "recall"]
    ]
    for row in frame.itertuples():
        recall = f"{row.recall:.0%} of the best {row.k} ({row.recall_low:.0%} to {row.recall_high:.0%})"
        cells.append(
            [
                str(row.first),
                str(row.second),
                str(row.n),
                _told(row.spearman),
                f"{_told(row.low)} to {_told(row.high)}",
                _told(row.kendall),
                f"{_told(row.kendall_low)} to {_told(row.kendall_high)}",
                f"{recall}, by chance {row.chance:.0%}",
            ]
        )
    return cells


def _has_ended(trial: FrozenTrial) -> bool:
    """Whether it was trained to the end, or until it diverged."""
    if trial.state not in COUNTED:
        return False
    return trial.state.name == "COMPLETE" or (earned(trial) is None and bool(keys.ours(trial).get(keys.RUNS)))


def _told(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.2f}".replace("-", "−")
