"""Small genetic searches, and what to read of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

from optevo import keys
from optevo.samplers import GeneticSampler

Factory = Callable[[int], BaseSampler]
Slots = dict[tuple[int, int], Any]
INHERIT = ("COMPLETE", "PRUNED")


def ours(population: int) -> GeneticSampler:
    return GeneticSampler(population_size=population, n_elites=0, seed=0)


def plain(trial: Trial) -> float:
    return trial.suggest_float("x", -5, 5) ** 2 + trial.suggest_float("y", -5, 5) ** 2


def ternary(trial: Trial) -> float:
    return sum(trial.suggest_categorical(f"p{i}", ["a", "b", "c"]) != "b" for i in range(6))


def generation(trial: FrozenTrial) -> int | None:
    return keys.ours(trial).get(keys.GENERATION, trial.system_attrs.get("NSGAIISampler:generation"))


def slot(trial: FrozenTrial) -> tuple[int, int]:
    return keys.ours(trial)[keys.GENERATION], keys.ours(trial)[keys.SLOT]


def sizes(study: Study) -> Counter[int | None]:
    """How many trials each generation took."""
    return Counter(generation(trial) for trial in study.trials)


def ask_slot(study: Study) -> tuple[int, int]:
    """The slot that a newly asked trial gets."""
    number = study.ask().number
    return slot(study.trials[number])


def by_slot(study: Study) -> Slots:
    """The parameters evaluated in each slot; a slot that was decided twice fails here."""
    done = [trial for trial in study.trials if trial.state.name in INHERIT]
    genomes = {slot(trial): trial.params for trial in done}
    assert len(genomes) == len(done), "a slot was evaluated twice"
    return genomes


def rank(trial: FrozenTrial) -> tuple[bool, float]:
    """Whole trials first, then by value; the least is the fittest."""
    return trial.state.name != "COMPLETE", float("inf") if trial.value is None else trial.value


def populations(study: Study, size: int, n_elites: int) -> list[list[int]]:
    """Trial numbers of every finished generation, the fittest first: an oracle that minimises."""
    ranked: list[list[int]] = []
    carried: list[FrozenTrial] = []
    while True:
        g = len(ranked)
        born = [t for t in study.trials if t.state.name in INHERIT and slot(t)[0] == g]
        if len(born) < size - (n_elites if g else 0):
            return ranked
        members = sorted(carried + born, key=rank)
        ranked.append([t.number for t in members])
        carried = members[:n_elites]


def unbroken(n_trials: int, objective: Callable[[Trial], float] = plain, **options: Any) -> Slots:
    study = optuna.create_study(sampler=GeneticSampler(**options))
    study.optimize(objective, n_trials=n_trials)
    return by_slot(study)


class CountingTrials(list):
    """A list of trials that counts how many are looked at."""

    visits = 0

    def __iter__(self) -> Iterator[FrozenTrial]:
        for trial in super().__iter__():
            CountingTrials.visits += 1
            yield trial

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        CountingTrials.visits += len(found) if isinstance(index, slice) else 1
        return found


class CountingStorage(InMemoryStorage):
    reads = 0

    def get_all_trials(self, *args: Any, **kwargs: Any) -> list[FrozenTrial]:
        self.reads += 1
        return CountingTrials(super().get_all_trials(*args, **kwargs))
