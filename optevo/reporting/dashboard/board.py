"""A search as optuna-dashboard shows it, kept current by the process that watches the workers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from optevo.errors import UserError
from optevo.reporting.dashboard import notes
from optevo.samplers.base import sampler_of
from optevo.study.studies import best_trials, counted

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optevo.measurement.fresh_seeds import Result
    from optevo.study.config import StudyConfig

logger = logging.getLogger(__name__)

N_BEST = 3  # trials that have a note and files
_REST_SECONDS = 20.0  # at least, between two refreshes
_REST_FACTOR = 20.0  # and so many times what the last one took: 5 % of a core at most
_LONGEST_SECONDS = 300.0  # without a refresh where trials finish and no generation ends


class Board:
    """Note, charts and the best trials' files, written into a study for optuna-dashboard.

    Refreshed when a generation has ended, rarely enough to cost little; never by a worker. It never fails a
    search: an error is logged, once for each of note, charts and files.

    Args:
        study: One of ours.
        config: Its configuration.
    """

    def __init__(self, study: optuna.Study, config: StudyConfig) -> None:
        self.study, self.config = study, config
        self._failed: set[str] = set()
        self._generation, self._counted = -1, -1
        self._since = time.monotonic()
        self._next = self._since + _REST_SECONDS

    def tend(self) -> None:
        """Refresh what is shown if it is time to; call it as often as you like."""
        if time.monotonic() >= self._next:
            self._guarded("state", self._refresh_if_new)

    def refresh(self, result: Result | None = None) -> None:
        """Write all of it anew.

        Args:
            result: What the study's best came to on fresh seeds. Default: None, not measured yet.
        """
        begun = time.monotonic()
        self._guarded("note", lambda: notes.write(self.study, self.config, result))
        self._guarded("charts", lambda: self._write_charts(result))
        self._guarded("files", lambda: self._write_files(result))
        self._since = time.monotonic()
        self._next = self._since + max(_REST_SECONDS, _REST_FACTOR * (self._since - begun))

    def _refresh_if_new(self) -> None:
        sampler, done = sampler_of(self.study), counted(self.study)
        generation = sampler.slot_table(self.study).generation if sampler.has_generations else 0
        late = time.monotonic() - self._since >= _LONGEST_SECONDS
        if generation != self._generation or (late and done != self._counted):
            self._generation, self._counted = generation, done
            self.refresh()
        else:
            self._next = time.monotonic() + 1.0

    def _write_charts(self, result: Result | None) -> None:
        from optevo.reporting.dashboard import charts  # noqa: PLC0415  pandas and plotly

        charts.write(self.study, self.config, result)

    def _write_files(self, result: Result | None) -> None:
        from optevo.reporting.dashboard.artifacts import Artifacts  # noqa: PLC0415  pandas, as above

        artifacts = Artifacts(self.study)
        for trial in _best(self.study, result):
            notes.write_trial(self.study, self.config, trial)
            artifacts.write(self.config, trial)

    def _guarded(self, what: str, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as error:
            if what not in self._failed:
                self._failed.add(what)
                said = f"{type(error).__name__}: {error}"
                logger.warning("optuna-dashboard will lack the study's %s: %s", what, said, exc_info=True)


def _best(study: optuna.Study, result: Result | None) -> list[FrozenTrial]:
    """The best trials, the winner on fresh seeds first; none while no trial is complete."""
    try:
        best = best_trials(study, N_BEST)
    except UserError:
        return []
    if result is None:
        return best
    winner = study.get_trials(deepcopy=False)[result.winner]
    return [winner, *(trial for trial in best if trial.number != winner.number)]
