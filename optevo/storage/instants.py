"""Times of trials are instants, which Optuna hands out as naive local times, wherever they are read."""

from __future__ import annotations

import datetime


def local(time: datetime.datetime) -> datetime.datetime:
    """An instant as the naive local time that Optuna's trials have.

    Of an hour that comes twice, as clocks are put back, it is marked which one is meant (`fold`): so
    ``local(t).astimezone(UTC)`` is `t`, in every zone.

    Args:
        time: With its zone; without one it is local.

    Raises:
        OverflowError: It is beyond the calendar here.
    """
    instant = time.astimezone(datetime.UTC)
    naive = instant.astimezone().replace(tzinfo=None)
    return naive if naive.astimezone(datetime.UTC) == instant else naive.replace(fold=1)
