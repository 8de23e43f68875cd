"""Notes that optuna-dashboard shows with a study and with its best trials."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from optevo.errors import UserError
from optevo.escaping import fenced, markdown_table, printable
from optevo.optuna_private import storage_of, study_id, trial_id
from optevo.reporting.text import TEST_MARK, result_markdown, told_hours, trial_lines
from optevo.samplers.base import sampler_of
from optevo.study.studies import best_trials, counted

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optevo.measurement.fresh_seeds import Result
    from optevo.study.config import StudyConfig

#: The last line of what is kept current in a study's note; what people write below it stays.
MARK = "*optevo keeps what stands above this line current; write below it.*"


def write(study: optuna.Study, config: StudyConfig, result: Result | None) -> None:
    """Write a study's note anew, and leave what people have written.

    Args:
        study: Whose.
        config: Its configuration.
        result: What its best came to on fresh seeds; None before that.
    """
    from optuna_dashboard import get_note, save_note  # noqa: PLC0415  slow to import

    before = get_note(study)
    theirs = before.partition(MARK)[2] if MARK in before else f"\n\n{before}" * bool(before)
    body = f"{text(study, config, result)}\n\n{MARK}{theirs}"
    if body != before:
        save_note(study, body)


def write_trial(study: optuna.Study, config: StudyConfig, trial: FrozenTrial) -> None:
    """Leave a note with a trial that has none."""
    # save_note takes trials that are being evaluated alone.
    from optuna_dashboard._note import note_ver_key, save_note_with_version  # noqa: PLC0415  as above

    storage, own = storage_of(study), trial_id(trial)
    if note_ver_key(own) not in storage.get_study_system_attrs(study_id(study)):
        body = f"{fenced(trial_lines(study, config, trial))}\n\n{_export(study, config, trial)}"
        save_note_with_version(storage, study_id(study), own, 1, body)


def text(study: optuna.Study, config: StudyConfig, result: Result | None) -> str:
    """A study in words, as markdown: its best, how far it is, its spread, its cost, how to export."""
    parts = [f"**{TEST_MARK}**"] if config.evaluation.split == "test" else []
    try:
        best = best_trials(study, 1)[0]
    except UserError as error:
        parts.append(str(error))
    else:
        if result is not None:
            best = study.get_trials(deepcopy=False)[result.winner]
        parts.append("## The best on fresh seeds" if result is not None else "## The best so far")
        parts += [fenced(trial_lines(study, config, best)), _export(study, config, best)]
    if result is not None:
        parts += ["Mean ± sd:", result_markdown(result)]
    rows = [["search", "so far" if result is None else "complete"], *_rows(study, config)]
    return "\n\n".join([*parts, "## The search", markdown_table(rows)])


def _rows(study: optuna.Study, config: StudyConfig) -> Iterator[list[str]]:
    # Frames are pandas', slow to import.
    from optevo.reporting.frames import cost  # noqa: PLC0415
    from optevo.reporting.populations import generations  # noqa: PLC0415

    sampler = sampler_of(study)
    table, last = sampler.slot_table(study), sampler.n_generations
    if sampler.has_generations and last is not None:
        yield ["generations", f"{min(table.generation, last)} of {last} finished"]
    frame = generations(study, config)
    yield ["trials", f"{counted(study)} of {config.n_trials}"]
    finished = frame[frame["finished"] & frame["complete_mean"].notna()]
    for row in finished.tail(1).itertuples():
        yield ["best fitness so far", f"{row.best_so_far:.4f}"]
        yield [
            f"fitness in generation {row.generation}",
            f"mean {row.complete_mean:.4f}, middle half {row.complete_q25:.4f} to {row.complete_q75:.4f}, "
            f"of {row.complete} complete members of {row.n}",
        ]
    spent = cost(study)
    yield ["cost so far", f"{spent.steps:,} training steps, {told_hours(spent.hours)} of workers"]


def _export(study: optuna.Study, config: StudyConfig, trial: FrozenTrial) -> str:
    reason = config.make_space().not_exportable()
    if reason is not None:
        return ""
    name = shlex.quote(printable(study.study_name))
    command = f"optevo export {trial.number} --study {name} --output evolved.py"
    return f"To have it as a file:\n\n{fenced([command])}"
