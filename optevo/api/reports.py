"""`optevo.report`: studies as one HTML page."""

from __future__ import annotations

from pathlib import Path

from optevo.api.comparing import Named, check_measure, study_name
from optevo.api.searching import storage_url
from optevo.errors import UserError
from optevo.measurement.fresh_seeds import stored_result
from optevo.measurement.test_split import stored_evaluation
from optevo.reporting.caveats import caveats
from optevo.reporting.comparison import (
    OVERALL,
    Entry,
    check_budgets,
    check_comparable,
    check_reference,
    differences_frame,
    reference_of,
    summary_frame,
)
from optevo.storage.opening import open_storage
from optevo.study.studies import load_study


def report(
    *studies: Named,
    output: str | Path = "report.html",
    reference: str | None = None,
    measure: str = "metric",
    storage: str | None = None,
) -> Path:
    """Write one HTML page about studies, with figures, that opens without a network.

    Args:
        *studies: Names of studies, or results of searches.
        output: The file to write. Default: ``report.html``.
        reference: The study that the others are compared with. Default: a baseline's sweep, else the first.
        measure: "metric", the tasks' own, or "fitness". Default: "metric".
        storage: As of `optevo.search`.

    Returns:
        The file.

    Raises:
        UserError: There is no such study.

    Example:
        >>> optevo.report("digits", output="digits.html").stat().st_size > 1_000_000
        True
    """
    from optevo.reporting.page.report import write_report  # noqa: PLC0415  imports plotly

    check_measure(measure)
    names = [study_name(one) for one in studies]
    check_reference(reference, names)
    opened = open_storage(storage_url(storage))
    loaded = [load_study(opened, name) for name in dict.fromkeys(names)]
    entries: list[Entry] = []
    left_out: list[str] = []
    for study, config in loaded:
        final, result = stored_evaluation(study, config), stored_result(study, config)
        if final is not None and result is not None and final.trial == result.winner:
            entries.append(Entry(study, config, result, final))
        elif final is not None:
            left_out.append(
                f"{config.name} is not compared: trial {final.trial} was measured, and is not its winner now."
            )
        else:
            left_out.append(f"{config.name} is not compared: `optevo compare` has not measured its winner.")
    summary = differences = None
    notes: list[str] = []
    try:
        check_comparable([entry.config for entry in entries])
        check_budgets([(e.study, e.steps, e.seeds) for e in (entry.test for entry in entries)])
    except UserError as error:  # each of them can be told of all the same
        notes, entries = [f"Not compared: {error}."], []
    if entries:
        evaluations = [entry.test for entry in entries]
        summary, first = summary_frame(evaluations, measure), evaluations[0]
        if len(first.tasks) == 1:  # the mean over one task is no news
            summary = summary[summary["task"] == OVERALL]
        notes = [
            f"{'The metric' if measure == 'metric' else 'Fitness'} on the test split after {first.steps:,} "
            f"steps, {len(first.seeds)} seeds; intervals are at 95 %.",
            *caveats(entries, measure),
            *left_out,
        ]
        if len(evaluations) > 1:
            differences = differences_frame(evaluations, reference_of(reference, entries), measure)
    write_report(loaded, Path(output), summary=summary, differences=differences, notes=notes)
    return Path(output)
