"""Three walls: samplers and spaces without torch, optimizers and tasks without Optuna, imports one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import optevo

PACKAGE = Path(optevo.__file__).parent
STUDY = """
import optuna
from optevo.samplers import GeneticSampler
from optevo.spaces import TermSpace
optuna.logging.disable_default_handler()
space = TermSpace()
presets = list(space.presets().values())
study = optuna.create_study(sampler=GeneticSampler(population_size=8, space=space, presets=presets, seed=0))
def objective(trial):
    genome = space.candidate(space.suggest(trial))
    assert genome.formula() and genome.canonical()
    return genome.lr
study.optimize(objective, n_trials=30)
assert max(t.user_attrs["generation"] for t in study.trials) == 5
"""
OPTIMIZER = """
import torch
import optevo.optim
p = torch.nn.Parameter(torch.ones(3))
optimizer, scheduler = optevo.optim.PRESETS["evolved"].build([p], total_steps=10, compiled=False)
p.grad = torch.ones(3)
optimizer.step()
scheduler.step()
"""
SCORED = """
from pathlib import Path
import optuna
from optevo.study.config import parse_config
from optevo.training.benches import make_worker_bench
from optevo.evaluation.objective import Objective
from optevo.study.studies import make_sampler
from optevo.tasks import TASKS, ScoredTask
optuna.logging.disable_default_handler()
class Stub(ScoredTask):
    name = "stub"
    def score(self, candidate, seed, steps):
        return candidate.lr
TASKS["stub"] = Stub
sampler = {"kind": "genetic", "population_size": 6, "n_generations": 3, "n_elites": 1}
evaluation = {"tasks": ["stub"], "gate": False}
config = parse_config({"name": "scored", "sampler": sampler, "evaluation": evaluation}, "this test")
study = optuna.create_study(sampler=make_sampler(config), direction="maximize")
study.optimize(Objective(make_worker_bench(config, "auto", Path()), config.make_space()), n_trials=16)
assert {t.user_attrs["generation"] for t in study.trials} == {0, 1, 2}
"""
REPORTING = """
from optevo.reporting import ablation, comparison, frames, statistics
from optevo.reporting.page import report
"""
EVALUATION = """
from optevo.evaluation import archive, candidate_runs, curve, racing
from optevo.measurement import fresh_seeds
"""
TASK = """
import torch
import optevo.tasks
optevo.tasks.get_task("digits").model(torch.Generator().manual_seed(0))
"""


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        ("import optevo", ("torch", "optuna")),
        ("import optevo.samplers", ("torch",)),
        ("import optevo.spaces", ("torch",)),
        (STUDY, ("torch",)),
        ("import optevo.optim.terms.genome, optevo.optim.terms.presets", ("torch", "optuna", "numpy")),
        (OPTIMIZER, ("optuna",)),
        ("import optevo.tasks", ("torch", "optuna")),
        (REPORTING, ("torch",)),
        ("import optevo.cli.main", ("optuna", "sqlalchemy")),
        (
            "import optevo.cli.main, optevo.storage.opening, optevo.study.studies, optevo.liveness.status",
            ("torch", "distributed", "grpc"),
        ),
        (TASK, ("optuna",)),
        (EVALUATION, ("torch",)),
        (SCORED, ("torch",)),
        ("import optevo.workers.worker", ("torch",)),
    ],
    ids=[
        "optevo",
        "samplers",
        "spaces",
        "a study",
        "genome",
        "an optimizer",
        "tasks",
        "reporting",
        "the command line",
        "status",
        "a model",
        "evaluation",
        "a scored study",
        "a worker",
    ],
)
def test_it_runs_without(code, forbidden):
    check = f"{code}\nimport sys\nprint(*[name for name in {forbidden!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []


def imports(module: Path) -> Iterator[str]:
    """Every module of optevo that `module` imports anywhere, for type checking only or not."""
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.name} has a relative import"
            names = [
                f"{node.module}.{a.name}" if node.module == "optevo" else node.module for a in node.names
            ]
        else:
            continue
        yield from (name for name in names if name and name.split(".")[0] == "optevo")


def parts(package: str) -> set[str]:
    """The parts of optevo that a package imports besides itself."""
    modules = sorted((PACKAGE / package).rglob("*.py"))
    assert modules
    return {name.split(".")[1] for module in modules for name in imports(module)} - {package}


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("optim", {"errors"}),
        ("tasks", {"errors"}),
        ("spaces", {"errors", "keys", "optim"}),
        ("samplers", {"errors", "keys", "optim", "spaces"}),
    ],
)
def test_imports_point_one_way(package, allowed):
    assert parts(package) <= allowed


def test_nothing_but_the_command_line_knows_the_analysis():
    others = [m for m in PACKAGE.rglob("*.py") if m.parent.name != "analysis"]
    users = {m.name for m in others if any(n.startswith("optevo.reporting") for n in imports(m))}
    assert users == {"cli_analysis.py", "cli_winners.py"}


@pytest.mark.parametrize(
    ("package", "library"), [("optim", "optuna"), ("tasks", "optuna"), ("samplers", "torch")]
)
def test_a_package_never_names_the_library_behind_the_wall(package, library):
    for module in sorted((PACKAGE / package).rglob("*.py")):
        for node in ast.walk(ast.parse(module.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not [name for name in names if name.split(".")[0] == library], module.name
