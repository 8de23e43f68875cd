"""The gate's account: what it refused, what asking took, and what of it would have been of use."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from optevo import keys
from optevo.reporting.frames import trials
from optevo.reporting.statistics import wilson
from optevo.samplers.base import populations
from optevo.samplers.slots import USEFUL

if TYPE_CHECKING:
    import optuna

    from optevo.study.config import StudyConfig


@dataclass(frozen=True)
class GateAccount:
    """What came of a search's gate.

    Attributes:
        asked: Individuals that had a slot.
        refused: Those that the gate turned away.
        milliseconds: Median of what asking took; None where no trial has stored it.
        audited: Those refused that were trained all the same.
        useful: Of these, those that did at least as well as the best quarter of the generation before; in
            the first generation, and where those were evaluated in another way, of their own.
        learned: Of the audited, those that have a fitness at all.
        steps: Training steps that the audit took.
    """

    asked: int
    refused: int
    milliseconds: float | None
    audited: int
    useful: int
    learned: int
    steps: int

    def told(self) -> str:
        """In words, with 95 % intervals by Wilson."""
        each = "" if self.milliseconds is None else f", in {self.milliseconds:.1f} ms each"
        text = f"The gate refused {_share(self.refused, self.asked)} individuals{each}."
        if not self.audited:
            return f"{text} None of them was trained all the same."
        return (
            f"{text} Of those, {self.audited:,} were trained all the same, with {self.steps:,} steps: "
            f"{_share(self.learned, self.audited)} had a fitness at all, and "
            f"{_share(self.useful, self.audited)} did at least as well as the best quarter of the generation "
            "before."
        )


def gate_account(study: optuna.Study, config: StudyConfig) -> GateAccount | None:
    """The account of a study with `gate_audit`; None of any other."""
    if not config.evaluation.gate_audit:
        return None
    frame, stored = trials(study, config), study.get_trials(deepcopy=False)
    counted = frame[frame["counted"]]
    attrs = {int(number): keys.ours(stored[number]) for number in counted["number"]}
    refused = counted[counted["pruned_by"].fillna("").str.startswith("gate")]
    audits = {n: attrs[n][keys.AUDIT] for n in refused["number"] if keys.AUDIT in attrs[n]}
    least = {
        generation: useful_fitness(study, counted, generation)
        for generation in set(refused["generation"].dropna())
    }
    earned = {n: one["fitness"] for n, one in audits.items() if one["fitness"] is not None}
    generation_of = dict(zip(refused["number"], refused["generation"], strict=True))
    seconds = [one[keys.GATE_SECONDS] for one in attrs.values() if keys.GATE_SECONDS in one]
    return GateAccount(
        asked=len(counted),
        refused=len(refused),
        milliseconds=1e3 * statistics.median(seconds) if seconds else None,
        audited=len(audits),
        useful=sum(fitness >= least[generation_of[n]] for n, fitness in earned.items()),
        learned=len(earned),
        steps=sum(one["steps"] for one in audits.values()),
    )


def useful_fitness(study: optuna.Study, counted: pd.DataFrame, generation: int) -> float:
    """The least fitness of the best quarter that a trial of a generation is measured by; ∞ where none is.

    Args:
        study: Whose populations the generations are.
        counted: The trials that decided their slots, of `optevo.reporting.trials`.
        generation: The trial's.
    """
    by_number = counted.set_index("number")
    own = [int(n) for n in counted.loc[counted["generation"] == generation, "number"]]
    before = [member.number for member in populations(study).get(generation - 1, [])]
    if not before or by_number.loc[before, "screened"].any() != by_number.loc[own, "screened"].any():
        before = own
    whole = by_number.loc[before].query("state == 'COMPLETE'")["fitness"].dropna()
    best: Sequence[float] = whole.nlargest(max(1, math.ceil(USEFUL * len(before)))).tolist()
    return min(best, default=math.inf)


def _share(found: int, n: int) -> str:
    low, high = wilson(found, n)
    return (
        f"{found:,} of {n:,} ({100 * found / max(1, n):.0f} %, interval {100 * low:.0f} to {100 * high:.0f})"
    )
