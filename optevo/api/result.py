"""`SearchResult`: what a search has come to, for whoever called it from Python."""

from __future__ import annotations

import html
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optevo import keys
from optevo.errors import UserError
from optevo.escaping import printable
from optevo.files import write_text
from optevo.measurement.fresh_seeds import Result, stored_result
from optevo.naming import hint
from optevo.reporting.rules import as_trained, runs_of
from optevo.reporting.text import formula, result_cells
from optevo.study.studies import best_trials, counted, is_complete

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    import plotly.graph_objects as go
    from optuna.trial import FrozenTrial
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from optevo.optim.candidate import Candidate
    from optevo.study.config import StudyConfig


class SearchResult:
    """What a search has come to, or how far it is: its best, as an optimizer, a file, figures and frames.

    All of it is read from the study when it is asked for.

    Args:
        study: The study.
        config: Its configuration.

    Attributes:
        study: The same, Optuna's own: `study.trials`, `optuna.visualization` and all else work on it.
        config: The same; `config.to_dict()` is what a study file holds.

    Example:
        >>> result.complete
        True
        >>> model = torch.nn.Linear(2, 2)
        >>> optimizer = result.optimizer(model.parameters())
        >>> schedule = result.scheduler(optimizer, total_steps=100)
        >>> result.frame().fitness.max() >= result.best.value
        np.True_
        >>> result.export("evolved.py").name
        'evolved.py'
    """

    def __init__(self, study: optuna.Study, config: StudyConfig) -> None:
        self.study, self.config = study, config

    @property
    def name(self) -> str:
        """The study's."""
        return self.config.name

    @property
    def complete(self) -> bool:
        """Whether the search has nothing left to evaluate."""
        return is_complete(self.study)

    @property
    def measured(self) -> Result | None:
        """How presets and the winner did on seeds that the search never saw; None before that is known."""
        return stored_result(self.study, self.config)

    @property
    def best(self) -> FrozenTrial:
        """The winner on fresh seeds, once those were measured; before, the fittest trial.

        Raises:
            UserError: No trial is complete.
        """
        result = self.measured
        if result is None:
            return best_trials(self.study, 1)[0]
        return self.study.get_trials(deepcopy=False)[result.winner]

    @property
    def candidate(self) -> Candidate:
        """The best as a rule: `formula()`, `describe()`, `build(params, total_steps)`."""
        best = self.best
        return as_trained(self.config.make_space().candidate(best.params), runs_of(best, self.measured))

    @property
    def formula(self) -> str:
        """The best's update rule in a line."""
        return formula(self.best)

    def optimizer(self, params: Iterable[Any], total_steps: int | None = None) -> Optimizer:
        """The best as an optimizer for a model, at the learning rate that it was found with.

        Args:
            params: Parameters or groups of them, as any optimizer of torch takes them.
            total_steps: Length of the run, for rules that vary over it. Default: None, there is no need.

        Raises:
            UserError: The rule varies over a run, whose length is not given.
        """
        steps = self.config.evaluation.steps if total_steps is None else total_steps
        optimizer, _ = self.candidate.build(params, steps)
        for group in optimizer.param_groups:
            if total_steps is None and "total_steps" in group:
                raise UserError("this rule varies over a run: say optimizer(params, total_steps)")
            group["lr"] = group.pop("initial_lr", group["lr"])  # as it was before it had a schedule
        return optimizer

    def scheduler(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """The schedule of the learning rate that the best was found with.

        Args:
            optimizer: One that `optimizer` has made.
            total_steps: Length of the run; call `step()` after each of them.
        """
        from torch.optim.lr_scheduler import LambdaLR  # noqa: PLC0415  torch only where it is needed

        return LambdaLR(optimizer, self.candidate.schedule(total_steps))

    def export(self, path: str | Path, class_name: str = "Evolved") -> Path:
        """Write the best as one Python file that needs torch alone.

        Args:
            path: Of the file.
            class_name: What it calls the optimizer. Default: "Evolved".

        Returns:
            Where it lies.

        Raises:
            UserError: A class alone can't be the optimizer.
        """
        from optevo.api.exporting import source_of  # noqa: PLC0415  as it is asked for

        write_text(Path(path), source_of(self.study, self.config, self.best, class_name))
        return Path(path)

    def frame(self) -> pd.DataFrame:
        """A row a trial, see `optevo.reporting.trials`."""
        from optevo.reporting.frames import trials  # noqa: PLC0415  imports pandas

        return trials(self.study, self.config)

    def figure(self, name: str = "fitness") -> go.Figure:
        """A figure of plotly's.

        Args:
            name: A key of `optevo.api.figures.FIGURES`: "fitness", "trials", "parts", "lineage", "tasks",
                "curves", "schedules", "importances" or "rule". Default: "fitness", by generation.

        Raises:
            UserError: There is none of this name, or the study has nothing to show in it.
        """
        from optevo.api.figures import FIGURES  # noqa: PLC0415  imports plotly

        if name not in FIGURES:
            raise UserError(f"there is no figure {name!r}: {hint(name, FIGURES)}")
        figure = FIGURES[name](self.study, self.config, self.best)
        if figure is None:
            raise UserError(f"study {self.name!r} has nothing to show as {name!r} yet")
        return figure

    def __repr__(self) -> str:
        return "\n".join(f"{label}: {value}" for label, value in self._lines(self.measured))

    def _repr_html_(self) -> str:
        measured = self.measured
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(label)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for label, value in self._lines(None)
        )
        return f"<table>{rows}</table>" + ("" if measured is None else html_table(result_cells(measured)))

    def _lines(self, measured: Result | None) -> list[tuple[str, str]]:
        state = "complete" if self.complete else "not complete: the same call goes on"
        done = counted(self.study)
        lines = [("study", f"{self.name}, {done} of {self.config.n_trials} trials, {state}")]
        try:
            best = self.best
        except UserError as error:
            return [*lines, ("best", printable(str(error)))]
        lines += [
            ("best", f"trial {best.number}, fitness {best.value:.4f} in the search"),
            ("rule", formula(best)),
            ("with", str(keys.ours(best).get(keys.HYPERPARAMETERS, ""))),
        ]
        if (result := self.measured) is not None and (leader := leader_of(self.study, result)) is not None:
            lines.append(("led the search", leader))
        if measured is not None:
            header, *rows = result_cells(measured)
            lines += [(f"{row[0]}, {header[2].partition(', ')[2]}", row[2]) for row in rows]
        return [(printable(label), printable(value)) for label, value in lines]


def leader_of(study: optuna.Study, result: Result) -> str | None:
    """Who was ahead of the winner before fresh seeds were asked, in words; None where it was the winner."""
    leader = best_trials(study, 1)[0]
    if leader.number == result.winner:
        return None
    return f"trial {leader.number} with {leader.value:.4f}; on fresh seeds trial {result.winner} is ahead"


def html_table(cells: list[list[str]]) -> str:
    """A header and rows for a notebook."""
    header, *rows = ([html.escape(cell) for cell in row] for row in cells)
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
