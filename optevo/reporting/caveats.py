"""What a reader must know before believing a comparison's numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence

from optevo.escaping import printable
from optevo.measurement.test_split import TestEvaluation
from optevo.reporting.comparison import Entry
from optevo.spaces.sections import BaselineSection as BaselineConfig
from optevo.study.environment import deciding


def marks(entries: Sequence[Entry], measure: str) -> list[str]:
    """What a reader must know before believing a number: sentences, none where all is well."""
    said = []
    if len({_deciding(entry.final) for entry in entries}) > 1:
        said.append("The studies were measured in different environments, so that their runs may not pair.")
    counts = "−1" if measure == "fitness" else "0"
    for entry in entries:
        name = printable(entry.final.study)
        if entry.config.evaluation.split == "test":
            said.append(f"{name} was selected on the test split: its numbers flatter it.")
        if "evolved" in getattr(entry.config.space, "presets", ()):
            said.append(
                f"{name} names the preset evolved, which its authors selected on the test splits of MNIST, "
                "Fashion-MNIST and CIFAR-10."
            )
        whole = [run for run in entry.final.runs if run.diverged_at is None]
        if whole and not any(run.losses for run in whole):
            said.append(f"{name}: its tasks score by themselves, on fresh seeds; there is no test split.")
        if entry.final.attempt > 1:
            said.append(f"{name}: this is reading {entry.final.attempt} of the test split.")
        said += [f"{name}: {edge}" for edge in _edges(entry)]
        diverged = sum(run.diverged_at is not None for run in entry.final.runs)
        if diverged:
            said.append(f"{name}: {diverged} of {len(entry.final.runs)} runs diverged; they count {counts}.")
    return said


def _edges(entry: Entry) -> list[str]:
    """Where a sweep's best lies at the end of what it tried, so that it may not be tuned yet."""
    space = entry.config.space
    if not isinstance(space, BaselineConfig):
        return []
    params = entry.study.get_trials(deepcopy=False)[entry.final.trial].params
    ends = [("lr", min, "least"), ("lr", max, "greatest"), ("weight_decay", max, "greatest")]
    if min(space.weight_decay) > 0:  # none at all is no end that one could go beyond
        ends.append(("weight_decay", min, "least"))
    return [
        f"its best {name}, {params[name]:g}, is about the {word} that was tried; it may not be tuned yet."
        for name, end, word in ends
        if len(getattr(space, name)) > 1 and _close(params[name], end(getattr(space, name)))
    ]


def _close(value: float, end: float) -> bool:
    """Within a tenth, which samplers of ranges reach too."""
    return abs(value - end) <= 0.1 * end


def _deciding(final: TestEvaluation) -> str:
    """What of its environment a run's numbers depend on."""
    kind = str(final.environment.get("device")).partition(":")[0]
    return json.dumps({**deciding(final.environment), "device": kind})
