"""`optevo.compare` and `optevo.ablate`: what a search was worth, measured now as far as nobody has yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from optevo.api.result import SearchResult, html_table
from optevo.api.searching import console_for, quiet_optuna, storage_url
from optevo.api.winners import (
    Machine,
    load_complete,
    measured_entries,
    measured_variants,
    other_entries,
    trained_winner,
    tuned_adamw,
)
from optevo.errors import UserError
from optevo.escaping import escaped, markdown_table, printable
from optevo.measurement.ablation import variants_config
from optevo.measurement.test_split import BUDGETS, check_fresh
from optevo.naming import hint
from optevo.reporting.ablation import ablation_cells, ablation_frame, account, account_cells
from optevo.reporting.caveats import caveats
from optevo.reporting.comparison import (
    MEASURES,
    check_comparable,
    check_reference,
    reference_of,
    studies_frame,
)
from optevo.reporting.tables import (
    Reading,
    difference_cells,
    reading_of,
    summary_cells,
    write_files,
    write_tables,
)
from optevo.reporting.text import TEST_MARK, told_budget
from optevo.study.studies import best_trials

if TYPE_CHECKING:
    import pandas as pd

    from optevo.reporting.comparison import Entry
    from optevo.reporting.statistics import Estimate

#: A study by its name, or by what a search of it returned.
Named = str | SearchResult


@dataclass(frozen=True, repr=False)
class Comparison:
    """Studies' winners on the test split.

    Attributes:
        entries: The studies, in order, each with its winner and how that did.
        beside: The same with the other kind of budget, where all were measured with it too.
        reference: The study that the others are compared with.
        measure: "metric" or "fitness".
        readings: The tables: of `entries`, then of `beside` if there are any.
        caveats: What to bear in mind when reading the tables.

    Example:
        >>> list(comparison.summary.columns)[:2]
        ['study', 'task']
        >>> comparison.write("tables").name
        'tables'
    """

    entries: Sequence[Entry]
    beside: Sequence[Entry]
    reference: str
    measure: str
    readings: Sequence[Reading]
    caveats: Sequence[str]

    @property
    def summary(self) -> pd.DataFrame:
        """Mean and spread over seeds, a row a study and task."""
        return self.readings[0].summary

    @property
    def differences(self) -> pd.DataFrame:
        """Each study minus the reference, paired by task and seed, with intervals and p-values."""
        return self.readings[0].differences

    @property
    def found_with(self) -> pd.DataFrame:
        """What each study searched, and at what cost."""
        return studies_frame(self.entries)

    def write(self, folder: str | Path) -> Path:
        """Write all tables as CSV, and ``comparison.md``; returns the folder."""
        write_tables(Path(folder), self.entries, self.reference, self.measure, self.beside)
        return Path(folder)

    def _cells(self) -> list[list[list[str]]]:
        cells = [summary_cells(self.summary)]
        return cells + [difference_cells(self.differences)] * bool(len(self.differences))

    def __repr__(self) -> str:
        tables = [markdown_table(cells, entities=False) for cells in self._cells()]
        return "\n".join([*tables, *self.caveats])

    def _repr_html_(self) -> str:
        said = "".join(f"<p>{escaped(caveat)}</p>" for caveat in self.caveats)
        return "".join(map(html_table, self._cells())) + said


def compare(
    *studies: Named,
    steps: int | None = None,
    seeds: int | None = None,
    reference: str | None = None,
    measure: str = "metric",
    budget: str = "steps",
    again: bool = False,
    storage: str | None = None,
    workers: int | None = None,
    device: str = "auto",
    data_dir: str | Path | None = None,
    progress: bool | Console = True,
) -> Comparison:
    """Compare studies' winners on the test split: trained with the final budget, once a study.

    Args:
        *studies: Names of studies, or results of searches.
        steps: Mini-batches a run. Default: 1000.
        seeds: Runs a task. Default: 3.
        reference: The study that the others are compared with. Default: a baseline's sweep, else the first.
        measure: "metric", the tasks' own, or "fitness". Default: "metric".
        budget: Equal "steps" for all, or equal "flops". Default: "steps".
        again: Read the test split once more, and mark the result. Default: False.
        storage: As of `optevo.search`.
        workers: As of `optevo.search`.
        device: As of `optevo.search`.
        data_dir: As of `optevo.search`.
        progress: As of `optevo.search`.

    Raises:
        UserError: A study is not complete, or they do not compare.

    Example:
        >>> comparison = optevo.compare("digits", steps=2, seeds=2, workers=1, progress=False)
        >>> len(comparison.entries)
        1
    """
    check_measure(measure)
    if budget not in BUDGETS:
        raise UserError(f"budget {budget!r}: {hint(budget, BUDGETS)}")
    names = [study_name(one) for one in studies]
    check_reference(reference, names)
    with quiet_optuna():
        loaded = load_complete(storage_url(storage), names)
        check_comparable([config for _, config in loaded])
        machine = Machine(workers, device, data_dir, console_for(progress))
        entries = measured_entries(loaded, steps, seeds, again, machine, budget=budget)
    (other,) = (one for one in BUDGETS if one != budget)
    beside, against = other_entries(entries, other), reference_of(reference, entries)
    readings = [reading_of(group, against, measure) for group in (entries, beside) if group]
    said = caveats(entries, measure)
    new = [one for one in caveats(beside, measure) if one not in said] if beside else []
    said = [*said, *(f"with {readings[-1].budget}: {one}" for one in new)]
    return Comparison(entries, beside, against, measure, readings, said)


@dataclass(frozen=True, repr=False)
class Ablation:
    """A winner taken apart, on the validation split.

    Attributes:
        study: The study's name.
        frame: Mean and spread of each variant over seeds.
        parts: The gain over tuned AdamW, one thing changed at a time: what, its estimate, the verdict; empty
            without a sweep of AdamW.
        budget: What was trained, in words.
        seeds: Runs a task.
        measure: "metric" or "fitness".
        adamw: The sweep that tuned AdamW; None without one.
        tuned: That, and what it found, in words; None without one.
        note: What else to bear in mind.
        marks: Studies whose winner was selected on test data, in words.

    Example:
        >>> "variant" in ablation.frame.columns
        True
    """

    study: str
    frame: pd.DataFrame
    parts: Sequence[tuple[str, Estimate, str]]
    budget: str
    seeds: int
    measure: str
    adamw: str | None
    tuned: str | None
    note: str
    marks: Sequence[str]

    @property
    def cells(self) -> list[list[str]]:
        """The frame for a table."""
        return ablation_cells(self.frame)

    @property
    def account(self) -> list[list[str]] | None:
        """The parts for a table, if there are any."""
        return account_cells(self.parts) if self.parts else None

    def write(self, folder: str | Path) -> Path:
        """Write ``ablation.md`` and ``ablation.csv``; returns the folder."""
        files = {"ablation.csv": self.frame.to_csv(index=False), "ablation.md": self._markdown()}
        write_files(Path(folder), files)
        return Path(folder)

    def _markdown(self) -> str:
        text = [f"# The winner of {escaped(self.study)} taken apart\n"]
        text += [f"{self.budget}, {self.measure}: mean ± sd over seeds.\n"]
        text += [f"**{escaped(mark)}**\n" for mark in self.marks]
        text += [f"{escaped(self.note)}\n"] * bool(self.note)
        text += [markdown_table(self.cells, entities=False)]
        if self.account is not None:
            text += ["\nThe gain over tuned AdamW, one thing changed at a time:\n"]
            text += [markdown_table(self.account, entities=False)]
        if self.tuned is not None:
            text += [f"\n{escaped(self.tuned[:1].upper() + self.tuned[1:])}."]
        return "\n".join([*text, ""])

    def __repr__(self) -> str:
        return self._markdown()

    def _repr_html_(self) -> str:
        said = "".join(f"<p>{escaped(one)}</p>" for one in (self.note, self.tuned, *self.marks) if one)
        return "".join(html_table(cells) for cells in (self.cells, self.account) if cells) + said


def ablate(
    study: Named,
    *,
    adamw: str | None = None,
    steps: int | None = None,
    seeds: int = 3,
    measure: str = "metric",
    storage: str | None = None,
    workers: int | None = None,
    device: str = "auto",
    data_dir: str | Path | None = None,
    progress: bool | Console = True,
) -> Ablation:
    """Take the winner apart, on the validation split: did its rule, its schedule or its tuning win?

    Args:
        study: Its name, or the result of a search.
        adamw: A sweep of AdamW. Default: the database's, with the same tasks.
        steps: Mini-batches a run. Default: the study's.
        seeds: Runs a task. Default: 3.
        measure: "metric", the tasks' own, or "fitness". Default: "metric".
        storage: As of `optevo.search`.
        workers: As of `optevo.search`.
        device: As of `optevo.search`.
        data_dir: As of `optevo.search`.
        progress: As of `optevo.search`.

    Raises:
        UserError: The study is not complete, or has no rule to take apart.

    Example:
        >>> ablation = optevo.ablate("digits", steps=2, seeds=2, workers=1, progress=False)
        >>> ablation.study
        'digits'
    """
    check_measure(measure)
    name, url, console = study_name(study), storage_url(storage), console_for(progress)
    with quiet_optuna():
        ((loaded, config),) = load_complete(url, [name])
        machine = Machine(workers, device, data_dir, console)
        space = config.make_space()
        # Asked before anything is measured, which may take minutes.
        if space.variants(space.candidate(best_trials(loaded, 1)[0].params), None) is None:
            raise UserError(f"study {name!r} searches {space.title}: there is no rule to take apart")
        winner = trained_winner(loaded, config, machine)
        sweep = tuned_adamw(url, adamw, config)
        tuned = None
        if sweep is None:
            console.print(
                "no finished sweep of adamw with these tasks, steps and precision, selected on validation "
                "data, is in the database, so rule, schedule and tuning are not told apart: "
                "`optevo run baselines/adamw` makes one; --adamw names one"
            )
        else:
            tuned = trained_winner(*sweep, machine)
        budget = variants_config(config, steps or config.evaluation.steps, seeds)
        configs = [config, *([sweep[1]] if sweep else [])]
        for one in configs:
            check_fresh(one, budget.evaluation.seeds, "the variants")
        marks = [printable(f"{one.name}: {TEST_MARK}") for one in configs if one.evaluation.split == "test"]
        variants = space.variants(winner, tuned)
        assert variants is not None
        runs = measured_variants(loaded, budget, variants.candidates, machine)
    parts = account(runs, measure, variants.account)
    length = told_budget(budget.evaluation.steps, budget.evaluation.budget)
    said = None
    if sweep is not None and tuned is not None:
        said = f"tuned AdamW is the best of study {sweep[1].name}: {tuned.describe()}"
    return Ablation(
        study=name,
        frame=ablation_frame(runs, measure),
        parts=parts,
        budget=f"{length}, {seeds} seeds, validation split",
        seeds=seeds,
        measure=measure,
        adamw=sweep and sweep[1].name,
        tuned=said,
        note=variants.note,
        marks=marks,
    )


def study_name(study: Named) -> str:
    """A study's, whichever way it is named."""
    return study if isinstance(study, str) else study.name


def check_measure(measure: str) -> None:
    """Refuse what is no measure."""
    if measure not in MEASURES:
        raise UserError(f"measure {measure!r}: {hint(measure, MEASURES)}")
