"""The optimizer behind a trial: the candidate, with what its runs found out. Nothing here imports torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from optevo import keys
from optevo.training.run import Run, found_rate, read_run

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from optevo.measurement.fresh_seeds import Result
    from optevo.optim.candidate import Candidate
    from optevo.study.config import StudyConfig


def candidate_of(config: StudyConfig, trial: FrozenTrial) -> Candidate | None:
    """What a trial trained; None where it ended before it had all of its parameters."""
    try:
        return config.make_space().candidate(trial.params)
    except (ValueError, KeyError):
        return None


def runs_of(trial: FrozenTrial, result: Result | None = None) -> list[Run]:
    """A trial's runs: those on fresh seeds where it is the winner of `result`, else those of the search."""
    if result is not None and result.winner == trial.number:
        return list(result.rows[-1].runs)
    return [read_run(run) for run in keys.ours(trial).get(keys.RUNS, [])]


def as_trained(candidate: Candidate, runs: Iterable[Run]) -> Candidate:
    """The candidate at the learning rate that most of its runs found, where they looked for one."""
    rate = found_rate(runs)
    return candidate if rate is None else candidate.at_rate(rate)


def hyperparameters(trial: FrozenTrial, runs: Iterable[Run] | None = None) -> str | None:
    """A trial's hyperparameters on one line, with the learning rates that runs found.

    Args:
        trial: Whose; before it was built it has none.
        runs: Of it. Default: None, those of the search.
    """
    described = keys.ours(trial).get(keys.HYPERPARAMETERS)
    if described is None:
        return None
    counts = Counter(run.lr for run in (runs_of(trial) if runs is None else runs) if run.lr is not None)
    if not counts:
        return str(described)
    each = [f"{lr:g} in {n} runs" if n > 1 else f"{lr:g} in 1 run" for lr, n in counts.most_common()]
    found = f"{next(iter(counts)):g}" if len(counts) == 1 else ", ".join(each)
    return f"{described}; found lr {found}"
