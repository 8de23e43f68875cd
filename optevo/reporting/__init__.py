"""Looking at studies: frames of what they hold, figures, and a report. Nothing here imports torch.

`figures` needs plotly and is imported only where it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optevo import lazy

if TYPE_CHECKING:
    from optevo.reporting.frames import Cost, best, cost, curves, lineage, runs, trials
    from optevo.reporting.populations import generations, parts, schedules
    from optevo.reporting.stages import funnel

__all__ = [
    "Cost",
    "best",
    "cost",
    "curves",
    "funnel",
    "generations",
    "lineage",
    "parts",
    "runs",
    "schedules",
    "trials",
]

# Frames are pandas', which a command that only tells of a trial need not import.
__getattr__, __dir__ = lazy.attributes(
    __name__,
    {
        "Cost": "optevo.reporting.frames",
        "best": "optevo.reporting.frames",
        "cost": "optevo.reporting.frames",
        "curves": "optevo.reporting.frames",
        "funnel": "optevo.reporting.stages",
        "generations": "optevo.reporting.populations",
        "lineage": "optevo.reporting.frames",
        "parts": "optevo.reporting.populations",
        "runs": "optevo.reporting.frames",
        "schedules": "optevo.reporting.populations",
        "trials": "optevo.reporting.frames",
    },
)
