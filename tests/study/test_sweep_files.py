"""Study files of sweeps: read, refused, and stored as they were."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from baseline_studies import (
    GRID,
    every_baseline,
)
from command_line import said, write
from small_studies import config

from optevo.optim.baselines.registry import BASELINES
from optevo.spaces import SPACES
from optevo.study.config import load_config, load_stages, parse_config

FILES = sorted((Path(__file__).parents[2] / "studies").rglob("*.toml"))
STUDIES = [file for file in FILES if file.parent.name != "stages"]


@pytest.mark.parametrize("file", STUDIES, ids=lambda path: str(path.relative_to(STUDIES[0].parents[1])))
def test_every_study_file_loads(file: Path):
    one = load_config(file)
    assert one.make_space().distributions()
    assert one.n_trials > 0


@pytest.mark.parametrize("file", [f for f in FILES if f.parent.name == "stages"], ids=lambda f: f.stem)
@pytest.mark.parametrize("study", ["quickstart", "joint/quick"])
def test_every_file_of_stages_loads_for_searches_of_either_kind(file: Path, study: str):
    pipeline = load_stages(file, load_config(file.parents[1] / f"{study}.toml"))
    assert len(pipeline.stages) >= 3


def test_the_study_files_have_names_of_their_own():
    names = Counter(load_config(file).name for file in STUDIES)
    assert {name for name, n in names.items() if n > 1} == set()


@every_baseline
def test_every_baseline_comes_with_a_study_file(name: str):
    file = Path(__file__).parents[2] / "studies" / "baselines" / f"{name}.toml"
    one = load_config(file)
    assert (one.space.kind, one.sampler.kind) == (name, "grid")
    assert (one.space.lr, one.space.weight_decay) == (BASELINES[name].lr, BASELINES[name].weight_decay)


SWEEP = """
name = "tiny"

[space]
kind = "adamw"
lr = [1e-3, 1e-2]
weight_decay = [0.0]

[sampler]
kind = "grid"

[evaluation]
tasks = ["digits"]
steps = 3
seeds = [0]
"""
OPTIONS = "weight_decay = [0.0]\n[space.options]\n"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"grid"', '"genetic"', ["sampler.kind", "adamw", "does not evolve", "grid"]),
        ('"adamw"\nlr = [1e-3, 1e-2]\nweight_decay = [0.0]', '"terms"', ["sampler.kind", "grid", "baseline"]),
        ("weight_decay = [0.0]", OPTIONS + "beta = 0.9", ["options", "'beta'", "betas"]),
        ("weight_decay = [0.0]", OPTIONS + 'eps = "small"', ["options.eps = ", "small"]),
        ("weight_decay = [0.0]", OPTIONS + "eps = 1979-05-27", ["options.eps = ", "1979-05-27"]),
        ("weight_decay = [0.0]", OPTIONS + "betas = [07:32:00, 0.9]", ["options.betas = ", "07:32:00"]),
        ("weight_decay = [0.0]", OPTIONS + "eps = 1" + "0" * 400, ["options.eps = 1000", "1e-08"]),
        ("weight_decay = [0.0]", OPTIONS + "eps = nan", ["options.eps = NaN", "1e-08"]),
        ("weight_decay = [0.0]", OPTIONS + "eps = true", ["options.eps", "rue", "1e-08"]),
        ("weight_decay = [0.0]", OPTIONS + "betas = 0.9", ["options.betas", "0.9"]),
        ("weight_decay = [0.0]", OPTIONS + "betas = [0.9]", ["options.betas", "[0.9]"]),
        ("weight_decay = [0.0]", OPTIONS + "eps = inf", ["options.eps = Infinity"]),
        ("weight_decay = [0.0]", OPTIONS + "fused = false", ["options", "fused"]),
        ("[1e-3, 1e-2]", "[]", ["space.lr = []"]),
        ("[1e-3, 1e-2]", "[1e-3, -0.5]", ["space.lr", "-0.5"]),
        ("[1e-3, 1e-2]", "[0.0]", ["space.lr", "0.0"]),
        ("[1e-3, 1e-2]", "[nan]", ["space.lr", "aN"]),
        ("[1e-3, 1e-2]", "[inf]", ["space.lr", "nfinity"]),
        ("[1e-3, 1e-2]", "0.01", ["space.lr", "0.01"]),
        ("[1e-3, 1e-2]", "[true]", ["space.lr", "true"]),
        ("[1e-3, 1e-2]", '["fast"]', ["space.lr", "fast"]),
        ("[1e-3, 1e-2]", "[0.001, 1e-3]", ["space.lr", "0.001", "twice"]),
        ("weight_decay = [0.0]", "weight_decay = [0.5, 0.5]", ["space.weight_decay", "0.5", "twice"]),
        ("weight_decay = [0.0]", "weight_decay = [-0.5]", ["space.weight_decay", "-0.5"]),
        ("weight_decay = [0.0]", "weight_decay = []", ["space.weight_decay = []"]),
        ("weight_decay = [0.0]", 'presets = ["adam"]', ["space.presets"]),
        ("weight_decay = [0.0]", 'schedule = "cosine"', ["space.schedule", "cosine", "warmup_cosine"]),
        ('"adamw"', '"adamx"', ["space.kind", "adamx", "adamw", "terms"]),
        ('"adamw"', '"baseline"', ["space.kind", "'baseline'", "adamw"]),
        ('"adamw"', "3", ["space.kind", "3", "adamw"]),
        ('kind = "grid"', 'kind = "grid"\nn_trials = 4', ["sampler.n_trials"]),
        ('kind = "grid"', 'kind = "brute"', ["sampler.kind", "brute", "grid"]),
    ],
)
def test_a_bad_sweep_is_refused_with_key_and_value(optevo, old: str, new: str, words: list[str]):
    assert old in SWEEP
    answer = optevo("run", write(SWEEP.replace(old, new)))
    said(answer, *words)
    assert "Assertion" not in answer.err
    assert [path.name for path in Path().iterdir()] == ["study.toml"]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("sgd", "momentum = 0.0"),  # Nesterov's needs some
        ("sgd", "momentum = -0.5"),
        ("adam", "betas = [0.9, 1.5]"),
        ("adamw", "eps = -1.0"),
        ("rmsprop", "alpha = -1.0"),
        ("nadam", "momentum_decay = -1.0"),
        ("radam", "betas = [1.0, 0.9]"),
        ("adafactor", "beta2_decay = 0.5"),
        ("muon", "momentum = -0.1"),
        ("muon", "betas = [0.9, 1.5]"),
        ("lion", "betas = [0.9, 1.5]"),
        ("sophia", "p = -1.0"),
        ("ademamix", "alpha = -1.0"),
        ("cautious_adamw", "betas = [0.9, 1.5]"),
        ("mars", "gamma = -1.0"),
        ("soap", "precondition_frequency = 0"),
        ("schedule_free", "betas = [0.0, 0.9]"),
    ],
)
def test_options_that_the_optimizer_refuses_are_found_before_anything_is_written(
    optevo, kind: str, options: str
):
    text = SWEEP.replace('"adamw"', f'"{kind}"').replace("weight_decay = [0.0]", OPTIONS + options)
    said(optevo("run", write(text)), "space.options", kind)
    assert [path.name for path in Path().iterdir()] == ["study.toml"]


@every_baseline
def test_a_baselines_own_numbers_pass_the_rehearsal(name: str):
    SPACES[name].make().rehearse()


@every_baseline
def test_a_stored_configuration_is_read_back_as_it_was(name: str):
    options = dict(list(BASELINES[name].options.items())[:1])
    for space in (
        {"kind": name},
        {"kind": name, "schedule": "warmup_cosine", "lr": [1], "weight_decay": [0], "options": options},
    ):
        one = config(space=space, sampler=GRID)
        again = parse_config(json.loads(json.dumps(one.to_dict())), "stored")
        assert again == one
        assert again.to_dict() == one.to_dict()
        assert again.fingerprint() == one.fingerprint()


def test_a_sweep_stores_the_values_it_was_begun_with():
    """So that it stays the same study when the defaults change."""
    plain = config(space={"kind": "adamw"}, sampler=GRID).to_dict()
    assert plain["space"] == {
        "kind": "adamw",
        "schedule": "none",
        "lr": list(BASELINES["adamw"].lr),
        "weight_decay": list(BASELINES["adamw"].weight_decay),
        "options": {},
    }


def test_a_terms_studys_fingerprint_is_that_of_before_baselines():
    assert config().to_dict()["space"] == {"kind": "terms", "presets": ["sgd", "adam"]}
    one = config(name="old", space={"kind": "terms", "presets": ["sgd", "adam"]})
    assert one.fingerprint() == "062e1a8a9c0868d0"  # computed by commit b355108
