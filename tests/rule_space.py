"""A space that is defined as it runs, of candidates that look for their learning rate; and studies of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import optuna
from example_studies import Loaded, run, search
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from optevo import keys
from optevo.measurement.fresh_seeds import Result, Row, store_result
from optevo.optim.graphs.equation import Equation
from optevo.optim.graphs.genome import GraphGenome
from optevo.spaces import Params, Space, SpaceKind, SpaceSection
from optevo.spaces.base import suggest
from optevo.study.config import StudyConfig
from optevo.training.run import read_run

BELOW = ("sqrtabs(s_hat)", "[a4]*exp(v_hat)")
RATES = {"first": [10.0, 0.1], "more": [1.0], "epochs": 1, "epoch_steps": 5, "full_epochs": 4}


class RuleSection(SpaceSection):
    kind: Literal["rules"]


class RuleSpace(Space):
    """`root` says which of the others there are."""

    name, title, own_rate = "rules", "rules", None

    def distributions(self) -> dict[str, BaseDistribution]:
        return {
            "root": CategoricalDistribution(["div", "i1e"]),
            "below": CategoricalDistribution(BELOW),
            "depth": IntDistribution(1, 3),
        }

    def suggest(self, trial: optuna.Trial) -> Params:
        known = self.distributions()
        root = suggest(trial, "root", known["root"])
        other = "below" if root == "div" else "depth"
        return {"root": root, other: suggest(trial, other, known[other])}

    def whole(self, params: Mapping[str, Any]) -> bool:
        return "root" in params and {"div": "below", "i1e": "depth"}[params["root"]] in params

    def candidate(self, params: Mapping[str, Any]) -> GraphGenome:
        if params["root"] == "div":
            text = f"none [a2]*div([mul(a13,a2)]*qh_v,{params['below']})"
        else:
            text = f"-nesterov {'i1e(' * params['depth']}[a11]*g{')' * params['depth']}"
        return GraphGenome(Equation.parse(text))

    def sample(self, rng: np.random.Generator) -> Params:
        if rng.random() < 0.5:
            return {"root": "div", "below": BELOW[rng.integers(2)]}
        return {"root": "i1e", "depth": int(rng.integers(1, 4))}


KIND = SpaceKind(RuleSection, RuleSpace)


def trained(trial: optuna.Trial, settings: StudyConfig) -> float:
    """What the objective writes: the rates found are 1, 1 and 10, 1."""
    space = settings.make_space()
    candidate = space.candidate(params := space.suggest(trial))
    fitness = (
        0.5 + 0.1 * (params["root"] == "div") + 0.01 * params.get("depth", 0) + 0.001 * (trial.number % 7)
    )
    rates = iter((1.0, 1.0, 10.0, 1.0))
    done = [
        run(task.name, seed, fitness, lr=next(rates)) for task in settings.evaluation.tasks for seed in (0, 1)
    ]
    for key, value in {
        keys.FORMULA: candidate.formula(),
        keys.HYPERPARAMETERS: candidate.describe(),
        keys.CANONICAL: candidate.canonical(),
        keys.RUNS: done,
        keys.TRAINED_STEPS: 80,
        keys.SECONDS: 2.0,
        **{keys.FITNESS_PREFIX + one["task"]: fitness for one in done},
    }.items():
        trial.set_user_attr(key, value)
    return fitness


def rules(**changes: Any) -> Loaded:
    """A finished random search of thirty trials; `KIND` has to be registered."""
    evaluation = {"tasks": ["digits", "mnist"], "steps": 20, "seeds": [0, 1], "rates": RATES}
    sampler = {"kind": "random", "n_trials": 30}
    return search(trained, space={"kind": "rules"}, sampler=sampler, evaluation=evaluation, **changes)


def with_winner(loaded: Loaded, number: int, lr: float = 10.0) -> Result:
    """A result on fresh seeds, in which most runs found `lr`, stored in the study."""
    study, config = loaded
    found = [(7, lr), (8, lr), (9, 0.1)]
    runs = tuple(read_run(run("digits", seed, 0.7 + seed / 100, lr=rate)) for seed, rate in found)
    result = Result(number, (Row(f"trial {number}", 0.6, runs),))
    store_result(study, config, result)
    return result
