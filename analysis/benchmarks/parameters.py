"""A graph's parameters in Optuna: a fixed flat space, or those expressed and the rest in one attribute.

    python -m analysis.benchmarks.parameters [--quick]

The flat space has 164 parameters: six nodes of five genes, twelve edges of eleven, a wrapper and a sign. Of
these, 12 to 16 are taken to decide what an individual is. Define-by-run, a trial suggests those alone, and
one system attribute has the others. Individuals, storage and transactions are alike; the objective is free.
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, create_trial

from analysis.benchmarks.common import console, middle, parser, print_header, table
from analysis.benchmarks.histories import insert
from optevo.optuna_private import database_of, set_trial_system_attr, written_together
from optevo.samplers.operators import Params, draw
from optevo.spaces.base import suggest
from optevo.storage.opening import open_storage

DORMANT = "dormant"
READ = """
import sys, time
import optuna
from optevo.storage.opening import open_storage
begun = time.process_time()
study = optuna.load_study(study_name="genes", storage=open_storage(sys.argv[1]))
genes = [(trial.params, trial.system_attrs) for trial in study.get_trials(deepcopy=False)]
print(time.process_time() - begun)
"""


def _names(kind: str, n: int) -> CategoricalDistribution:
    return CategoricalDistribution([f"{kind}{i}" for i in range(n)])


def flat_space() -> dict[str, BaseDistribution]:
    """164 parameters with as many choices as operands, operations and decays have."""
    space: dict[str, BaseDistribution] = {
        "wrapper": CategoricalDistribution(["none", "momentum", "nesterov"]),
        "negated": CategoricalDistribution([False, True]),
    }
    for node in range(6):
        space[f"node{node}_arity"] = IntDistribution(1, 2)
        space[f"node{node}_unary"] = _names("unary", 26)
        space[f"node{node}_binary"] = _names("binary", 10)
        for place in ("first", "second"):
            space[f"node{node}_{place}"] = _names("operand", 20 + node)
            space[f"edge{node}_{place}_decayed"] = CategoricalDistribution([False, True])
            space[f"edge{node}_{place}_arity"] = IntDistribution(1, 2)
            for inner in ("left", "right", "root"):
                space[f"edge{node}_{place}_{inner}_operation"] = _names("operation", 20)
                space[f"edge{node}_{place}_{inner}_first"] = _names("a", 14)
                space[f"edge{node}_{place}_{inner}_second"] = _names("a", 14)
    return space


SPACE = flat_space()


@functools.lru_cache(16)  # drawing is not what is measured
def individual(number: int) -> tuple[Params, set[str]]:
    """All genes of the individual of a trial, and the names of those that are expressed."""
    rng = np.random.default_rng(number)
    genes = {name: draw(d, rng) for name, d in SPACE.items()}
    return genes, {"wrapper", "negated", *rng.choice(list(SPACE)[2:], rng.integers(10, 15), replace=False)}


class Individuals(BaseSampler):
    """Random individuals, one a trial number.

    Args:
        flat: Whether a trial has all parameters, or those that are expressed.
    """

    def __init__(self, flat: bool) -> None:
        self.flat = flat

    def individual(self, number: int) -> tuple[Params, list[int]]:
        """What a trial suggests, and the rest as numbers in the space's order."""
        genes, expressed = individual(number)
        if self.flat:
            return genes, []
        rest = [int(d.to_internal_repr(genes[name])) for name, d in SPACE.items() if name not in expressed]
        return {name: genes[name] for name in SPACE if name in expressed}, rest

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that the trial suggests."""
        return {name: SPACE[name] for name in self.individual(trial.number)[0]}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Params:
        """Their values."""
        return self.individual(trial.number)[0]

    def sample_independent(self, *arguments: Any) -> Any:
        """Nothing is left to it."""
        raise NotImplementedError


def ask(study: Study) -> None:
    """One trial from its number to its value."""
    assert isinstance(study.sampler, Individuals)
    trial = study.ask()
    params, rest = study.sampler.individual(trial.number)
    with written_together(study):
        for name in params:
            suggest(trial, name, SPACE[name])
        if rest:
            set_trial_system_attr(study, trial, DORMANT, rest)
    study.tell(trial, 0.0)


def made(url: str, sampler: Individuals, trials: int) -> tuple[Study, float]:
    """A study with a history of so many trials, and how many bytes each takes; NaN without any."""
    study = optuna.create_study(study_name="genes", storage=open_storage(url, create=True), sampler=sampler)
    empty, history = _bytes(study), []
    for number in range(trials):
        params, rest = sampler.individual(number)
        attrs = {DORMANT: rest} if rest else {}
        space = {name: SPACE[name] for name in params}
        history.append(create_trial(params=params, distributions=space, value=0.0, system_attrs=attrs))
    if trials:
        insert(study, history)
    return study, (_bytes(study) - empty) / trials if trials else float("nan")


def _bytes(study: Study) -> int:
    with database_of(study).engine.connect() as connection:  # type: ignore[attr-defined]
        pages = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
        return int(connection.exec_driver_sql(pages).scalar_one())


def read(url: str) -> float:
    """Seconds of CPU until a fresh process has all trials, without its imports."""
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", READ, url]
    return float(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Measure and print."""
    quick = parser(__doc__).parse_args().quick
    sizes, rounds, reads = ((0, 20), 3, 1) if quick else ((0, 1_000), 100, 7)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    lengths = [len(json.dumps(Individuals(flat=False).individual(n)[1])) for n in range(100)]
    print_header(
        f"ask, suggest and tell on SQLite in one process, forms and sizes in turn, {rounds} rounds; median "
        f"[5 %, 95 %]. Reading is done {reads} times, each in a fresh process. The attribute has "
        f"{statistics.fmean(lengths):.0f} characters"
    )
    with tempfile.TemporaryDirectory() as folder:
        forms = {"164 flat": True, "define-by-run": False}
        urls = {(form, n): f"sqlite:///{folder}/{flat}-{n}.db" for form, flat in forms.items() for n in sizes}
        studies = {key: made(url, Individuals(forms[key[0]]), key[1]) for key, url in urls.items()}
        taken: dict[tuple[str, int], list[float]] = {key: [] for key in studies}
        for _ in range(rounds):
            for key, (study, _) in studies.items():
                since = time.perf_counter()
                ask(study)
                taken[key].append(1e3 * (time.perf_counter() - since))
        reading: dict[tuple[str, int], list[float]] = {key: [] for key in studies}
        for _ in range(reads):
            for key, url in urls.items():
                reading[key].append(read(url))
    columns = ("history", "ms a trial", "of flat", "bytes a trial", "s of CPU to read")
    rows = table("a graph's parameters", "form", *columns)
    for (form, size), times in taken.items():
        ratio = statistics.median(times) / statistics.median(taken["164 flat", size])
        each = f"{studies[form, size][1]:,.0f}" if size else "–"
        rows.add_row(form, f"{size:,}", middle(times, 1), f"{ratio:.2f}", each, middle(reading[form, size]))
    console.print(rows)


if __name__ == "__main__":
    main()
