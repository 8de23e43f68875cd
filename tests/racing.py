"""Workers of one study that take turns, on a bench that costs nothing."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState
from strategies import genome

from optevo import keys
from optevo.evaluation.objective import Objective
from optevo.optim.terms.genome import TermGenome
from optevo.samplers import GeneticSampler, NoSlot
from optevo.spaces import Params, Space
from optevo.study.config import StudyConfig, parse_config
from optevo.training.bench import Bench
from optevo.training.fitness import DIVERGED
from optevo.training.run import Run

STEPS = 20
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
Slots = dict[tuple[int, int], dict[str, Any]]
#: Fitness of a run, None for one that diverges.
Score = Callable[[str, str, int], float | None]


class Line(Space):
    """Plain descent at one of twenty rates, three of which ascend, and a number that changes nothing."""

    name = title = "line"
    evolves = True

    def distributions(self) -> dict[str, BaseDistribution]:
        return {"x": FloatDistribution(0, 1), "dormant": FloatDistribution(0, 1)}

    def candidate(self, params: Mapping[str, Any]) -> TermGenome:
        cell = int(params["x"] * 20)
        return genome("GRAD", alphas=(-1.0 if cell % 6 == 4 else 1.0,), lr=0.001 * (cell + 1))

    def presets(self) -> dict[str, Params]:
        return {}

    def sample(self, rng: np.random.Generator) -> Params:
        return {"x": float(rng.random()), "dormant": float(rng.random())}

    def vary(self, parents: Sequence[Params], rng: np.random.Generator, decay: float) -> Params:
        x = float(np.clip(parents[0]["x"] + rng.normal(0, 0.1), 0, 1))
        return {"x": x, "dormant": float(rng.random())}


def chance(*what: object) -> float:
    """A number in [0, 1) that is the same for the same words."""
    return int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:6], "big") / 2**48


def noisy(canonical: str, task: str, seed: int) -> float | None:
    """One candidate in ten diverges somewhere; the others are good or bad, with luck."""
    if chance("diverges", canonical, task, seed) < 0.025:
        return None
    return 0.4 * chance(canonical) + 0.6 * chance(canonical, task, seed)


class Scored(Bench):
    """A bench on which a run costs nothing and comes out as `score` says; keeps what it was asked for."""

    def __init__(self, config: StudyConfig, score: Score = noisy) -> None:
        self.config, self.score = config, score
        self.tasks = [(SimpleNamespace(name=task.name), {}) for task in config.evaluation.tasks]  # type: ignore[misc]
        self.trained: list[tuple[str, str, int]] = []
        self.stacks: list[list[str]] = []

    def run(self, candidate: Any, task: int, seed: int, **options: Any) -> Run:
        return self._run(candidate, task, seed, "alone", options.get("on_point"))

    def run_together(
        self, candidates: Sequence[Any], task: int, seed: int, check: Any, stack: Any = None, **options: Any
    ) -> list[Run]:
        # As rounding does, who else is in the stack shows in the last digits.
        names = [candidate.canonical() for candidate in candidates]
        self.stacks.append(names)
        points = options.get("on_points") or [None] * len(candidates)
        return [
            self._run(candidate, task, seed, names, on_point)
            for candidate, on_point in zip(candidates, points, strict=True)
        ]

    def _run(self, candidate: Any, task: int, seed: int, company: object, on_point: Any) -> Run:
        name, canonical = self.tasks[task][0].name, candidate.canonical()
        self.trained.append((canonical, name, seed))
        value = self.score(canonical, name, seed)
        if value is None:
            return Run(name, seed, DIVERGED, None, None, (None,), 7, 0.1, diverged_at=6)
        value += 1e-12 * chance(company)
        if self.config.evaluation.pruner == "racing_within_runs":
            # The later the tenth, the more does its loss say of the fitness.
            losses = [3 - 2 * value + 0.2 * (10 - n) * chance(canonical, name, seed, n) for n in range(1, 11)]
            for n in range(1, 10):
                if on_point(2 * n, losses[n - 1]):
                    return Run(name, seed, DIVERGED, None, None, tuple(losses[:n]), 2 * n, 0.1, None)
            return Run(name, seed, value, value, 1.0, tuple(losses), STEPS, 0.1, None)
        return Run(name, seed, value, value, 1.0, (2.0, 1.0), STEPS, 0.1, None)


def config(sampler: Mapping[str, Any] | None = None, **evaluation: Any) -> StudyConfig:
    sizes = {"kind": "genetic", "population_size": 14, "n_generations": 6, "n_elites": 2}
    return parse_config(
        {
            "name": "race",
            "seed": 7,
            "space": {"presets": []},
            "sampler": {**sizes, **(sampler or {})} if sampler is None or "kind" not in sampler else sampler,
            "evaluation": {"tasks": ["digits", "mnist"], "steps": STEPS, "seeds": [0, 1], **evaluation},
        },
        "test",
    )


def lined(config: StudyConfig) -> GeneticSampler:
    """The sampler of a study file, on a line instead of term genomes."""
    chosen = config.sampler
    assert chosen.kind == "genetic"
    return GeneticSampler(
        population_size=chosen.population_size,
        n_generations=chosen.n_generations,
        n_elites=chosen.n_elites,
        seed=config.seed,
        space=Line(),
        group_size=config.evaluation.batch_candidates,
        endless=False,
    )


class Workers:
    """Workers of one study that take turns as a random number generator says.

    Each has a study, a sampler and a bench of its own, as processes have; what they share is the storage.
    """

    def __init__(
        self,
        config: StudyConfig,
        n: int = 1,
        *,
        score: Score = noisy,
        costs: Mapping[str, int] | None = None,
        make: Callable[[StudyConfig], GeneticSampler] = lined,
    ) -> None:
        self.config, self.storage = config, InMemoryStorage()
        study = optuna.create_study(storage=self.storage, study_name="s", direction="maximize")
        study.set_user_attr(keys.COSTS, dict(costs or {}))
        self.studies, self.benches, self.objectives = [], [], []
        for _ in range(n):
            sampler = make(config)
            pruner = optuna.pruners.NopPruner()
            study = optuna.load_study(study_name="s", storage=self.storage, sampler=sampler, pruner=pruner)
            self.studies.append(study)
            self.benches.append(Scored(config, score))
            self.objectives.append(Objective(self.benches[-1], sampler.space or Line()))
        self.live: dict[int, optuna.Trial] = {}

    def complete(self) -> bool:
        return (
            self.studies[0].sampler.slot_table(self.studies[0]).generation
            >= self.config.sampler.n_generations
        )

    def ask(self, worker: int) -> bool:
        """Whether the worker got a trial."""
        try:
            trial = self.live[worker] = self.studies[worker].ask()
        except NoSlot:
            return False
        trial.set_user_attr(keys.WORKER, {"host": "here", "pid": worker})
        return True

    def finish(self, worker: int) -> None:
        """Evaluate the trial that the worker has."""
        trial = self.live.pop(worker)
        try:
            value = self.objectives[worker](trial)
        except optuna.TrialPruned:
            self.studies[worker].tell(trial, state=TrialState.PRUNED)
        else:
            self.studies[worker].tell(trial, value)

    def play(self, luck: random.Random | None = None) -> Slots:
        """Take turns until the study is complete; what came of every slot."""
        luck = luck or random.Random(0)
        while not self.complete():
            worker = luck.randrange(len(self.studies))
            if worker in self.live:
                self.finish(worker)
            else:
                self.ask(worker)
        assert not self.live
        return by_slot(self.studies[0].trials)


def by_slot(trials: Iterable[FrozenTrial]) -> Slots:
    """All that must not depend on who evaluated a slot and when; trials are named by their slots."""
    done = [trial for trial in trials if trial.state in FINISHED]
    name = {t.number: (keys.ours(t)[keys.GENERATION], keys.ours(t)[keys.SLOT]) for t in done}
    assert len(set(name.values())) == len(done), "a slot counts twice"
    slots: Slots = {}
    for trial in done:
        attrs = {k: v for k, v in keys.ours(trial).items() if k not in (keys.SECONDS, keys.WORKER)}
        attrs[keys.PARENTS] = [name[number] for number in attrs[keys.PARENTS]]
        if keys.COPIED_FROM in attrs:
            attrs[keys.COPIED_FROM] = name[attrs[keys.COPIED_FROM]]
        attrs[keys.RUNS] = [{k: v for k, v in run.items() if k != "seconds"} for run in attrs[keys.RUNS]]
        if keys.UNFINISHED in attrs:
            attrs[keys.UNFINISHED] = {k: v for k, v in attrs[keys.UNFINISHED].items() if k != "seconds"}
        slots[name[trial.number]] = {
            "params": trial.params,
            "state": trial.state,
            "value": trial.value,
            **attrs,
        }
    return slots


def raced(slot: Mapping[str, Any]) -> bool:
    return slot.get(keys.PRUNED_BY, "").startswith("racing:")
