"""`optevo show` and `export`: one trial, in words and as a file."""

from __future__ import annotations

# ruff: noqa: PLC0415
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optevo.cli.options import DEFAULT_STORAGE, Storage, check_output, console, load_one
from optevo.errors import UserError
from optevo.files import write_text

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optevo.measurement.fresh_seeds import Result
    from optevo.study.config import StudyConfig

Study = Annotated[str | None, typer.Option(help="Name of the study; needed where there are several.")]
Which = Annotated[str, typer.Argument(help="`best`, or a trial's number.", metavar="[best|NUMBER]")]


def show(which: Which = "best", storage: Storage = DEFAULT_STORAGE, study: Study = None) -> None:
    """A trial: its rule, lineage and runs. `best` is the winner on fresh seeds, once those were measured."""
    from optevo.measurement.fresh_seeds import stored_result
    from optevo.reporting.text import trial_lines

    loaded, config = load_one(storage, study)
    result = stored_result(loaded, config)
    if which == "best" and result is not None:
        print_result(loaded, config, result)
        return
    for line in trial_lines(loaded, config, _pick(loaded, config, which)):
        console.print(line, highlight=False)


def export(
    which: Which = "best",
    output: Annotated[Path, typer.Option(help="The Python file to write.")] = Path("evolved.py"),
    class_name: Annotated[str, typer.Option(help="Name of the optimizer's class.")] = "Evolved",
    storage: Storage = DEFAULT_STORAGE,
    study: Study = None,
) -> None:
    """Write an optimizer as one file that needs torch alone (of a sweep: the package that has its class)."""
    check_output(output)
    loaded, config = load_one(storage, study)
    write_export(loaded, config, _pick(loaded, config, which), output, class_name)


def _pick(study: optuna.Study, config: StudyConfig, which: str) -> FrozenTrial:
    """The trial that `best` or a number names."""
    from optevo.measurement.fresh_seeds import stored_result
    from optevo.study.studies import best_trials

    trials = study.get_trials(deepcopy=False)
    if which == "best":
        result = stored_result(study, config)
        return trials[result.winner] if result else best_trials(study, 1)[0]
    if not which.isdecimal() or len(which) > 9:
        raise UserError(f"{which!r} is neither `best` nor a trial's number")
    if int(which) >= len(trials):
        raise UserError(
            f"study {study.study_name!r} has no trial {which}; it has {len(trials)} trials from 0 on"
        )
    return trials[int(which)]


def print_result(study: optuna.Study, config: StudyConfig, result: Result) -> None:
    from optevo.reporting.text import result_table, trial_lines

    console.print(result_table(result))
    for line in trial_lines(study, config, study.get_trials(deepcopy=False)[result.winner]):
        console.print(line, highlight=False, soft_wrap=True)


def write_export(
    study: optuna.Study, config: StudyConfig, trial: FrozenTrial, output: Path, class_name: str
) -> None:
    from optevo import __version__, keys
    from optevo.measurement.fresh_seeds import stored_result
    from optevo.reporting.text import fresh

    if keys.CANONICAL not in trial.user_attrs:
        raise UserError(f"trial {trial.number} has no optimizer to export: it is {trial.state.name}")
    evaluation = config.evaluation
    provenance = {
        "study": study.study_name,
        "trial": str(trial.number),
        "fitness in search": str(trial.value),
        "tasks": ", ".join(
            " ".join([t.name, *(f"{k}={v}" for k, v in t.options.items())]) for t in evaluation.tasks
        ),
        "split": evaluation.split,
        "steps": str(evaluation.steps),
        "seeds": ", ".join(map(str, evaluation.seeds)),
        "environment": str(study.user_attrs[keys.ENVIRONMENT]),
        "written by": f"optevo {__version__}",
    }
    result = stored_result(study, config)
    if result is not None and result.winner == trial.number:
        row = result.rows[-1]
        provenance["fitness on fresh seeds"] = f"{fresh(row)}, n = {len(row.by_seed)}"
    try:
        source = config.make_space().candidate(trial.params).source(class_name, provenance)
    except ValueError as error:
        raise UserError(str(error)) from None
    write_text(output, source)
    importable = output.suffix == ".py" and output.stem.isidentifier()
    console.print(f"wrote {output}" + f": from {output.stem} import {class_name}, scheduler" * importable)
