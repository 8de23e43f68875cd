"""What a reader must know before believing a comparison's numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence

from optevo.escaping import printable
from optevo.measurement.test_split import TestEvaluation
from optevo.reporting.comparison import Entry
from optevo.study.environment import deciding
from optevo.training.run import found_rate


def caveats(entries: Sequence[Entry], measure: str) -> list[str]:
    """What a reader must know before believing a number: sentences, none where all is well."""
    said = []
    if len({_deciding(entry.test) for entry in entries}) > 1:
        said.append("The studies were measured in different environments, so that their runs may not pair.")
    if len({repr(entry.config.evaluation.rates) for entry in entries}) > 1:
        said.append(
            "The studies do not look for learning rates in the same way, within their runs or at all: their "
            "numbers are not of one protocol."
        )
    if len({entry.config.evaluation.budget for entry in entries}) > 1:
        said.append("Some studies were searched with equal steps for all, some with equal operations.")
    for entry in entries:
        name = printable(entry.test.study)
        if entry.config.evaluation.split == "test":
            said.append(f"{name} was selected on the test split: its numbers flatter it.")
        said += [f"{name} {caveat}." for caveat in entry.config.make_space().caveats()]
        whole = [run for run in entry.test.runs if not run.diverged]
        if whole and not any(run.losses for run in whole):
            said.append(f"{name}: its tasks score by themselves, on fresh seeds; there is no test split.")
        if entry.test.attempt > 1:
            said.append(f"{name}: this is reading {entry.test.attempt} of the test split.")
        said += [f"{name}: {edge}" for edge in _edges(entry)]
        if (n := len(entry.test.runs)) > len(whole):
            diverged = f"{n - len(whole)} of {n} runs diverged"
            said.append(f"{name}: {diverged}, which counts as less than any {measure}; nothing is tested.")
    return said


def _edges(entry: Entry) -> list[str]:
    """Where the best lies at the end of what was tried, so that it may not be tuned yet."""
    params = entry.study.get_trials(deepcopy=False)[entry.test.trial].params
    said = []
    for name, values in (entry.config.make_space().grid() or {}).items():
        for end, word in ((min(values), "least"), (max(values), "greatest")):
            # Within a tenth, which samplers of ranges reach too; none at all is no end to go beyond.
            if len(values) > 1 and end > 0 and abs(params[name] - end) <= 0.1 * end:
                said.append(
                    f"its best {name}, {params[name]:g}, is about the {word} that was tried; it may not be "
                    "tuned yet."
                )
    rates, found = entry.config.evaluation.rates, found_rate(entry.test.runs)
    tried = (*rates.first, *rates.more) if rates is not None and found is not None else ()
    for end, word in ((min(tried, default=0), "least"), (max(tried, default=0), "greatest")):
        if len(tried) > 1 and found == end:
            said.append(f"the learning rate that its runs found, {found:g}, is the {word} that they tried.")
    return said


def _deciding(evaluation: TestEvaluation) -> str:
    """What of its environment a run's numbers depend on."""
    kind = str(evaluation.environment.get("device")).partition(":")[0]
    return json.dumps({**deciding(evaluation.environment), "device": kind})
