"""A worker's sign of life: a count that grows in its running trial's attributes, on any storage."""

from __future__ import annotations

import contextlib
import datetime
import logging
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from optuna.exceptions import UpdateFinishedTrialError

from optevo import keys
from optevo.optuna_private import set_trial_system_attr

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger(__name__)

BEAT_SECONDS = 30.0
# A task that takes no training step for so long hangs: the worker lives, but another one had better try.
HUNG_SECONDS = 1800.0


class Heartbeat:
    """Beats from a thread while a trial runs; tells when the trial was given to another worker.

    Optuna's own heartbeat compares clock times, exists on relational databases only and fails live trials
    where a clock jumps; hence this one. See `optevo.liveness.lost.LivenessMonitor` for the observer's side.

    Args:
        hung_seconds: After so long without a `pulse` it falls silent. Default: half an hour.
    """

    def __init__(self, hung_seconds: float = HUNG_SECONDS) -> None:
        self.hung_seconds = hung_seconds
        self.given_away = False
        self._sign_of_life = time.monotonic()

    def pulse(self) -> None:
        """The trial advances; called every training step."""
        self._sign_of_life = time.monotonic()

    @contextlib.contextmanager
    def beating(self, trial: optuna.Trial) -> Iterator[None]:
        """Beat for `trial` within the block."""
        self.given_away = False
        self.pulse()
        over = threading.Event()
        thread = threading.Thread(target=self._beat, args=(trial, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _beat(self, trial: optuna.Trial, over: threading.Event) -> None:
        count = 0
        while not over.wait(BEAT_SECONDS):
            if time.monotonic() - self._sign_of_life > self.hung_seconds:
                logger.error(
                    "trial %d has not advanced for %.0f s; another worker will have it",
                    trial.number,
                    self.hung_seconds,
                )
                return
            count += 1
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            try:
                set_trial_system_attr(trial.study, trial, keys.BEAT, [count, now])
            except UpdateFinishedTrialError:
                self.given_away = True
                return
            except Exception:  # the worker's own calls meet the same and say what to do
                logger.debug("a heartbeat failed", exc_info=True)
