"""A tuned baseline as a file of its own."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from types import ModuleType

import pytest
import torch
from baseline_studies import (
    GRID,
    assert_same,
    complete,
    create,
    exportable,
    stepped,
    sweep,
    tuned,
    weights,
)
from command_line import said
from small_studies import config

from optevo.evaluation.objective import Objective
from optevo.optim.baselines.export import export_baseline
from optevo.optim.baselines.registry import SCHEDULES
from optevo.storage.opening import open_storage
from optevo.training.bench import Bench

_count = itertools.count()


def load(source: str, folder: Path) -> ModuleType:
    path = folder / f"exported_{next(_count)}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@exportable
def test_an_exported_baseline_is_the_tuned_optimizer(name: str, tmp_path: Path):
    one = tuned(name, 0.0123456789, 0.0456)
    ours, theirs = weights(), weights()
    module = load(one.source("Tuned", {"study": "x"}), tmp_path)
    optimizer = module.Tuned(ours)
    assert {(g["lr"], g["weight_decay"]) for g in optimizer.param_groups} == {(one.lr, one.weight_decay)}
    # The file leaves torch's fused kernels out, which not every device has.
    assert_same(stepped(optimizer, ours), stepped(one.build(theirs, 9)[0], theirs), rtol=1e-5, atol=1e-7)


def test_an_exported_baseline_keeps_a_study_files_options_and_takes_others(tmp_path: Path):
    one = tuned("adamw", options={"betas": [0.5, 0.6]})
    module = load(one.source("Evolved", {}), tmp_path)
    assert module.Evolved(weights()).defaults["betas"] == (0.5, 0.6)
    assert module.Evolved(weights(), lr=1.0, betas=(0.1, 0.2)).defaults["betas"] == (0.1, 0.2)
    assert module.Evolved(weights(), lr=1.0).defaults["lr"] == 1.0


@pytest.mark.filterwarnings("ignore:Detected call of")
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("total", [1, 4, 30, 100])
def test_an_exported_baselines_schedule_is_its_own(schedule: str, total: int, tmp_path: Path):
    one = tuned("adamw", schedule_name=schedule)
    module = load(one.source("Evolved", {}), tmp_path)
    optimizer = module.Evolved(weights())
    scheduler = module.scheduler(optimizer, total)
    for step in range(total + 1):
        expected = one.lr * one.schedule(total)(step)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-12, abs=1e-18)
        scheduler.step()


@pytest.mark.parametrize(
    ("name", "words"), [("sophia", "pytorch_optimizer.SophiaH"), ("ademamix", "pytorch_optimizer.AdEMAMix")]
)
def test_what_no_class_can_hold_is_refused_with_what_to_use(name: str, words: str):
    with pytest.raises(ValueError, match=words) as caught:
        export_baseline(tuned(name, 0.0125))
    assert "0.0125" in str(caught.value)


@pytest.mark.parametrize(
    "class_name", ["", "a b", "class", "1x", "x\n", "torch", "Optimizer", "super", "ｍath"]
)
def test_class_names_that_would_break_the_file_are_refused(class_name: str):
    with pytest.raises(ValueError, match="class_name"):
        export_baseline(tuned("lion"), class_name=class_name)


@pytest.mark.parametrize(
    "class_name", ["Adam", "AdamW", "pytorch_optimizer", "optevo", "OPTIONS", "LambdaLR"]
)
@pytest.mark.parametrize("name", ["adam", "lion", "muon"])
def test_a_class_name_that_is_taken_gives_a_file_that_works(name: str, class_name: str, tmp_path: Path):
    try:
        source = export_baseline(tuned(name), class_name=class_name)
    except ValueError:
        assert class_name in ("OPTIONS", "LambdaLR", "pytorch_optimizer", "optevo")
        return
    module, params = load(source, tmp_path), weights()
    optimizer = getattr(module, class_name)(params)
    module.scheduler(optimizer, 10)
    before = params[0].detach().clone()
    assert not torch.equal(stepped(optimizer, params, steps=1)[0], before)


@pytest.mark.parametrize("text", ['"""', "\\", "@LR@", "'''\nraise SystemExit", "\u202e", "\ud800"])
def test_provenance_is_data_whatever_it_holds(text: str, tmp_path: Path):
    source = export_baseline(tuned("adam"), provenance={text: text, "study": text})
    module = load(source, tmp_path)
    assert {text: text, "study": text} == module.PROVENANCE


def test_the_command_exports_a_sweeps_winner_and_says_what_to_use_where_it_cannot(optevo, quiet_optuna):
    storage = open_storage("sqlite:///optevo.db", create=True)
    for name in ("adamw", "sophia"):
        one = config(name=name, space={"kind": name, "lr": [0.0125], "weight_decay": [0.1]}, sampler=GRID)
        complete(create(one, storage), one)
    assert optevo("export", "0", "--study", "adamw", "--output", "winner.py").status == 0
    module = load(Path("winner.py").read_text(encoding="utf-8"), Path())
    assert module.Evolved(weights()).defaults["lr"] == 0.0125
    assert module.PROVENANCE["study"] == "adamw"
    said(optevo("export", "0", "--study", "sophia"), "SophiaH", "0.0125")
    assert not Path("evolved.py").exists()


def test_show_tells_a_sweeps_trial(optevo, quiet_optuna):
    one = sweep()
    study = create(one, open_storage("sqlite:///optevo.db", create=True))
    study.optimize(Objective(Bench(one, "cpu", Path()), one.make_space()), n_trials=1)
    answer = optevo("show", "0")
    assert answer.status == 0, answer
    for words in ("adamw: ", "decoupled", "constant rate", "digits, seed 0"):
        assert words in answer.out
