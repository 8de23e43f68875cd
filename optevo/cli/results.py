"""`optevo compare`, `ablate` and `report`: what a search was worth."""

from __future__ import annotations

# ruff: noqa: PLC0415, PLR0917
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optevo.cli.completion import complete_study
from optevo.cli.json_output import Json, print_json
from optevo.cli.options import DEFAULT_STORAGE, DataDir, Storage, check_output, console, print_cells
from optevo.cli.winners import (
    Machine,
    load_complete,
    measured_entries,
    measured_variants,
    other_entries,
    trained_winner,
    tuned_adamw,
)
from optevo.errors import UserError
from optevo.naming import hint

if TYPE_CHECKING:
    from optevo.reporting.tables import Reading

Studies = Annotated[
    list[str],
    typer.Argument(help="Names of studies.", metavar="STUDY...", autocompletion=complete_study),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes. Default: one a core, or one a GPU.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Reference = Annotated[
    str | None,
    typer.Option(
        help="The study that the others are compared with. Default: a baseline's sweep, else the first.",
        autocompletion=complete_study,
    ),
]
Measure = Annotated[str, typer.Option(help="What is compared: `metric` (the tasks' own) or `fitness`.")]


def compare(
    studies: Studies,
    storage: Storage = DEFAULT_STORAGE,
    steps: Annotated[int | None, typer.Option(min=1, help="Mini-batches a run. Default: 1000.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, max=1000, help="Runs a task. Default: 3.")] = None,
    reference: Reference = None,
    measure: Measure = "metric",
    budget: Annotated[
        str,
        typer.Option(
            help="Equal `steps` for all, or equal `flops`: the operations of so many steps with AdamW."
        ),
    ] = "steps",
    again: Annotated[
        bool, typer.Option("--again", help="Read the test split once more, and mark the result.")
    ] = False,
    output: Annotated[Path, typer.Option(help="Folder for the tables.")] = Path("comparison"),
    workers: Workers = None,
    device: Device = "auto",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Compare studies' winners on the test split: trained with the final budget, once a study."""
    from optevo.measurement.test_split import BUDGETS
    from optevo.reporting.caveats import caveats
    from optevo.reporting.comparison import check_comparable, check_reference, reference_of
    from optevo.reporting.tables import reading_of, study_cells, write_tables

    _check_measure(measure)
    if budget not in BUDGETS:
        raise UserError(f"--budget {budget!r}: {hint(budget, BUDGETS)}")
    _check_folder(output)
    check_reference(reference, studies)
    loaded = load_complete(storage, studies)
    check_comparable([config for _, config in loaded])
    entries = measured_entries(loaded, steps, seeds, again, Machine(workers, device, data_dir), budget=budget)
    (other,) = (one for one in BUDGETS if one != budget)
    beside, against = other_entries(entries, other), reference_of(reference, entries)
    *_, found = write_tables(output, entries, against, measure, beside)
    name, said = "metric" if measure == "metric" else "fitness", caveats(entries, measure)
    readings = [reading_of(group, against, measure) for group in (entries, beside) if group]
    new = [one for one in caveats(beside, measure) if one not in said] if beside else []
    warned = [*said, *(f"with {readings[-1].budget}: {one}" for one in new)]
    if as_json:
        told = {"reference": against, "measure": measure, "studies": found, "caveats": warned}
        print_json({**told, "readings": [_plain(reading) for reading in readings]})
    else:
        _print_readings(readings, name)
        print_cells("found with", study_cells(found))
    for caveat in warned:
        console.print(caveat)
    names = ("runs", "summary", "differences", "costs")
    files = [f"{n}{one.ending}.csv" for one in readings for n in names if n != "costs" or len(one.costs)]
    console.print(f"tables are in {output}/: comparison.md, {', '.join(files)}, studies.csv")


def _plain(reading: Reading) -> dict[str, Any]:
    return {key: value for key, value in reading._asdict().items() if key != "ending"}


def _print_readings(readings: Sequence[Reading], name: str) -> None:
    from optevo.reporting.costs import cost_cells
    from optevo.reporting.tables import difference_cells, summary_cells

    for reading in readings:
        title = f"{name} on the test split, {reading.budget}: mean ± sd over seeds"
        print_cells(title, summary_cells(reading.summary))
        if len(reading.differences):
            print_cells("paired by task and seed", difference_cells(reading.differences))
        if len(reading.costs):
            print_cells("what a training step costs", cost_cells(reading.costs))


def ablate(
    study: Annotated[str, typer.Argument(help="The study's name.", autocompletion=complete_study)],
    storage: Storage = DEFAULT_STORAGE,
    adamw: Annotated[
        str | None, typer.Option(help="A sweep of AdamW. Default: the database's, with the same tasks.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Mini-batches a run. Default: the study's.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=2, help="Runs a task.")] = 3,
    measure: Measure = "metric",
    output: Annotated[Path, typer.Option(help="Folder for the tables.")] = Path("ablation"),
    workers: Workers = None,
    device: Device = "auto",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Take the winner apart, on the validation split: did its rule, its schedule or its tuning win?"""
    from optevo.escaping import escaped, markdown_table, printable
    from optevo.measurement.ablation import variants_config
    from optevo.measurement.test_split import check_fresh
    from optevo.reporting.ablation import ablation_cells, ablation_frame, account, account_cells
    from optevo.reporting.tables import write_files
    from optevo.reporting.text import TEST_MARK, told_budget
    from optevo.study.studies import best_trials

    _check_measure(measure)
    _check_folder(output)
    ((loaded, config),) = load_complete(storage, [study])
    machine = Machine(workers, device, data_dir)
    space = config.make_space()
    # Asked before anything is measured, which may take minutes.
    if space.variants(space.candidate(best_trials(loaded, 1)[0].params), None) is None:
        raise UserError(f"study {study!r} searches {space.title}: there is no rule to take apart")
    winner = trained_winner(loaded, config, machine)
    sweep = tuned_adamw(storage, adamw, config)
    tuned = None
    if sweep is None:
        console.print(
            "no finished sweep of adamw with these tasks, steps and precision, selected on validation data, "
            "is in the database, so rule, schedule and tuning are not told apart: "
            "`optevo run baselines/adamw` makes one; --adamw names one"
        )
    else:
        tuned = trained_winner(*sweep, machine)
    budget = variants_config(config, steps or config.evaluation.steps, seeds)
    configs = [config, *([sweep[1]] if sweep else [])]
    for one in configs:
        check_fresh(one, budget.evaluation.seeds, "the variants")
    warned = [printable(f"{one.name}: {TEST_MARK}") for one in configs if one.evaluation.split == "test"]
    variants = space.variants(winner, tuned)
    assert variants is not None
    runs = measured_variants(loaded, budget, variants.candidates, machine)
    frame, parts = ablation_frame(runs, measure), account(runs, measure, variants.account)
    length = told_budget(budget.evaluation.steps, budget.evaluation.budget)
    said = f"{length}, {seeds} seeds, validation split"
    text = [f"# The winner of {escaped(study)} taken apart\n", f"{said}, {measure}: mean ± sd over seeds.\n"]
    text += [
        *(f"**{escaped(mark)}**\n" for mark in warned),
        *[f"{escaped(variants.note)}\n"] * bool(variants.note),
        markdown_table(ablation_cells(frame), entities=False),
    ]
    show = (lambda title, cells: None) if as_json else print_cells
    show(f"{said}, {measure}", ablation_cells(frame))
    if variants.note:
        console.print(variants.note)
    if parts:
        text += ["\nThe gain over tuned AdamW, one thing changed at a time:\n"]
        text += [markdown_table(account_cells(parts), entities=False)]
        show("the gain over tuned AdamW, one thing changed at a time", account_cells(parts))
    if sweep is not None and tuned is not None:
        text += [f"\nTuned AdamW is the best of study {escaped(sweep[1].name)}: {escaped(tuned.describe())}."]
        console.print(f"tuned AdamW is the best of study {sweep[1].name}: {tuned.describe()}")
    for mark in warned:
        console.print(mark)
    write_files(output, {"ablation.csv": frame.to_csv(index=False), "ablation.md": "\n".join([*text, ""])})
    console.print(f"tables are in {output}/: ablation.md, ablation.csv")
    if as_json:
        print_json(
            {
                **{"study": study, "measure": measure, "split": "validation", "seeds": seeds},
                **{"budget": length, "adamw": sweep and sweep[1].name, "variants": frame, "caveats": warned},
                "account": [{"what": what, **vars(e), "verdict": found} for what, e, found in parts],
            }
        )


def report(
    studies: Studies,
    storage: Storage = DEFAULT_STORAGE,
    output: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    reference: Reference = None,
    measure: Measure = "metric",
) -> None:
    """Write one HTML page about studies, with figures, that opens without a network."""
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
    from optevo.reporting.page.report import write_report
    from optevo.storage.opening import open_storage
    from optevo.study.studies import load_study

    _check_measure(measure)
    check_output(output)
    check_reference(reference, studies)
    opened = open_storage(storage)
    loaded = [load_study(opened, name) for name in dict.fromkeys(studies)]
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
    write_report(loaded, output, summary=summary, differences=differences, notes=notes)
    console.print(f"wrote {output}: open it in a browser")


def _check_measure(measure: str) -> None:
    from optevo.reporting.comparison import MEASURES

    if measure not in MEASURES:
        raise UserError(f"--measure {measure!r}: {hint(measure, MEASURES)}")


def _check_folder(folder: Path) -> None:
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        is_folder, writable = existing.is_dir(), os.access(existing, os.W_OK)
    except OSError as error:
        raise UserError(f"--output {folder}: {error.strerror}") from None
    if not is_folder:
        raise UserError(f"--output {folder}: {existing} is a file, give a folder")
    if not writable:
        raise UserError(f"--output {folder}: permission denied")
