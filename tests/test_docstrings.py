"""Every public name has a docstring whose example runs and gives what it says.

Public are the packages of docs/reference and what their `__all__` names. A value has no docstring: its
package's shows it.
"""

from __future__ import annotations

import doctest
import importlib
import inspect
import io
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
import torch
from documents import ROOT

import optevo
from optevo.study.config import StudyConfig

REFERENCE = "".join(page.read_text("utf-8") for page in sorted((ROOT / "docs" / "reference").glob("*.md")))
PACKAGES = {
    name: importlib.import_module(name) for name in re.findall(r"^::: (\S+)$", REFERENCE, re.MULTILINE)
}
#: What can have a docstring, under one of its names.
EXPLAINED = {
    id(one): (f"{package}.{name}", one)
    for package, module in PACKAGES.items()
    for name in module.__all__
    if inspect.isclass(one := getattr(module, name)) or inspect.isfunction(one)
}
EVERY = dict([*EXPLAINED.values(), *PACKAGES.items()])
#: Code after a double colon.
BLOCK = re.compile(r"::\n\n((?: {4,}.*\n|\n)+)")


def examples(text: str) -> tuple[list[str], list[doctest.Example]]:
    """The blocks of code of a docstring, and its sessions, line by line."""
    return BLOCK.findall(text + "\n"), doctest.DocTestParser().get_examples(text)


def ran(name: str, text: str, names: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What is wrong with a docstring's examples, "" for nothing, and the names that they leave behind."""
    blocks, sessions = examples(text)
    known = {**names, "__name__": "docstring"}
    said = io.StringIO()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for block in blocks:
            exec(compile(textwrap.dedent(block), name, "exec"), known)
        test = doctest.DocTest(sessions, known, name, None, None, text)
        doctest.DocTestRunner(verbose=False).run(test, out=said.write, clear_globs=False)
    return said.getvalue(), test.globs


def docstring(one: object) -> str:
    return inspect.cleandoc(one.__doc__ or "")


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What examples begin with: usual modules, and what the examples of three functions come to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("examples"))
        patch.delenv("OPTEVO_STORAGE", raising=False)
        patch.setattr(StudyConfig, "in_process", True)  # starting workers would take most of the time
        known: dict[str, Any] = {"optevo": optevo, "optuna": optuna, "torch": torch}
        for one in (optevo.search, optevo.compare, optevo.ablate):
            known |= ran(one.__name__, docstring(one), known)[1]
        yield known


@pytest.mark.parametrize("name", EVERY)
def test_a_public_name_has_an_example_that_runs(name: str, names: dict[str, Any]):
    one = EVERY[name]
    text = docstring(one)
    assert any(examples(text)), f"{name}: its docstring has no example"
    wrong, _ = ran(name, text, {**names, name.rpartition(".")[2]: one})
    assert not wrong, wrong


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_shows_its_values(package: str):
    module = PACKAGES[package]
    code = "".join(line.source for line in examples(docstring(module))[1])
    values = [n for n in module.__all__ if id(getattr(module, n)) not in EXPLAINED and not n.startswith("__")]
    assert [name for name in values if not re.search(rf"\b{name}\b", code)] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (">>> x = 3\n>>> x + 1\n5", "Got:\n    4"),
        (">>> missing", "NameError"),
        ("As here::\n\n    x = 3\n\nThen:\n\n>>> x\n4", "Got:\n    3"),
    ],
)
def test_a_wrong_example_would_be_found(text: str, said: str):
    assert said in ran("wrong", text, {})[0]


def test_a_docstring_without_an_example_would_be_found():
    assert not any(examples("Does something.\n\nArgs:\n    x: A number, as in: x = 3."))
