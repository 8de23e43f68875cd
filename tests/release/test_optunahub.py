"""The samplers as OptunaHub packages: what a package has to have, and that its example runs."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import optuna
import pytest
import yaml

import optevo.samplers

optunahub = pytest.importorskip("optunahub", reason="the extra optunahub is not installed")
PACKAGES = sorted((Path(__file__).parents[2] / "optunahub" / "package" / "samplers").iterdir())
every_package = pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)


@every_package
def test_it_has_what_the_registry_asks_for(package: Path) -> None:
    assert {path.name for path in package.iterdir()} >= {"__init__.py", "README.md", "LICENSE", "example.py"}
    assert re.fullmatch("[a-z_]+", package.name)
    assert (package / "LICENSE").read_text("utf-8") == (package.parents[3] / "LICENSE").read_text("utf-8")
    _, front, text = (package / "README.md").read_text("utf-8").split("---\n", 2)
    facts = yaml.safe_load(front)
    assert facts.keys() == {"author", "title", "description", "tags", "optuna_versions", "license"}
    assert "sampler" in facts["tags"]
    assert facts["license"] == "MIT License"
    assert optuna.__version__.split(".")[0] in {version.split(".")[0] for version in facts["optuna_versions"]}
    assert re.findall("^## (.*)$", text, re.MULTILINE)[:2] == ["Abstract", "APIs"]


@every_package
def test_its_example_finds_the_minimum(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = runpy.run_path(str(package / "example.py"))
    study, module = found["study"], found["module"]
    assert module.__name__ == f"optunahub_registry.package.samplers.{package.name}"
    (name,) = module.__all__
    assert type(study.sampler) is getattr(optevo.samplers, name)
    first = study.trials[:10]
    assert study.best_value < min(trial.value for trial in first) or study.best_value < 0.1
    assert study.best_value < 1
    assert str(study.best_value) in capsys.readouterr().out


@every_package
def test_its_readmes_example_is_that_of_the_file(package: Path) -> None:
    readme, example = ((package / name).read_text("utf-8") for name in ("README.md", "example.py"))
    (block,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    for line in block.splitlines():
        if line.startswith(("study", "sampler", "    x", "    y", "    return")):
            assert line in example.splitlines()
