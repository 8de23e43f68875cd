"""Looking at studies: frames of what they hold, figures, and a report. Nothing here imports torch.

`figures` needs plotly and is imported only where it is used.
"""

from __future__ import annotations

from optevo.reporting.frames import Cost, best, cost, curves, lineage, runs, trials
from optevo.reporting.populations import generations, parts, schedules

__all__ = [
    "Cost",
    "best",
    "cost",
    "curves",
    "generations",
    "lineage",
    "parts",
    "runs",
    "schedules",
    "trials",
]
