"""A finished study's database, spoilt, and the commands that read it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import random
import sqlite3
import tempfile
from dataclasses import asdict
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from optevo import keys
from optevo.measurement.fresh_seeds import Result, Row, store_result
from optevo.measurement.pool import form_of, run_key
from optevo.storage.opening import open_storage
from optevo.study.config import StudyConfig, parse_config
from optevo.study.studies import create_or_resume
from optevo.training.run import Run

from . import commands, damage
from .outcomes import Fault

CONFIG = {
    "name": "one",
    "space": {"presets": ["sgd", "adam"]},
    "sampler": {"kind": "genetic", "population_size": 4, "n_generations": 2, "n_elites": 1},
    "evaluation": {"tasks": ["digits"], "steps": 3, "seeds": [0, 1]},
    "rerun": {"candidates": 1, "seeds": 2},
}


def databases(rng: random.Random, folder: Path) -> str:
    """A finished study's database, spoilt in its bytes or its rows, through every command that reads one."""
    file = folder / "a.db"
    file.write_bytes(finished_study())
    what, exact = "bytes", True
    if rng.random() < 0.7:
        with contextlib.closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            what = damage.rows(connection, rng)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    else:
        file.write_bytes(damage.spoil(file.read_bytes(), rng))
        if rng.random() < 0.2:  # a log beside it that is not its own
            (folder / "a.db-wal").write_bytes(rng.randbytes(5000))
            exact = False
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    try:
        with commands.untrained():
            outcomes = commands.read_only(file, rng, CONFIG)
            commands.taken_elsewhere(file, CONFIG)
            if exact and hashlib.sha256(file.read_bytes()).hexdigest() != digest:
                raise Fault("a command that only reads changed the database")
            commands.writing(file, CONFIG)
    except BaseException as error:
        error.add_note(f"done to the database: {what}")
        raise
    return "refused" if 2 in outcomes else "read"


_made: list[bytes] = []


def finished_study() -> bytes:
    """The database of a small finished study with everything that optevo writes, made once."""
    if not _made:
        with tempfile.TemporaryDirectory() as name:
            file = Path(name) / "a.db"
            storage = open_storage(f"sqlite:///{file}", create=True)
            config = parse_config(CONFIG, "fuzz")
            study = create_or_resume(config, storage, "cpu", {"digits": 5})
            study.optimize(evaluate, n_trials=7)
            trial = max(study.trials, key=lambda t: t.value or -9.0)
            rows = [Row(name, 0.5, tuple(map(a_run, (2, 3)))) for name in ("sgd", f"trial {trial.number}")]
            store_result(study, config, Result(trial.number, tuple(rows)))
            measure_all(study, config, trial)
            storage.remove_session()
            getattr(storage, "engine").dispose()  # noqa: B009  a remote storage has none
            with contextlib.closing(sqlite3.connect(file)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            _made.append(file.read_bytes())
    return _made[0]


def measure_all(study: optuna.Study, config: StudyConfig, winner: FrozenTrial) -> None:
    """What `compare` and `ablate` store, without the training."""
    space, seeds = config.make_space(), (1000, 1001, 2000, 2001)  # the first two on the test split
    header = {"trial": winner.number, "steps": 3, "seeds": [1000, 1001], "environment": {}, "worker": None}
    study.set_user_attr(f"{keys.FINAL}1", header)
    candidate = space.candidate(winner.params)
    variants = space.variants(candidate, None)
    assert variants is not None
    for prefix, measured in (
        (f"{keys.FINAL}1:3:", [candidate]),
        (f"{keys.ABLATION}3:", variants.candidates.values()),
    ):
        for one, seed in itertools.product(measured, seeds):
            study.set_user_attr(run_key(prefix, form_of(one), 0, seed), asdict(a_run(seed)))


def a_run(seed: int) -> Run:
    """Some run."""
    return Run("digits", seed, 0.5, 0.5, 1.0, (2.0, 1.0), 3, 0.1, None)


def evaluate(trial: optuna.Trial) -> float:
    """A trial with every attribute, without the training."""
    space = parse_config(CONFIG, "fuzz").make_space()
    candidate = space.candidate(space.suggest(trial))
    runs = [a_run(seed) for seed in (0, 1)]
    attrs = {
        keys.FORMULA: candidate.formula(),
        keys.HYPERPARAMETERS: candidate.describe(),
        keys.CANONICAL: candidate.canonical(),
        keys.RUNS: [asdict(run) for run in runs],
        keys.TRAINED_STEPS: 6,
        keys.SECONDS: 0.2,
        f"{keys.FITNESS_PREFIX}digits": 0.5,
    }
    if trial.number == 5:
        attrs |= {keys.COPIED_FROM: 1, keys.COPIED_RUNS: 2}
    if trial.number == 6:
        attrs |= {keys.PRUNED_BY: "behind", keys.DIVERGED_AT: 3}
    for key, value in attrs.items():
        trial.set_user_attr(key, value)
    trial.report(0.5, step=6)
    if trial.number == 6:
        raise optuna.TrialPruned
    return 0.5 + trial.number / 100
