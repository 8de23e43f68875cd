"""`optevo show` and `export`: one trial, in words and as a file."""

from __future__ import annotations

# ruff: noqa: PLC0415, PLR0917
import importlib.machinery
import keyword
import site
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optevo.cli.completion import complete_study
from optevo.cli.json_output import Json, print_json
from optevo.cli.options import DEFAULT_STORAGE, Storage, check_output, console, load_one
from optevo.cli.presets import class_of, is_preset, print_presets, write_preset
from optevo.cli.promote import print_funnel
from optevo.errors import UserError
from optevo.files import write_text

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optevo.measurement.fresh_seeds import Result
    from optevo.study.config import StudyConfig

Study = Annotated[
    str | None,
    typer.Option(
        help="Name of the study; needed where there are several.",
        autocompletion=complete_study,
    ),
]
Which = Annotated[str, typer.Argument(help="`best`, or a trial's number.", metavar="[best|NUMBER]")]


def show(
    which: Which = "best",
    storage: Storage = DEFAULT_STORAGE,
    study: Study = None,
    as_json: Json = False,
) -> None:
    """A trial: its rule, lineage and runs. `best` is the winner on fresh seeds, once those were measured."""
    from optevo.measurement.fresh_seeds import stored_result
    from optevo.reporting.text import trial_lines

    loaded, config = load_one(storage, study)
    result = stored_result(loaded, config)
    if as_json:
        print_json(_told(loaded, config, _pick(loaded, config, which), result))
        return
    if which == "best" and result is not None:
        print_result(loaded, config, result)
    else:
        for line in trial_lines(loaded, config, _pick(loaded, config, which)):
            console.print(line, highlight=False)
    if which == "best":
        print_funnel(loaded, config)


def _told(
    study: optuna.Study, config: StudyConfig, trial: FrozenTrial, result: Result | None
) -> dict[str, Any]:
    """A trial as JSON; with the rows of fresh seeds, the presets first, where it is the study's winner."""
    from optevo.reporting.frames import record

    rows = result.rows if result is not None and result.winner == trial.number else ()
    measured = [
        {
            "optimizer": row.name,
            "search": row.search,
            "mean": row.mean,
            "sd": row.sd,
            "n_seeds": len(row.by_seed),
            "diverged": row.diverged,
            "metrics": {
                task: None if found is None else {"mean": found[0], "sd": found[1]}
                for task in dict.fromkeys(run.task for run in row.runs)
                for found in [row.metric(task)]
            },
        }
        for row in rows
    ]
    return {
        "study": study.study_name,
        "split": config.evaluation.split,
        **record(study, trial),
        "fresh_seeds": measured,
    }


def export(
    which: Annotated[
        str,
        typer.Argument(
            help="`best`, a trial's number, or a preset, such as evolved.", metavar="[best|NUMBER|PRESET]"
        ),
    ] = "best",
    output: Annotated[
        Path | None,
        typer.Option(help="The Python file to write. Default: evolved.py, or the preset's name."),
    ] = None,
    class_name: Annotated[
        str | None,
        typer.Option(help="Name of the optimizer's class. Default: Evolved, or the preset's in CamelCase."),
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    study: Study = None,
    names: Annotated[bool, typer.Option("--list", help="List the presets, and write nothing.")] = False,
) -> None:
    """Write an optimizer as one file that needs torch alone (of a sweep: the package that has its class).

    A preset needs no study: `optevo export evolved` writes the published winner.
    """
    if names:
        print_presets()
    elif is_preset(which):
        output = output or Path(f"{which}.py")
        check_export(output)
        write_preset(which, output, class_of(which) if class_name is None else class_name)
    else:
        output = output or Path("evolved.py")
        check_export(output)
        loaded, config = load_one(storage, study)
        write_export(
            loaded,
            config,
            _pick(loaded, config, which),
            output,
            "Evolved" if class_name is None else class_name,
        )


def check_export(output: Path) -> None:
    """Refuse a file that cannot be written, or not be imported once it is.

    Raises:
        UserError: See `check_output`; or the name of a Python file is no module's, or another module's.
    """
    check_output(output)
    name = output.stem
    if output.suffix != ".py":
        return
    # Python reads names in NFKC, where a fullwidth "ｍath" is math.
    if not name.isidentifier() or unicodedata.normalize("NFKC", name) != name or name.startswith("__"):
        why = f"{name!r} cannot name a module, which has letters, digits and single underscores"
    elif keyword.iskeyword(name):
        why = f"{name!r} is a keyword of Python"
    elif name in sys.stdlib_module_names or name in ("sitecustomize", "usercustomize"):
        why = f"it would take the place of Python's own module {name!r}"
    elif name in ("torch", "numpy", "triton", "optevo") or _installed(name, output.parent):
        why = f"it would take the place of the package {name!r}, which it may need itself"
    elif (output.parent / name / "__init__.py").exists():
        why = f"the folder {name!r} beside it would be imported instead"
    else:
        return
    raise UserError(f"{output} could not be imported: {why}; give another name, such as evolved.py")


def _installed(name: str, folder: Path) -> bool:
    """Whether a module of this name is installed, other than here and in `folder`."""
    own = {Path.cwd(), folder.resolve()}
    packages = {Path(path).resolve() for path in (*site.getsitepackages(), site.getusersitepackages())}
    paths = [path for path in sys.path if Path(path).resolve() in packages - own]
    spec = importlib.machinery.PathFinder.find_spec(name, paths)
    return spec is not None and spec.origin is not None  # a folder without __init__.py hides nothing


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
    from optevo.api.result import leader_of
    from optevo.reporting.text import result_table, trial_lines

    console.print(result_table(result))
    if (leader := leader_of(study, result)) is not None:
        console.print(f"led the search: {leader}", highlight=False)
    for line in trial_lines(study, config, study.get_trials(deepcopy=False)[result.winner]):
        console.print(line, highlight=False)


def write_export(
    study: optuna.Study, config: StudyConfig, trial: FrozenTrial, output: Path, class_name: str
) -> None:
    from optevo.api.exporting import source_of

    write_text(output, source_of(study, config, trial, class_name))
    imported = f": from {output.stem} import {class_name}, scheduler"
    console.print(f"wrote {output}" + imported * (output.suffix == ".py"))
