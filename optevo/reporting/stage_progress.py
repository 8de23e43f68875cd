"""Stages that are being trained, as the command that started them shows it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from optuna.trial import TrialState
from rich.table import Table
from rich.text import Text

from optevo import keys
from optevo.escaping import printable
from optevo.optuna_private import all_trials
from optevo.samplers.base import sampler_of
from optevo.samplers.slots import Slot, claimed, fate
from optevo.study.studies import COUNTED

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optevo.samplers.slots import Member
    from optevo.study.stages import Pipeline

_LINE_SECONDS = 60.0  # the longest silence where plain lines are printed


class StageProgress:
    """A study's stages seen from outside, by reading its storage.

    Args:
        study: See `optevo.study.promotion.staged_study`.
        pipeline: Its stages.

    Attributes:
        counted: Finished trials of stages at the last look.
    """

    def __init__(self, study: optuna.Study, pipeline: Pipeline) -> None:
        self.study, self.stages = study, pipeline.stages
        self.last_line = time.monotonic()
        self._read()
        self.told_stage, self.told_failures = self.slots.generation, {t.number for t in self.failed}

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
        now = self.slots.generation
        self.counted = len(decided)
        self.done = [trial for slot, trial in decided.items() if slot.generation == now]
        self.running = sum(trial.state == TrialState.RUNNING for _, trial in held)
        self.failed = [trial for _, trial in held if trial.state == TrialState.FAIL]

    def told(self) -> str:
        """Where the stages are."""
        now = self.slots.generation
        if now >= len(self.stages):
            return "the stages are complete"
        where = f"stage {now + 1} of {len(self.stages)}, {self.stages[now].name}"
        return printable(f"{where}: {len(self.done)} of {self.slots.size(now)} candidates done")

    def lines(self) -> list[str]:
        """What is new since the last call: ended stages, failures, and now and then a sign of life."""
        self._read()
        new = []
        for trial in self.failed:
            if trial.number not in self.told_failures:
                self.told_failures.add(trial.number)
                new.append(f"trial {trial.number} {printable(fate(trial))}")
        while self.told_stage < self.slots.generation:
            new.append(self._ended(self.told_stage))
            self.told_stage += 1
        if not new and time.monotonic() - self.last_line > _LINE_SECONDS:
            new = [self.told()]
        if new:
            self.last_line = time.monotonic()
        return new

    def _ended(self, stage: int) -> str:
        members, one = self.slots.populations[stage], self.stages[stage]
        whole = [member for member in members if member.complete]
        fell = f", without a score: {len(members) - len(whole)}" * (len(whole) < len(members))
        best = f"best {_told(whole[0])}" if whole else "none has a score"
        kept = min(one.keep, len(whole))
        goes = "reported" if stage == len(self.stages) - 1 else "promoted"
        return printable(f"stage {stage + 1}, {one.name}: {best}; {goes}: {kept} of {len(members)}{fell}")

    def table(self) -> Table:
        """The stages as they stand, for a live display."""
        self._read()
        table = Table(show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        rows = [("study", self.study.study_name), ("now", f"{self.told()}, {self.running} running")]
        rows += [("", self._ended(stage)) for stage in range(self.slots.generation)]
        rows += [("last failure", f"trial {t.number} {fate(t)}") for t in self.failed[-1:]]
        for label, value in rows:  # as Text: nothing in it is taken for markup
            table.add_row(label, Text(printable(value)))
        return table


def _told(member: Member) -> str:
    source = keys.ours(member.trial)[keys.PROMOTED_FROM]
    return f"{member.value:.4f} (of trial {source})"
