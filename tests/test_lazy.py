"""What other packages add, found by their entry points where it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from extensions import published_terms  # noqa: F401  a fixture

from optevo import keys, lazy
from optevo.errors import UserError
from optevo.optim import TermGenome
from optevo.optim.terms.table import TABLE, TERMS, use_term
from optevo.spaces import SPACES, TermSpace
from optevo.study.config import StudyConfig, parse_config
from optevo.study.studies import create_or_resume, load_study
from optevo.tasks import TASKS, get_task

TERM = """
from optevo.optim.terms.table import Basis

CUBE = Basis(
    "cube", "g³", lambda x: x.g**3,
    lambda t, rate: t.subtract([g**3 for g in t.grads], rate),
    "torch._foreach_add_(params, [g**3 for g in grads], alpha=-({rate}))",
)
TAKEN = Basis("adam", "g", lambda x: x.g, lambda t, rate: None, "pass")
LATE = Basis("slower", "g", lambda x: x.g, lambda t, rate: None, "pass", reads=frozenset({"slow"}))
NUMBER = 3
"""
TASK = """
from optevo.tasks import ScoredTask

class Flat(ScoredTask):
    name = "flat"

    def score(self, candidate, seed, steps):
        return 1.0
"""
KINDS = """
from optevo.samplers import SamplerKind, SamplerSection
from optevo.spaces import SpaceKind, SpaceSection, TermSpace

class Section(SpaceSection):
    kind: str

class Mine(TermSpace):
    title = "mine"

class Few(SamplerSection):
    kind: str
    n_trials: int

    def trials(self, space):
        return self.n_trials

SPACE = SpaceKind(Section, Mine)
SAMPLER = SamplerKind(Few, lambda section, space, seed, group_size: None)
"""
Package = Callable[..., None]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """Installs a package: its name, its module's text, and its entry points by group."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

    def install(name: str, text: str, **groups: list[str]) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        info = tmp_path / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = [line for group, entries in groups.items() for line in (f"[optevo.{group}]", *entries)]
        (info / "entry_points.txt").write_text("\n".join(lines))
        lazy._entry_points.cache_clear()
        monkeypatch.delitem(sys.modules, name, raising=False)

    return install


pytestmark = pytest.mark.usefixtures("published_terms")


def study(**changes: Any) -> StudyConfig:
    sampler = {"kind": "random", "n_trials": 4}
    return parse_config(
        {"name": "s", "sampler": sampler, "evaluation": {"tasks": ["digits"]}, **changes}, "s.toml"
    )


def test_nothing_is_looked_up_for_what_optevo_has_itself(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lazy, "_entry_points", lambda group, path: pytest.fail(group))
    assert study().make_space().part_names == TERMS
    assert get_task("digits").name == "digits"


def test_a_task_is_found_by_its_entry_point(package: Package):
    package("flats", TASK, tasks=["flat = flats:Flat"])
    assert "flat" in TASKS
    assert "flat" in TASKS.names()
    assert "flat" not in [*TASKS]
    assert get_task("flat").name == "flat"
    assert study(evaluation={"tasks": ["flat"]}).evaluation.tasks[0].make().name == "flat"
    assert TASKS.package("flat") == "flats"


def test_spaces_and_samplers_are_found_by_entry_points_and_by_module(package: Package):
    package("kinds", KINDS, spaces=["mine = kinds:SPACE"], samplers=["mine = kinds:SAMPLER"])
    for space, sampler in (("mine", "mine"), ("kinds:SPACE", "kinds:SAMPLER")):
        config = study(space={"kind": space}, sampler={"kind": sampler, "n_trials": 6})
        assert config.make_space().title == "mine"
        assert config.n_trials == 6
        assert parse_config(config.to_dict(), "again") == config
    assert SPACES.package("kinds:SPACE") is None


@pytest.mark.parametrize("name", ["CUBE", "cubes:CUBE"])
def test_a_study_that_names_a_term_searches_it(package: Package, name: str):
    package("cubes", TERM, terms=["CUBE = cubes:CUBE"])
    config = study(space={"kind": "terms", "terms": [name]})
    space = config.make_space()
    assert space.part_names == (*TERMS, "CUBE")
    assert parse_config(config.to_dict(), "again").fingerprint() == config.fingerprint()
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(60)]
    varied = [space.vary(drawn[i : i + 2], rng, 1.0) for i in range(50)]
    for some in (drawn, varied):
        assert sum(space.parts(params)["CUBE"] for params in some)
    params = next(params for params in drawn if params["term_0"] == "CUBE")
    genome = space.candidate(params)
    assert "g³" in genome.formula()
    assert TermGenome.from_dict(genome.to_dict()) == genome
    assert space.package == ("cubes" if name == "CUBE" else None)
    with pytest.raises(ValueError, match=r"'CUBE', which space\.terms"):
        TermSpace().express(genome, 10)


def test_studies_without_it_draw_and_compute_as_ever(package: Package):
    """Whether or not a term was used in the process before."""
    package("cubes", TERM)

    def drawn() -> list[Any]:
        space, rng = study().make_space(), np.random.default_rng(3)
        some = [space.sample(rng) for _ in range(8)]
        some += [space.vary(some[i : i + 2], rng, 1.0) for i in range(7)]
        return [some, [space.candidate(params).canonical() for params in some], study().fingerprint()]

    before = drawn()
    use_term("cubes:CUBE")
    assert drawn() == before
    assert "terms" not in study().to_dict()["space"]


def test_a_genome_that_is_read_finds_its_term(package: Package):
    package("cubes", TERM, terms=["CUBE = cubes:CUBE"])
    assert "cube" in TermGenome(terms=("CUBE",), alphas=(1.0,), lr=0.01).canonical()


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (
            {"terms": ["CUBE"]},
            ["space.terms.0", "unknown term 'CUBE'", "'optevo.terms'", "install the package"],
        ),
        ({"terms": ["nowhere:CUBE"]}, ["there is no module 'nowhere'", "run from the folder that holds it"]),
        ({"terms": ["cubes:NUMBER"]}, ["is of type int, not a Basis or a Term"]),
        ({"terms": ["cubes:TAKEN"]}, ["the name 'adam' of its entry is taken"]),
        ({"terms": ["cubes:LATE"]}, ["reads 'slow', expected some of eps, m,"]),
        ({"terms": ["cubes:CUBES"]}, ["has no 'CUBES': did you mean 'CUBE'?"]),
        ({"catalogue": "modern", "terms": ["cubes:CUBE"]}, ["leave out catalogue"]),
        ({"terms": "CUBE"}, ["expected a list of terms"]),
        ({"kind": "mine"}, ["space.kind = 'mine'", "'optevo.spaces'", "install the package"]),
        ({"kind": "cubes:CUBE"}, ["is of type Basis, not an optevo.spaces.SpaceKind"]),
    ],
)
def test_what_is_missing_or_unfit_is_told(package: Package, space: dict[str, Any], words: list[str]):
    package("cubes", TERM)
    with pytest.raises(UserError) as caught:
        study(space={"kind": "terms", **space})
    for word in ["s.toml: ", *words]:
        assert word in str(caught.value)


def test_a_genome_says_where_terms_come_from():
    with pytest.raises(ValueError, match=r"unknown 'CUBE'.*'optevo.terms'"):
        TermGenome(terms=("CUBE",), alphas=(1.0,), lr=0.01)
    with pytest.raises(ValueError, match="unknown 'os:path'"):
        TermGenome(terms=("os:path",), alphas=(1.0,), lr=0.01)


def test_faults_name_the_package_and_the_entry_point(package: Package):
    package("broken", "raise RuntimeError('no licence')", tasks=["one = broken:One"])
    package("first", TASK, tasks=["flat = first:Flat"])
    package("second", TASK, tasks=["flat = second:Flat"])
    package("greedy", TASK, tasks=["digits = greedy:Flat", "other = greedy:Flat"])
    for name, words in {
        "one": ["one = broken:One", "'optevo.tasks'", "broken 1.2", "RuntimeError: no licence", "line 1"],
        "flat": ["first and second", "'flat'", "'optevo.tasks'", "uninstall all but one"],
        "other": ["digits = greedy:Flat", "greedy 1.2", "has the name of a task of optevo's"],
    }.items():
        with pytest.raises(UserError) as caught:
            get_task(name)
        for word in words:
            assert word in str(caught.value)
    assert get_task("digits").name == "digits"


def test_a_stored_study_names_the_package_that_is_gone(package: Package, monkeypatch: pytest.MonkeyPatch):
    package("cubes", TERM, terms=["CUBE = cubes:CUBE"])
    package("flats", TASK, tasks=["flat = flats:Flat"])
    storage = optuna.storages.InMemoryStorage()
    config = study(space={"kind": "terms", "terms": ["CUBE"]}, evaluation={"tasks": ["flat"]})
    made = create_or_resume(config, storage, device="cpu")
    assert {"cubes": "1.2", "flats": "1.2"}.items() <= made.user_attrs[keys.ENVIRONMENT].items()
    assert load_study(storage, "s")[1] == config
    del TABLE["CUBE"]
    monkeypatch.setattr(sys, "path", sys.path[1:])  # without the folder that has both
    with pytest.raises(UserError) as caught:
        load_study(storage, "s")
    for words in (
        "unknown term 'CUBE'",
        "unknown task 'flat'",
        "begun with cubes 1.2, flats 1.2, not",
    ):
        assert words in str(caught.value)
