"""Stages that are being trained, as the command that started them shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.trial import TrialState

from optevo import keys
from optevo.escaping import printable
from optevo.optuna_private import all_trials
from optevo.reporting.progress import Progress
from optevo.samplers.base import sampler_of
from optevo.samplers.slots import Slot, claimed, fate
from optevo.study.studies import COUNTED

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optevo.samplers.slots import Member
    from optevo.study.stages import Pipeline


class StageProgress(Progress):
    """A study's stages, each of which is a generation.

    Args:
        study: See `optevo.study.promotion.staged_study`.
        pipeline: Its stages.
    """

    def __init__(self, study: optuna.Study, pipeline: Pipeline) -> None:
        self.stages = pipeline.stages
        super().__init__(study)

    def _read(self) -> None:
        self.slots = sampler_of(self.study).slot_table(self.study)
        held = [
            (slot, trial)
            for trial in all_trials(self.study)
            if (slot := claimed(trial, keys.STAGE_CLAIM)) is not None
        ]
        decided: dict[Slot, FrozenTrial] = {}
        for slot, trial in held:
            if trial.state in COUNTED:
                decided.setdefault(slot, trial)
        self.generation = self.slots.generation
        self.counted = len(decided)
        self.done = [trial for slot, trial in decided.items() if slot.generation == self.generation]
        self.running = sum(trial.state == TrialState.RUNNING for _, trial in held)
        self.failed = [trial for _, trial in held if trial.state == TrialState.FAIL]

    def told(self) -> str:
        """Where the stages are."""
        now = self.generation
        if now >= len(self.stages):
            return "the stages are complete"
        where = f"stage {now + 1} of {len(self.stages)}, {self.stages[now].name}"
        return printable(f"{where}: {len(self.done)} of {self.slots.size(now)} candidates done")

    def _sign_of_life(self) -> str:
        return self.told()

    def _generation_line(self, generation: int) -> str:
        members, one = self.slots.populations[generation], self.stages[generation]
        whole = [member for member in members if member.complete]
        fell = f", without a score: {len(members) - len(whole)}" * (len(whole) < len(members))
        best = f"best {_told(whole[0])}" if whole else "none has a score"
        kept = min(one.keep, len(whole))
        goes = "reported" if generation == len(self.stages) - 1 else "promoted"
        return printable(
            f"stage {generation + 1}, {one.name}: {best}; {goes}: {kept} of {len(members)}{fell}"
        )

    def _rows(self) -> list[tuple[str, str]]:
        rows = [("study", self.study.study_name), ("now", f"{self.told()}, {self.running} running")]
        rows += [("", self._generation_line(stage)) for stage in range(self.generation)]
        return rows + [("last failure", f"trial {t.number} {fate(t)}") for t in self.failed[-1:]]


def _told(member: Member) -> str:
    source = keys.ours(member.trial)[keys.PROMOTED_FROM]
    return f"{member.value:.4f} (of trial {source})"
