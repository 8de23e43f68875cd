"""A running study, as the command that started it shows it."""

from __future__ import annotations

import abc
import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table
from rich.text import Text

from optevo import keys
from optevo.escaping import printable
from optevo.live import live
from optevo.reporting.rules import hyperparameters
from optevo.reporting.text import TEST_MARK, formula
from optevo.samplers.base import sampler_of
from optevo.samplers.slots import Slot, claimed, fate, places
from optevo.study.studies import COUNTED, contenders, search_trials

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optevo.study.config import StudyConfig

_LINE_SECONDS = 60.0  # the longest silence of a search that prints plain lines


class Progress(abc.ABC):
    """A study seen from outside, by reading its storage.

    Args:
        study: The study; its sampler tells generations.

    Attributes:
        counted: Finished trials at the last look.
        failed: Failed ones that are told of.
        generation: The one that is being evaluated.
    """

    counted: int
    failed: list[FrozenTrial]
    generation: int

    def __init__(self, study: optuna.Study) -> None:
        self.study, self.start = study, time.monotonic()
        self._last_line = self.start
        self._read()
        self._told_generation, self._told_failures = self.generation, {t.number for t in self.failed}

    @abc.abstractmethod
    def _read(self) -> None:
        """Look at the storage."""

    @abc.abstractmethod
    def _generation_line(self, generation: int) -> str:
        """What came of a generation that has ended."""

    @abc.abstractmethod
    def _sign_of_life(self) -> str:
        """A line where there has been no news for long."""

    @abc.abstractmethod
    def _rows(self) -> Iterable[tuple[str, str]]:
        """Labels and values of the table."""

    def _retries(self) -> Iterable[str]:
        """A line for each slot that is tried again since the last look. Default: none is told of."""
        return ()

    def lines(self) -> list[str]:
        """What is new since the last call: failures, ended generations, and now and then a sign of life."""
        self._read()
        failed = [trial for trial in self.failed if trial.number not in self._told_failures]
        self._told_failures.update(trial.number for trial in failed)
        ended = range(self._told_generation, self.generation)
        self._told_generation = self.generation
        new = [f"trial {trial.number} {printable(fate(trial))}" for trial in failed]
        new += [*self._retries(), *map(self._generation_line, ended)]
        if not new and time.monotonic() - self._last_line > _LINE_SECONDS:
            new = [self._sign_of_life()]
        if new:
            self._last_line = time.monotonic()
        return new

    def table(self) -> Table:
        """The study as it stands, for a live display."""
        self._read()
        # Names and messages are other people's: as Text, nothing in them is taken for markup.
        table = Table(show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        for label, value in self._rows():
            table.add_row(label, Text(printable(value)))
        return table


class SearchProgress(Progress):
    """A search that is being evaluated.

    Args:
        study: The study.
        config: Its configuration.
    """

    def __init__(self, study: optuna.Study, config: StudyConfig) -> None:
        self.config, self.total = config, config.n_trials
        super().__init__(study)
        self.at_start = self.counted
        self._told_retries = set(self._retried())

    def _read(self) -> None:
        trials = search_trials(self.study)
        counted = [t for t in trials if t.state in COUNTED]
        complete = [t for t in counted if t.state == TrialState.COMPLETE]
        self.trials = trials
        self.counted = places(counted)
        self.pruned = len(counted) - len(complete)
        self.running = sum(t.state == TrialState.RUNNING for t in trials)
        self.failed = [t for t in trials if t.state == TrialState.FAIL and keys.ERROR in keys.ours(t)]
        self.best = max(contenders(complete), key=lambda t: (t.value or 0.0, -t.number), default=None)
        sampler = sampler_of(self.study)
        self.slots = sampler.slot_table(self.study)
        self.generation = self.slots.generation if sampler.has_generations else 0
        self.last_generation = (self.slots.n_generations or 1) - 1

    def _retries(self) -> list[str]:
        new = {number: line for number, line in self._retried().items() if number not in self._told_retries}
        self._told_retries.update(new)
        return list(new.values())

    def _retried(self) -> dict[int, str]:
        """A line for each trial in whose slot another had come to nothing, by the trial's number."""
        held: dict[Slot, list[FrozenTrial]] = {}
        for trial in self.trials:
            slot = claimed(trial)
            if slot is not None and keys.SURPLUS not in keys.ours(trial):
                held.setdefault(slot, []).append(trial)
        return {
            trial.number: f"slot {slot.index} of generation {slot.generation} is tried again, attempt {i}: "
            f"trial {before.number} {printable(fate(before))}"
            for slot, trials in held.items()
            for i, (before, trial) in enumerate(itertools.pairwise(trials), start=2)
            if before.state == TrialState.FAIL
        }

    def _generation_line(self, generation: int) -> str:
        members = self.slots.populations[generation]
        values = [m.value for m in members if m.value > -float("inf")]
        if not values:
            return f"generation {generation}: every trial failed"
        best = self.trials[members[0].number]
        last = self.last_generation
        return (
            f"generation {generation:>{len(str(last))}}/{last}  best {values[0]:.4f}  "
            f"mean {statistics.fmean(values):.4f}  {formula(best)}"
        )

    def _sign_of_life(self) -> str:
        best = f", best {self.best.value:.4f}" if self.best else ""
        return f"trial {self.counted}/{self.total}{best}, {self._left()}"

    def _rows(self) -> Iterator[tuple[str, str]]:
        yield "study", self.study.study_name
        if last := self.last_generation:
            yield "generation", f"{min(self.generation, last)} of {last}"
        states = f"{self.counted} of {self.total}, {self.pruned} pruned, {self.running} running"
        yield "trials", states + (f", {len(self.failed)} failed" if self.failed else "")
        if self.best is not None:
            yield "best fitness", f"{self.best.value:.4f} (trial {self.best.number})"
            yield "best rule", formula(self.best)
            yield "", hyperparameters(self.best) or ""
        for trial in self.failed[-1:]:
            yield "last failure", f"trial {trial.number} {fate(trial)}"
        if self.config.evaluation.split == "test":
            yield "split", TEST_MARK
        yield "time", f"{_duration(time.monotonic() - self.start)}, {self._left()}"

    def _left(self) -> str:
        done = self.counted - self.at_start
        if not done:
            return "time left unknown yet"
        rate = (time.monotonic() - self.start) / done
        return f"{_duration(rate * max(0, self.total - self.counted))} left"


@contextlib.contextmanager
def counting(console: Console, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A line on a terminal that says how many of `total` runs are done; yields what to tell that number."""

    def line(done: int) -> Text:  # as Text: a study's name is no markup
        return Text(f"{printable(what)}: {min(done, total)} of {total} runs done")

    if console.is_jupyter:
        with live(console, line(0)) as show:
            yield lambda done: show(line(done))
        return
    dots = "dots" if console.encoding.startswith("utf") else "line"
    with console.status(line(0), spinner=dots) as status:
        yield lambda done: status.update(line(done))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
    )
