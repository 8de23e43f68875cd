"""What people see: a running search, a trial, a result."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState
from rich.table import Table
from rich.text import Text

from optevo import keys
from optevo.escaping import markdown_table, printable
from optevo.samplers import GeneticSampler, sampler_of
from optevo.samplers.slots import claimed
from optevo.study.studies import COUNTED

if TYPE_CHECKING:
    import optuna

    from optevo.measurement.fresh_seeds import Result
    from optevo.study.config import StudyConfig

#: What stands beside every number of a study whose file says `split = "test"`.
TEST_MARK = "selected and scored on the test split: these numbers flatter what was selected"
_LINE_SECONDS = 60.0  # the longest silence of a search that prints plain lines


class Progress:
    """A search seen from outside, by reading its storage.

    Args:
        study: The study; its sampler tells generations.
        config: Its configuration.
    """

    def __init__(self, study: optuna.Study, config: StudyConfig) -> None:
        self.study, self.config = study, config
        self.start = time.monotonic()
        self.total = config.n_trials
        self.last_line = self.start
        self.told_failures: set[int] = set()
        self._read()
        self.at_start = self.counted
        self.told_generation = self.generation
        self.told_failures.update(t.number for t in self.failed)

    def _read(self) -> None:
        trials = self.study.get_trials(deepcopy=False)
        counted = [t for t in trials if t.state in COUNTED]
        complete = [t for t in counted if t.state == TrialState.COMPLETE]
        self.trials = trials
        self.counted = len({claimed(trial) for trial in counted})
        self.pruned = len(counted) - len(complete)
        self.running = sum(t.state == TrialState.RUNNING for t in trials)
        self.failed = [t for t in trials if t.state == TrialState.FAIL and keys.ERROR in t.user_attrs]
        self.best = max(complete, key=lambda t: (t.value or 0.0, -t.number), default=None)
        self.generation = 0
        if isinstance(self.study.sampler, GeneticSampler):
            self.generation = self.study.sampler.slot_table(self.study).generation

    def lines(self) -> list[str]:
        """What is new since the last call: ended generations, failures, and now and then a sign of life."""
        self._read()
        new = []
        for trial in self.failed:
            if trial.number not in self.told_failures:
                self.told_failures.add(trial.number)
                new.append(
                    f"trial {trial.number} failed: {printable(_last_line(trial.user_attrs[keys.ERROR]))}"
                )
        while self.told_generation < self.generation:
            new.append(self._generation_line(self.told_generation))
            self.told_generation += 1
        if not new and time.monotonic() - self.last_line > _LINE_SECONDS:
            best = f", best {self.best.value:.4f}" if self.best else ""
            new = [f"trial {self.counted}/{self.total}{best}, {self._left()}"]
        if new:
            self.last_line = time.monotonic()
        return new

    def _generation_line(self, generation: int) -> str:
        assert isinstance(self.study.sampler, GeneticSampler)
        members = self.study.sampler.slot_table(self.study).populations[generation]
        values = [m.value for m in members if m.value > -float("inf")]
        if not values:
            return f"generation {generation}: every trial failed"
        best = self.trials[members[0].number]
        last = (self.study.sampler.n_generations or 1) - 1
        return (
            f"generation {generation:>{len(str(last))}}/{last}  best {values[0]:.4f}  "
            f"mean {statistics.fmean(values):.4f}  {formula(best)}"
        )

    def table(self) -> Table:
        """The search as it stands, for a live display."""
        self._read()
        # Names and messages are other people's: as Text, nothing in them is taken for markup.
        table = Table(show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        for label, value in self._rows():
            table.add_row(label, Text(printable(value)))
        return table

    def _rows(self) -> Iterator[tuple[str, str]]:
        yield "study", self.study.study_name
        sampler = sampler_of(self.study)
        if sampler.has_generations and (sampler.n_generations or 2) > 1:
            last = (sampler.n_generations or 1) - 1
            yield "generation", f"{min(self.generation, last)} of {last}"
        states = f"{self.counted} of {self.total}, {self.pruned} pruned, {self.running} running"
        yield "trials", states + (f", {len(self.failed)} failed" if self.failed else "")
        if self.best is not None:
            yield "best fitness", f"{self.best.value:.4f} (trial {self.best.number})"
            yield "best rule", formula(self.best)
            yield "", str(self.best.user_attrs.get(keys.HYPERPARAMETERS, ""))
        for trial in self.failed[-1:]:
            yield "last failure", f"trial {trial.number}: {_last_line(trial.user_attrs[keys.ERROR])}"
        if self.config.evaluation.split == "test":
            yield "split", TEST_MARK
        yield "time", f"{_duration(time.monotonic() - self.start)}, {self._left()}"

    def _left(self) -> str:
        done = self.counted - self.at_start
        if not done:
            return "time left unknown yet"
        rate = (time.monotonic() - self.start) / done
        return f"{_duration(rate * max(0, self.total - self.counted))} left"


def formula(trial: FrozenTrial) -> str:
    """A trial's update rule, empty before it was built."""
    return printable(str(trial.user_attrs.get(keys.FORMULA, "")))


def trial_lines(study: optuna.Study, config: StudyConfig, trial: FrozenTrial) -> list[str]:
    """A trial in words: rule, hyperparameters, lineage, fitness, runs. No line can steer a terminal."""
    return [printable(line) for line in _trial_lines(study, config, trial)]


def _trial_lines(study: optuna.Study, config: StudyConfig, trial: FrozenTrial) -> list[str]:
    attrs = trial.user_attrs
    value = "" if trial.value is None else f", fitness {trial.value:.4f}"
    lines = [f"trial {trial.number} of study {study.study_name!r}: {trial.state.name}{value}"]
    lines += [f"  {TEST_MARK}"] * (config.evaluation.split == "test")
    if keys.FORMULA in attrs:
        lines += [f"  {formula(trial)}", f"  {attrs.get(keys.HYPERPARAMETERS, '')}"]
    if keys.ORIGIN in attrs:
        origin = attrs[keys.ORIGIN]
        if origin == "preset":
            origin = " ".join(["preset", *list(config.make_space().presets())[attrs[keys.SLOT] :][:1]])
        parents = " and ".join(str(number) for number in attrs[keys.PARENTS])
        lines.append(
            f"  generation {attrs[keys.GENERATION]}, slot {attrs[keys.SLOT]}, {origin}"
            + (f" of trials {parents}" if parents else "")
        )
    for run in attrs.get(keys.RUNS, []):
        outcome = f"diverged at step {run['diverged_at']}"
        if run["diverged_at"] is None:
            outcome = f"metric {run['metric']:.4f}"
            if run["loss"] is not None:  # a task that scores by itself has none
                outcome += f", training loss {run['loss']:.4f}"
        lines.append(f"  {run['task']}, seed {run['seed']}: {outcome}, {run['seconds']:.1f} s")
    if keys.COPIED_FROM in attrs:
        copied = f"{attrs[keys.COPIED_RUNS]} of {len(attrs[keys.RUNS])} runs"
        lines.append(f"  {copied} taken over from trial {attrs[keys.COPIED_FROM]}, the same optimizer")
    if keys.PRUNED_BY in attrs:
        lines.append(f"  pruned: {attrs[keys.PRUNED_BY]}")
    if trial.state == TrialState.FAIL and keys.ERROR not in attrs:
        why = trial.system_attrs.get(keys.LOST, "its process was lost")
        if attrs.get(keys.INTERRUPTED):
            why = "interrupted"
        if attrs.get(keys.SURPLUS):
            why = "surplus: every slot was taken"
        lines.append(f"  not counted: {why}")
    if keys.ERROR in attrs:
        lines += ["  failed:", *(f"    {line}" for line in attrs[keys.ERROR].splitlines())]
    return lines


def result_cells(result: Result) -> list[list[str]]:
    """A header and a row a candidate: fitness and each task's metric as mean ± sd over the fresh seeds."""
    n = len(result.rows[0].by_seed)
    cells = [["optimizer", "fitness in search", f"fitness, {n} fresh seeds", *map(printable, result.tasks)]]
    for row in result.rows:
        metrics = [row.metric(task) for task in result.tasks]
        cells.append(
            [
                printable(row.name),
                "" if row.search is None else f"{row.search:.4f}",
                f"{row.mean:.4f} ± {row.sd:.4f}",
                *("diverged" if m is None else f"{m[0]:.4f} ± {m[1]:.4f}" for m in metrics),
            ]
        )
    return cells


def result_table(result: Result) -> Table:
    """`result_cells` for a terminal."""
    header, *rows = result_cells(result)
    table = Table(title="mean ± sd of fitness, and of each task's metric", title_justify="left")
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left", overflow="fold")  # never cut a number
    for row in rows:
        table.add_row(*row, style="bold" if row is rows[-1] else None)
    return table


def result_markdown(result: Result) -> str:
    """`result_cells` for a note."""
    return markdown_table(result_cells(result))


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
    )
