"""Every file of `examples/` does what its first lines say."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import runpy
import sys
import textwrap
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from command_line import run
from extensions import published_terms  # noqa: F401  a fixture

from optevo.evaluation.objective import Objective
from optevo.optim import TermGenome
from optevo.optim.terms.reference import ReferenceOptimizer
from optevo.optim.terms.table import TERMS
from optevo.study.config import StudyConfig, parse_config
from optevo.study.continuing import continued
from optevo.study.studies import make_sampler
from optevo.training.bench import Bench
from optevo.training.check_task import check_task

EXAMPLES = Path(__file__).parents[1] / "examples"
FILES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
NEEDS = {"hugging_face": "transformers", "lightning_module": "lightning"}
TASKS = [
    pytest.param(name, marks=[pytest.mark.slow] * (name in NEEDS))  # importing those takes seconds
    for name in ("tabular_regression", "image_folder", "hugging_face", "lightning_module")
]
pytestmark = pytest.mark.usefixtures("published_terms")


def study(name: str) -> str:
    """The study file that an example's first lines hold."""
    docstring = ast.get_docstring(ast.parse((EXAMPLES / f"{name}.py").read_text("utf-8")))
    return textwrap.dedent(docstring[docstring.index("::\n") + 3 :])


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], StudyConfig]:
    """Makes an example importable; returns its study."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(tmp_path)

    def make(name: str) -> StudyConfig:
        if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
            pytest.skip(f"{NEEDS[name]} is not installed")
        if name == "image_folder":
            runpy.run_path(str(EXAMPLES / "image_folder.py"), run_name="__main__")
        return parse_config(tomllib.loads(study(name)), name)

    yield make
    for name in FILES:
        sys.modules.pop(name, None)


def test_all_are_listed_and_have_a_study():
    listed = re.findall(r"\]\((\w+)\.py\)", (EXAMPLES / "README.md").read_text("utf-8"))
    assert sorted(listed) == FILES
    assert all(tomllib.loads(study(name))["name"] == name for name in FILES)


@pytest.mark.parametrize("name", TASKS)
def test_a_tasks_check_finds_nothing_wrong(example: Callable[[str], StudyConfig], name: str):
    evaluation = example(name).evaluation
    findings = check_task(
        evaluation.tasks[0].make(), Path(), steps=evaluation.steps // 2, batch_size=evaluation.batch_size
    )
    assert "wrong" not in [one.verdict for one in findings], findings
    assert [one.found for one in findings if one.check == "global generators"] == ["untouched"]


@pytest.mark.parametrize("name", ["new_term", "new_space", "new_sampler"])
def test_a_search_with_it_runs_and_repeats(example: Callable[[str], StudyConfig], name: str):
    config = example(name)
    config = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"steps": 3})})
    bench = Bench(config, "cpu", Path())

    def searched() -> list[dict[str, Any]]:
        found = optuna.create_study(sampler=make_sampler(config), direction="maximize")
        found.optimize(Objective(bench, config.make_space()), n_trials=config.n_trials)
        space = config.make_space()
        assert all(space.candidate(trial.params).formula() for trial in found.trials)
        return [trial.params for trial in found.trials]

    first = searched()
    assert len(first) == config.n_trials == (16 if name == "new_sampler" else 15)
    assert searched() == first


def test_a_search_by_the_new_sampler_goes_on(example: Callable[[str], StudyConfig]):
    config = example("new_sampler")
    more = {**config.to_dict(), "sampler": {**config.sampler.model_dump(), "rounds": 3}}
    assert continued(config, parse_config(more, "test")).n_trials == 24


def test_the_new_term_agrees_in_all_its_forms(example: Callable[[str], StudyConfig]):
    assert example("new_term").make_space().part_names == (*TERMS, "CUBE_ROOT")
    genome = TermGenome(terms=("CUBE_ROOT", "MOMENTUM"), alphas=(1.0, 0.5), lr=0.01)
    file: dict[str, Any] = {"__name__": "exported"}
    exec(genome.source("CubeRoot", {}), file)
    results = []
    for make in (ReferenceOptimizer, lambda params, genome: genome.optimizer(params, compiled=False)):
        results.append(stepped(make, genome))
    results.append(stepped(lambda params, genome: file["CubeRoot"](params), genome))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-12, atol=0)
    assert genome.gate() is None
    assert "∛g" in genome.formula()


def stepped(make: Any, genome: TermGenome) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(5, generator=generator, dtype=torch.float64))
    optimizer = make([weight], genome)
    for _ in range(3):
        weight.grad = torch.randn(5, generator=generator, dtype=torch.float64)
        optimizer.step()
    return weight.detach()


def test_the_new_space_exports_what_it_builds(example: Callable[[str], StudyConfig]):
    space = example("new_space").make_space()
    candidate = space.candidate(next(iter(space.presets().values())))
    file: dict[str, Any] = {"__name__": "exported"}
    exec(candidate.source("Found", {"study": 'a "name"'}), file)
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = file["Found"]([weight])
    built, _ = candidate.build([torch.nn.Parameter(torch.ones(2))], 10)
    for one in ("lr", "momentum", "nesterov"):
        assert optimizer.param_groups[0][one] == built.param_groups[0][one]
    assert file["scheduler"](optimizer, 10).get_last_lr() == [0.01]


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_its_study_runs_from_the_command_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.py").write_text((EXAMPLES / f"{name}.py").read_text("utf-8"))
    (tmp_path / f"{name}.toml").write_text(study(name))
    if name == "image_folder":
        runpy.run_path(f"{name}.py", run_name="__main__")
    answer = run("run", f"{name}.toml", "--workers", "1", "--device", "cpu", "--export", "winner.py")
    assert answer.status == 0, answer
    assert "the search is complete" in answer.out
    assert Path("winner.py").is_file()
    assert run("status").status == 0
