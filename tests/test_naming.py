"""A name that nobody knows: the nearest known one is said, once, wherever a name is given."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import TINY, said, stored, write

from optevo.errors import UserError
from optevo.naming import Registry, explain_keywords, hint, nearest
from optevo.optim import PRESETS, GenomeOptimizer, TermGenome
from optevo.optim.baselines.registry import BASELINES, TunedBaseline
from optevo.samplers import GeneticSampler
from optevo.spaces import TermSpace
from optevo.study.config import load_config, parse_config
from optevo.tasks import get_task
from optevo.tasks.data import check


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("adamW", "adamw"),
        ("ADAM", "adam"),
        ("sdg", "sgd"),
        ("adam", "adam"),
        ("evol", "evolved"),
        ("ada", "adam"),
        ("a", None),
        ("graph", None),
        ("", None),
        (3, None),
        (None, None),
        ("a" * 10**6, None),
    ],
)
def test_the_nearest_name_is_found_whatever_its_case(name: Any, near: str | None):
    assert nearest(name, ["sgd", "adam", "adamw", "evolved"]) == near


def test_where_none_is_near_the_known_ones_are_told():
    assert hint("x", ["one", "two"]) == "expected one of one, two"
    assert hint("x", ["one", "two"], "see there") == "see there"
    assert hint("on", iter(["one", "two"])) == "did you mean 'one'?"


def test_a_registry_is_a_dict_whose_key_error_explains():
    registry: Registry[int] = Registry("thing")
    registry |= {"one": 1, "two": 2}
    assert registry == {"one": 1, "two": 2}
    assert registry.get("on") is None
    with pytest.raises(KeyError, match=r"unknown thing 'on': did you mean 'one'\?"):
        registry["on"]
    copy = pickle.loads(pickle.dumps(registry))
    with pytest.raises(KeyError, match=r"unknown thing 'tow': did you mean 'two'\?"):
        copy["tow"]


def test_keywords_are_explained_without_changing_the_signature():
    @explain_keywords
    class Thing:
        def __init__(self, *, size: int, colour: str = "red") -> None:
            self.size = size

    assert list(inspect.signature(Thing).parameters) == ["size", "colour"]
    assert Thing(size=1).size == 1
    with pytest.raises(TypeError, match=r"Thing\(\) got .* 'color': did you mean 'colour'\?"):
        Thing(size=1, color="blue")
    with pytest.raises(TypeError, match="missing"):
        Thing()


WEIGHTS = [torch.nn.Parameter(torch.zeros(2))]


@pytest.mark.parametrize(
    ("call", "error", "near"),
    [
        (lambda: PRESETS["adamW"], KeyError, "'adamw'"),
        (lambda: BASELINES["Adam-W"], KeyError, "'adamw'"),
        (lambda: TermSpace(presets=("rmspop",)), KeyError, "'rmsprop'"),
        (lambda: TunedBaseline("lyon", 0.1, 0.0), ValueError, "'lion'"),
        (lambda: TermGenome(terms=("SIGN_GARD",), alphas=(1.0,), lr=0.1), ValueError, "'SIGN_GRAD'"),
        (
            lambda: TermGenome(terms=("GRAD",), alphas=(1.0,), lr=0.1, weigth_decay=0.0),
            TypeError,
            "'weight_decay'",
        ),
        (lambda: TermGenome.from_dict({"terms": ["GRAD"], "alpha": [1.0]}), ValueError, "'alphas'"),
        (lambda: GenomeOptimizer(WEIGHTS, "Evolved"), TypeError, "PRESETS['evolved']"),
        (lambda: GenomeOptimizer(WEIGHTS, None), TypeError, "PRESETS['adamw']"),
        (lambda: PRESETS["adam"].optimizer(WEIGHTS, weigth_decay=0.1), TypeError, "'weight_decay'"),
        (lambda: GeneticSampler(pop_size=5), TypeError, "'population_size'"),
        (lambda: GeneticSampler(population_size=2.5), TypeError, "population_size: 2.5"),
        (lambda: GeneticSampler(population_size="5"), TypeError, "population_size: '5'"),
        (lambda: GeneticSampler(tournament_size=2.5), TypeError, "tournament_size: 2.5"),
        (lambda: GeneticSampler(seed=0.5), TypeError, "seed: 0.5"),
        (lambda: GeneticSampler(n_elites=-1), ValueError, "n_elites: -1"),
        (lambda: get_task("digit"), UserError, "'digits'"),
        (lambda: get_task("mnist", train_example=3), UserError, "'train_examples'"),
        (lambda: get_task("optevo.tasks:get_tsak"), UserError, "'get_task'"),
        (lambda: check("minst", Path()), UserError, "'mnist'"),
    ],
)
def test_a_misspelt_name_is_answered_by_the_nearest(call: Callable[[], Any], error: type, near: str):
    with pytest.raises(error) as caught:
        call()
    assert near in str(caught.value.args[0])
    assert str(caught.value.args[0]).count("did you mean") <= 1


def test_sizes_may_be_numpys():
    sampler = GeneticSampler(population_size=np.int64(5), n_elites=np.int32(1), seed=np.uint8(3))
    assert (type(sampler.population_size), sampler.population_size, sampler.seed) == (int, 5, 3)


RIGHT: dict[str, Any] = {
    "name": "x",
    "sampler": {"kind": "genetic", "population_size": 6},
    "evaluation": {"tasks": ["digits"]},
}


def problems(**changes: Any) -> list[str]:
    data = {**RIGHT, **changes}
    with pytest.raises(UserError) as caught:
        parse_config({key: value for key, value in data.items() if value is not None}, "f")
    return [line.removeprefix("f: ") for line in str(caught.value).split("\n")]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"samplers": RIGHT["sampler"], "sampler": None},
            ["unknown key 'samplers': did you mean 'sampler'?"],
        ),
        ({"nmae": "y", "name": None}, ["unknown key 'nmae': did you mean 'name'?"]),
        ({"sampler": {"knd": "genetic"}}, ["unknown key 'sampler.knd': did you mean 'sampler.kind'?"]),
        (
            {"evaluation": {"task": ["digits"]}},
            ["unknown key 'evaluation.task': did you mean 'evaluation.tasks'?"],
        ),
        (
            {"evaluation": {"tasks": [{"nane": "digits"}]}},
            ["unknown key 'evaluation.tasks.0.nane': did you mean 'evaluation.tasks.0.name'?"],
        ),
        (
            {"evaluation": {"tasks": ["digit"]}},
            ["evaluation.tasks.0.name = \"digit\": unknown task 'digit': did you mean 'digits'?"],
        ),
        (
            {"sampler": {"kind": "genetics"}},
            [
                "sampler.kind = 'genetics': expected 'genetic', 'particle', 'random', 'tpe' or 'grid'; "
                "did you mean 'genetic'?"
            ],
        ),
        (
            {"evaluation": {"tasks": ["digits"], "nothing_like": 1}},
            ["unknown key 'evaluation.nothing_like'; see docs/study_files.md"],
        ),
        (
            {"sampler": {"kind": "grid"}},  # not: that the grid of no sweep has one place
            ["sampler.kind: a grid is for a baseline's space, such as space.kind = 'adamw'"],
        ),
        (
            {"sampler": {"kind": "genetic", "population_size": 3}},
            ["sampler.n_elites = 3: must be below population_size, which is 3"],
        ),
    ],
)
def test_one_slip_has_one_message(changes: dict[str, Any], expected: list[str]):
    assert problems(**changes) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"space": {"presets": ["adamW", "sgd", 3, "sgd"]}},
            ["'sgd' is named twice", "'adamW': did you mean 'adamw'?", "unknown preset 3"],
        ),
        (
            {"space": {"kind": "adam", "lr": [0.1, 0.1, -1.0], "options": {"beta": 1, "eps": "a", "lr": 2}},
             "sampler": {"kind": "grid"}},
            ["space.lr.2 = -1.0", "space.lr: 0.1 is named twice", "'beta': did you mean 'betas'?",
             "space.options.eps = \"a\"", "unknown 'lr'"],
        ),
        (
            {"evaluation": {"tasks": ["digits", "x", "digits"], "seeds": [1, 1, "a"], "steps": 0,
                            "pruner": "median", "batch_candidates": 2, "stepz": 3}},
            ["unknown key 'evaluation.stepz'", "unknown task 'x'", "'digits' is named twice", "seeds.2",
             "1 is named twice", "steps = 0", "pruner 'median'"],
        ),
        (
            {"samplers": {"kind": "genetic", "population_size": 1, "n_elites": -1}, "sampler": None,
             "nmae": "x"},
            ["'samplers'", "sampler.population_size = 1", "sampler.n_elites = -1", "'nmae'"],
        ),
        (
            {"space": {"kind": "adam"}, "sampler": {"kind": "genetic", "asynchronous": True},
             "evaluation": {"tasks": ["digits"], "batch_candidates": 2, "steps": -1}},
            ["does not evolve", "sampler.asynchronous", "evaluation.steps = -1"],
        ),
        (
            {"sampler": {"kind": "grid"}, "evaluation": {"tasks": ["digits"], "batch_candidates": 2}},
            ["a grid is for a baseline's space", "grid proposes one trial at a time"],
        ),
        (
            {"evaluation": {"tasks": ["digits"], "pruner": "wilcoxon", "steps": 0}},
            ["evaluation.steps = 0", "at least 5 runs"],
        ),
    ],
)  # fmt: skip
def test_every_fault_is_told_at_once(changes: dict[str, Any], expected: list[str]):
    found = problems(**changes)
    assert len(found) == len(expected), found
    for words in expected:
        assert sum(words in line for line in found) == 1, (words, found)


def test_a_misspelt_file_is_answered_by_the_nearest_in_its_folder(tmp_path: Path):
    write(TINY, str(tmp_path / "quickstart.toml"))
    with pytest.raises(UserError) as caught:
        load_config(tmp_path / "quikstart.toml")
    assert f"did you mean '{tmp_path / 'quickstart.toml'}'?" in str(caught.value)


def test_a_misspelt_study_or_measure_is_answered_by_the_nearest(optevo):
    stored("name")
    said(optevo("show", "--study", "nmae"), "no study 'nmae' here", "did you mean 'name'?")
    said(optevo("storage", "save", "nmae", "--output", "x"), "did you mean 'name'?")
    said(optevo("report", "name", "--measure", "metrc"), "did you mean 'metric'?")
    said(optevo("compare", "name", "--reference", "nam"), "did you mean 'name'?")
    answer = optevo("abalte")
    assert (answer.status, "Did you mean 'ablate'?" in answer.err) == (2, True)
