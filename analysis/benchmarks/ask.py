"""What the sampler costs a trial: ask, suggest the 22 parameters of the term space, tell.

    python -m analysis.benchmarks.ask [--quick]

optevo's `GeneticSampler` beside Optuna's `NSGAIISampler` (population 50 both), in memory and on SQLite,
with a short and a long history of finished trials. The objective is free; `RandomSampler` beside them shows
what Optuna and its storage cost without any sampler to speak of.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import distribution_to_json
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, create_trial
from rich.table import Table

from analysis.benchmarks.common import console, middle, parser, print_header, table
from optevo import keys
from optevo.samplers import GeneticSampler
from optevo.spaces import TermSpace
from optevo.storage.opening import open_storage

POPULATION, ELITES = 50, 3
SPACE = TermSpace()


def samplers() -> dict[str, BaseSampler]:
    """The samplers by name."""
    return {
        "optevo GeneticSampler": GeneticSampler(
            population_size=POPULATION, n_elites=ELITES, n_generations=500, space=SPACE, seed=0
        ),
        "Optuna NSGAIISampler": NSGAIISampler(population_size=POPULATION, seed=0),
        "Optuna RandomSampler": RandomSampler(seed=0),
    }


def objective(params: dict[str, Any]) -> float:
    """Free, and different from trial to trial."""
    return params["lr"] + 1e-3 * params["alpha_0"]


def ask(study: optuna.Study) -> FrozenTrial:
    """One trial from its number to its value."""
    trial = study.ask()
    return study.tell(trial, objective(SPACE.suggest(trial)))


def finished(number: int, params: dict[str, Any]) -> FrozenTrial:
    """The trial of that number as a search by one worker leaves it, whichever sampler goes on from there."""
    generation, slot = 0, number
    if number >= POPULATION:
        generation, slot = divmod(number - POPULATION, POPULATION - ELITES)
        generation += 1
    return create_trial(
        params=params,
        distributions=SPACE.distributions(),
        value=objective(params),
        system_attrs={
            **{keys.CLAIM: [generation, slot], keys.PARENTS: [], keys.ORIGIN: "random"},
            "NSGAIISampler:generation": number // POPULATION,
        },
    )


def fill(study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
    """Give a new study a history of finished trials, and NSGA-II the parents of its generation."""
    backend = getattr(study._storage, "_backend", study._storage)
    if isinstance(backend, RDBStorage):
        _insert(backend, study._study_id, trials)
    else:
        study.add_trials(trials)
    stored = study.get_trials(deepcopy=False)
    generation = len(stored) // POPULATION
    parents = [t._trial_id for t in stored[POPULATION * (generation - 1) : POPULATION * generation]]
    study._storage.set_study_system_attr(study._study_id, f"NSGAIISampler:parent:{generation}", parents)


def _insert(storage: RDBStorage, study_id: int, trials: Sequence[FrozenTrial]) -> None:
    """As rows: through Optuna's own interface a trial takes 27 ms, a history of 20,000 nine minutes."""
    rows: dict[str, list[tuple[Any, ...]]] = {
        "trials (trial_id, number, study_id, state, datetime_start, datetime_complete)": [],
        "trial_params (trial_id, param_name, param_value, distribution_json)": [],
        "trial_values (trial_id, objective, value, value_type)": [],
        "trial_user_attributes (trial_id, key, value_json)": [],
        "trial_system_attributes (trial_id, key, value_json)": [],
    }
    heads, params, values, user, system = rows.values()
    for i, t in enumerate(trials, start=1):
        heads.append((i, i - 1, study_id, t.state.name, str(t.datetime_start), str(t.datetime_complete)))
        for name, value in t.params.items():
            d = t.distributions[name]
            params.append((i, name, d.to_internal_repr(value), distribution_to_json(d)))
        values.append((i, 0, t.value, "FINITE"))
        user += [(i, key, json.dumps(value)) for key, value in t.user_attrs.items()]
        system += [(i, key, json.dumps(value)) for key, value in t.system_attrs.items()]
    with storage.engine.begin() as connection:
        for into, many in filter(lambda table: table[1], rows.items()):
            marks = ", ".join("?" * len(many[0]))
            connection.exec_driver_sql(f"INSERT INTO {into} VALUES ({marks})", many)


def measure(storage: str, sizes: Sequence[int], rounds: int, folder: Path) -> Table:
    """Ask every sampler at every size in turn, `rounds` times."""
    rng = np.random.default_rng(0)
    trials = [finished(number, SPACE.sample(rng)) for number in range(max(sizes))]
    studies: dict[tuple[str, int], optuna.Study] = {}
    first: dict[tuple[str, int], float] = {}
    for size in sizes:
        for name, sampler in samplers().items():
            place: BaseStorage = InMemoryStorage()
            if storage == "SQLite":
                place = open_storage(f"sqlite:///{folder}/{name}-{size}.db", create=True)
            study = optuna.create_study(storage=place, sampler=sampler, direction="maximize")
            fill(study, trials[:size])
            studies[name, size] = study
            first[name, size] = _seconds(study)
    taken: dict[tuple[str, int], list[float]] = {key: [] for key in studies}
    for _ in range(rounds):
        for key, study in studies.items():
            taken[key].append(1e3 * _seconds(study))
    made = table(f"{storage}: ms a trial", "sampler", "history", "median", "of the shorter", "mean", "first")
    for (name, size), times in taken.items():
        ratio = statistics.median(times) / statistics.median(taken[name, sizes[0]])
        mean, start = f"{statistics.fmean(times):.2f}", f"{1e3 * first[name, size]:,.0f}"
        made.add_row(name, f"{size:,}", middle(times), f"{ratio:.2f}", mean, start)
    return made


def _seconds(study: optuna.Study) -> float:
    start = time.perf_counter()
    ask(study)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    quick = parser(__doc__).parse_args().quick
    sizes = (60, 200) if quick else (1_000, 20_000)
    rounds = {"memory": 3, "SQLite": 2} if quick else {"memory": 470, "SQLite": 94}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")  # Optuna's, on heartbeats outside `optimize`
    print_header(
        "ask, 22 suggestions and tell in one process, samplers and sizes in turn, "
        f"{rounds['memory']} rounds in memory and {rounds['SQLite']} on SQLite; a history holds what the "
        "samplers read of a search's trials. Median [5 %, 95 %]; the mean has its share of breeding a "
        "generation; the first trial reads the whole history"
    )
    with tempfile.TemporaryDirectory() as folder:
        for storage, n in rounds.items():
            console.print(measure(storage, sizes, n, Path(folder)))


if __name__ == "__main__":
    main()
