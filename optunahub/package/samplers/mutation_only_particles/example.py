"""A quadratic function of a float and an integer, from a local copy of the registry.

python optunahub/package/samplers/mutation_only_particles/example.py
"""

from __future__ import annotations

from pathlib import Path

import optuna
import optunahub


def objective(trial: optuna.Trial) -> float:
    x = trial.suggest_float("x", -5, 5)
    y = trial.suggest_int("y", -5, 5)
    return x**2 + (y - 2) ** 2


module = optunahub.load_local_module(
    package="samplers/mutation_only_particles", registry_root=str(Path(__file__).parents[2])
)
sampler = module.ParticleSampler(initial_size=40, n_particles=4, n_steps=5, n_mutations=3, seed=0)
study = optuna.create_study(
    sampler=module.ParticleSampler(initial_size=40, n_particles=4, n_steps=5, n_mutations=3, seed=0)
)
study.optimize(objective, n_trials=104)
print(study.best_trial.value, study.best_trial.params)
