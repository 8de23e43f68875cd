"""Version, changelog, citation and extras say the same; `import optevo` is light."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

import optevo

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
# What the samplers do without: all run-time dependencies but Optuna and what that needs itself.
SLIM = """
import sys
blocked = {"torch", "torchvision", "sklearn", "scipy", "pandas", "plotly", "pydantic", "typer", "rich"}
blocked |= {"psutil", "pytorch_optimizer", "optuna_dashboard"}
for name in blocked:
    sys.modules[name] = None  # an import of it fails
import optuna
from optevo import GeneticSampler, ParticleSampler, TermSpace
optuna.logging.disable_default_handler()
space = TermSpace()
for sampler in (
    GeneticSampler(population_size=6, n_elites=1, space=space, seed=0),
    ParticleSampler(initial_size=6, n_particles=2, n_mutations=2, space=space, seed=0),
    GeneticSampler(population_size=6, seed=0),
):
    study = optuna.create_study(sampler=sampler)
    def objective(trial):
        return space.candidate(space.suggest(trial)).step_size()
    study.optimize(objective, n_trials=14)
    assert len({trial.params["lr"] for trial in study.trials}) > 6
"""


def test_the_version_is_semantic_and_the_same_everywhere() -> None:
    version = optevo.__version__
    assert re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)((a|b|rc)\d+)?", version)
    (latest, *_) = re.findall(r"^## (\S+?)[, ]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert latest == version
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"] == version
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "optevo.__version__"}


def test_the_citation_has_what_the_format_asks_for() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    for work in cited["references"]:
        assert {"type", "title", "authors"} <= work.keys()


def test_extras_that_the_development_one_names_exist() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    (own,) = [one for one in extras["dev"] if one.startswith("optevo[")]
    named = set(re.findall(r"[\w]+", own)) - {"optevo"}
    assert named == extras.keys() - {"dev", "examples"}


def test_samplers_and_spaces_run_where_only_optuna_is_installed() -> None:
    done = subprocess.run([sys.executable, "-c", SLIM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
