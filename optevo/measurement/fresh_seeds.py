"""The best of a finished search, measured again on seeds that it never saw.

The winner of a noisy search is flattered by luck. So its best few are trained anew on one set of fresh seeds,
which names the winner, and winner and presets on another, which gives the numbers to report.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from optevo import keys
from optevo.measurement.pool import Measurer, again_when_killed, processes
from optevo.study.continuing import stored_config
from optevo.study.studies import best_trials, contenders, search_trials
from optevo.training.run import Run, as_stored, read_run, total_fitness

if TYPE_CHECKING:
    import optuna

    from optevo.study.config import StudyConfig


@dataclass(frozen=True)
class Row:
    """One candidate on the report seeds.

    Attributes:
        name: A preset's name, or "trial N" for the winner.
        search: Fitness in the search, None where the search did not evaluate it.
        runs: Task by task, seed by seed.
    """

    name: str
    search: float | None
    runs: tuple[Run, ...]

    @property
    def by_seed(self) -> list[float]:
        """Fitness a seed: the mean over tasks, −∞ where any diverged."""
        seeds = sorted({run.seed for run in self.runs})
        return [total_fitness([run for run in self.runs if run.seed == seed]) for seed in seeds]

    @property
    def mean(self) -> float:
        """Mean fitness over the seeds, −∞ where a run diverged."""
        return statistics.fmean(self.by_seed)

    @property
    def sd(self) -> float:
        """Sample standard deviation of the fitness over the seeds, NaN where a run diverged."""
        return math.nan if self.diverged else statistics.stdev(self.by_seed)

    @property
    def diverged(self) -> int:
        """How many of the runs diverged."""
        return sum(run.diverged for run in self.runs)

    @property
    def rank(self) -> tuple[int, float]:
        """The greater the better: on how few seeds a run diverged, then the mean over the others."""
        whole = [value for value in self.by_seed if value > -math.inf]
        return len(whole), statistics.fmean(whole) if whole else -math.inf

    def metric(self, task: str) -> tuple[float, float] | None:
        """Mean and standard deviation of a task's metric; None where a run diverged."""
        values = [run.metric for run in self.runs if run.task == task]
        known = [value for value in values if value is not None]
        return (statistics.fmean(known), statistics.stdev(known)) if len(known) == len(values) else None


@dataclass(frozen=True)
class Result:
    """What a study came to.

    Attributes:
        winner: The trial's number.
        rows: Presets first, the winner last.
    """

    winner: int
    rows: tuple[Row, ...]

    @property
    def tasks(self) -> list[str]:
        """Task names, in the study's order."""
        return list(dict.fromkeys(run.task for run in self.rows[0].runs))


def stored_result(study: optuna.Study, config: StudyConfig) -> Result | None:
    """The result as it was measured with the configuration's settings, None before."""
    stored = study.user_attrs.get(keys.RERUN)
    if stored is None or stored["settings"] != _settings(study, config):
        return None
    rows = (Row(row["name"], row["search"], _runs(row["runs"])) for row in stored["rows"])
    return Result(stored["winner"], tuple(rows))


def measure(
    study: optuna.Study,
    config: StudyConfig,
    *,
    devices: Sequence[str],
    data_root: Path,
    progress: Callable[[int], None] = lambda done: None,
) -> Result:
    """Re-run the best trials and the presets, and name the winner.

    Each run is stored as soon as it is done, so a killed measurement goes on where it was; a trial
    of a preset's canonical form is measured once.

    Args:
        study: A finished search.
        config: Its configuration; `config.rerun` says how many candidates and seeds.
        devices: Where to train, one a process.
        data_root: Where data sets lie.
        progress: Called with the number of runs done so far.

    Raises:
        UserError: No trial of the study is complete.
        RunFailed: Its processes were killed, again and again.
    """
    shortlist = {f"trial {t.number}": t for t in best_trials(study, config.rerun.candidates)}
    space = config.make_space()
    candidates = {name: space.candidate(trial.params) for name, trial in shortlist.items()}
    presets = {name: space.candidate(params) for name, params in space.starts().items()}
    n, first = config.rerun.seeds, max(config.evaluation.seeds) + 1
    choosing, reporting = range(first, first + n), range(first + n, first + 2 * n)

    def once() -> tuple[str, dict[str, tuple[Run, ...]]]:
        with processes(config, devices, data_root) as pool:
            measurer = Measurer(study, config, pool, keys.FRESH, progress)
            winner = next(iter(shortlist))
            if len(shortlist) > 1:
                chosen = measurer.measure(candidates, choosing)
                winner = max(chosen, key=lambda name: Row(name, None, chosen[name]).rank)
            return winner, measurer.measure({**presets, winner: candidates[winner]}, reporting)

    winner, measured = again_when_killed(once)
    trials = search_trials(study, TrialState.COMPLETE)
    found = {keys.ours(trial)[keys.CANONICAL]: trial.value for trial in contenders(trials)}
    rows = [Row(name, found.get(preset.canonical()), measured[name]) for name, preset in presets.items()]
    rows.append(Row(winner, shortlist[winner].value, measured[winner]))
    return Result(shortlist[winner].number, tuple(rows))


def planned_runs(study: optuna.Study, config: StudyConfig) -> int:
    """Runs that `measure` needs, at most: of presets some may be the winner."""
    named = len(best_trials(study, config.rerun.candidates))
    each = (named if named > 1 else 0) + 1 + len(config.make_space().starts())
    return each * config.rerun.seeds * len(config.evaluation.tasks)


def store_result(study: optuna.Study, config: StudyConfig, result: Result) -> None:
    """Keep the result with the study, under the settings that it was measured with.

    That of a search which goes further by now is not kept: it would take the place of the later one.
    """
    if _goes_on(study) and stored_config(study.user_attrs, config.name).n_trials > config.n_trials:
        return
    study.set_user_attr(keys.RERUN, {"settings": _settings(study, config), **as_stored(result)})


def _settings(study: optuna.Study, config: StudyConfig) -> dict[str, int]:
    """What a result depends on that may change; of a search that has gone on, how far it was then."""
    further = {"n_trials": config.n_trials} if _goes_on(study) else {}
    return {**config.rerun.model_dump(mode="json"), **further}


def _goes_on(study: optuna.Study) -> bool:
    return any(key.startswith(keys.EXTENT) for key in study.user_attrs)


def _runs(stored: Sequence[dict[str, Any]]) -> tuple[Run, ...]:
    return tuple(read_run(run) for run in stored)
