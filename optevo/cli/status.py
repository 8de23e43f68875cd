"""`optevo status` and `repair`: how far studies are, and who works on them."""

from __future__ import annotations

# ruff: noqa: PLC0415
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Column, Table

from optevo import keys
from optevo.cli.completion import complete_study
from optevo.cli.json_output import Json, print_json
from optevo.cli.options import DEFAULT_STORAGE, Storage, console, load_one
from optevo.errors import UserError
from optevo.escaping import printable

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage

    from optevo.liveness.status import RunningTrial
    from optevo.storage.counting import Counts
    from optevo.study.config import StudyConfig

#: What is told of a study as JSON, besides its workers.
KEYS = (
    *("study", "sampler", "generation", "n_generations", "trials", "n_trials", "pruned", "failed", "lost"),
    *("running", "gone", "best", "state", "split", "error"),
)


def status(storage: Storage = DEFAULT_STORAGE, as_json: Json = False) -> None:
    """Every study in the database: how far it is, its best so far, and its workers."""
    from optevo.storage.opening import open_storage, shown
    from optevo.study.studies import study_names

    opened = open_storage(storage)
    told = [_told(opened, name) for name in study_names(opened)]
    if as_json:
        print_json({"storage": shown(storage), "studies": told})
    elif told:
        _print_tables(told)
    else:
        console.print("no study in this database yet")


def _print_tables(told: list[dict[str, Any]]) -> None:
    names_of_columns = ("study", "sampler", "gen.", "trials", "pruned", "failed", "running", "best", "state")
    # Without lines it fits 80 columns, where names and messages may be folded, but figures are not.
    folded = ("study", "state") if console.width >= 80 else names_of_columns
    header = (Column(name, overflow="fold", no_wrap=name not in folded) for name in names_of_columns)
    table = Table(*header, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    columns = ("study", "worker", "device", "trial", "gen./slot", "last heard of", "state")
    workers = Table(*(Column(name, overflow="fold") for name in columns))
    for one in told:
        table.add_row(*map(printable, _cells(one)))
        for worker in one["workers"]:
            heard = f"{worker['seconds']:.0f} s ago"
            row = [worker["worker"], worker["device"], str(worker["trial"]), worker["slot"], heard]
            workers.add_row(*map(printable, [one["study"], *row, worker["state"]]))
    console.print(table)
    if workers.row_count:
        console.print(workers)


def repair(
    study: Annotated[str, typer.Argument(help="The study's name.", autocompletion=complete_study)],
    storage: Storage = DEFAULT_STORAGE,
    everything: Annotated[
        bool, typer.Option("--all", help="Take the slots of live workers too; they go on with others.")
    ] = False,
) -> None:
    """Give back what dead workers hold. Seldom needed: `run` does so by itself."""
    from optevo.liveness.status import repair as give_back

    loaded, _ = load_one(storage, study)
    found = 0
    for running_trial, requeued in give_back(loaded, everything=everything):
        found += requeued
        what = "given back, to be evaluated again" if requeued else "left alone"
        where = f"generation/slot {running_trial.slot}" if running_trial.slot else "no slot yet"
        name = running_trial.name or "a worker without a name"
        console.print(
            f"trial {running_trial.trial.number}, {where}: {name} is {running_trial.state}, heard of "
            f"{running_trial.seconds:.0f} s ago: {what}"
        )
    console.print(f"{found} trials given back" if found else "nothing was left behind")


def _read(study: optuna.Study, config: StudyConfig) -> tuple[Counts, list[RunningTrial]]:
    """Counts, and the running trials: nothing of the others is read."""
    from optevo.liveness.status import running_trials
    from optevo.storage.counting import count
    from optevo.storage.opening import count_states
    from optevo.study.check_trials import WHOLE, gate_of
    from optevo.study.damage import readable

    where = f"study {study.study_name!r}"
    counts = readable(where, lambda: count(study))
    every = count_states(study) if keys.STAGES in study.user_attrs else None  # those of stages too
    gate = gate_of(where, config, sum(every.values()) if every else counts.states.total())
    return counts, readable(where, lambda: running_trials(study, lambda trial: gate(trial, WHOLE)))


def _stage(study: optuna.Study, config: StudyConfig) -> str | None:
    """At which stage a study is that has some left to work on."""
    from optevo.samplers import sampler_of
    from optevo.study.promotion import staged_study, stored_pipeline

    pipeline = stored_pipeline(study, config)
    if pipeline is None:
        return None
    staged = staged_study(study, config, pipeline)
    table = sampler_of(staged).slot_table(staged)
    return None if table.ended else f"stage {table.generation + 1} of {len(pipeline.stages)}"


def _told(storage: BaseStorage, name: str) -> dict[str, Any]:
    """How far a study is; all but its name and the reason is None where it can't be read."""
    from optevo.study.studies import load_study

    try:
        study, config = load_study(storage, name, trials="none")
        return _row(study, config, *_read(study, config))
    except UserError as error:
        return {**dict.fromkeys(KEYS), "study": name, "workers": [], "error": str(error)}


def _row(
    study: optuna.Study, config: StudyConfig, counts: Counts, at_work: list[RunningTrial]
) -> dict[str, Any]:
    from optuna.trial import TrialState

    from optevo.measurement.fresh_seeds import stored_result
    from optevo.samplers import sampler_of
    from optevo.study.studies import is_complete

    sampler = sampler_of(study)
    gone = sum(running_trial.state != "live" for running_trial in at_work)
    state = "running" if len(at_work) > gone else "idle"
    # Where a place has several attempts, its first may have ended and the last not.
    single = sampler.attempts((sampler.n_generations or 1) - 1) == 1
    if counts.decided >= config.n_trials and (single or is_complete(study)):
        done = config.rerun.candidates == 0 or stored_result(study, config) is not None
        state = "complete" if done else "complete, not measured"
        state = _stage(study, config) or state
    bred = sampler.has_generations and sampler.n_generations != 1
    row = {
        "study": study.study_name,
        "sampler": config.sampler.kind,
        "generation": counts.generation if bred else None,
        "n_generations": sampler.n_generations if bred else None,
        "trials": counts.decided,
        "n_trials": config.n_trials,
        "pruned": counts.states[TrialState.PRUNED],
        "failed": counts.errors,
        "lost": counts.lost,
        "running": len(at_work),
        "gone": gone,
        "best": counts.best,
        "state": state,
        "split": config.evaluation.split,
        "error": None,
    }
    workers = [
        {
            "worker": one.name,
            "device": one.device,
            "trial": one.trial.number,
            "slot": one.slot,
            "seconds": one.seconds,
            "state": one.state,
        }
        for one in at_work
    ]
    return {**row, "workers": workers}


def _cells(one: dict[str, Any]) -> list[str]:
    if one["error"] is not None:
        return [one["study"], *[""] * 7, one["error"].partition(";")[0]]
    return [
        one["study"],
        one["sampler"],
        "" if one["generation"] is None else str(one["generation"]),
        f"{one['trials']}/{one['n_trials']}",
        str(one["pruned"]),
        str(one["failed"]) + f", {one['lost']} lost" * (one["lost"] > 0),
        str(one["running"]) + f", {one['gone']} gone" * (one["gone"] > 0),
        "" if one["best"] is None else f"{one['best']:.4f}",
        one["state"] + ", on the test split" * (one["split"] == "test"),
    ]
