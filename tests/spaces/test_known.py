"""Known optimizers in one study: by name, each once, at the rate that its runs find."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from optevo.errors import UserError
from optevo.optim.baselines.registry import BASELINES
from optevo.optim.graphs.presets import PRESETS
from optevo.spaces.baselines import BaselineSpace
from optevo.spaces.known import KnownSpace
from optevo.study.config import StudyConfig, parse_config

NAMES = ("opt10", "a5", "none g", "adam", "adamw", "adam:lr3", "schedule_free:none")
RATES = {"epochs": 2, "epoch_steps": 5}


def parsed(**changes: Any) -> StudyConfig:
    data = {
        "name": "known",
        "space": {"kind": "known", "names": list(NAMES)},
        "sampler": {"kind": "random", "n_trials": len(NAMES)},
        "evaluation": {"tasks": ["digits"], "steps": 50, "gate": False, "rates": RATES},
    }
    return parse_config({**data, **changes}, "known.toml")


def test_every_name_is_a_preset_and_a_candidate_that_takes_a_rate():
    names = [*PRESETS, *BASELINES, "adam:lr1"]
    space = KnownSpace(names)
    assert list(space.presets()) == names
    assert all("0.125" in space.candidate(one).at_rate(0.125).canonical() for one in space.presets().values())


def test_candidates_differ_from_one_another_and_have_one_schedule():
    space = KnownSpace(NAMES, weight_decay=0.1)
    candidates = [space.candidate(params) for params in space.presets().values()]
    assert len({one.canonical() for one in candidates}) == len(NAMES)
    curves = np.array([[one.schedule(100)(t) for t in range(100)] for one in candidates[:5]])
    assert np.ptp(curves, axis=0).max() <= 0.1001  # warmups begin at their first step or at 0
    assert [one.weight_decay for one in candidates[3:5]] == [0.0, 0.1]
    assert space.package is None
    assert KnownSpace(["lion"]).package == "pytorch_optimizer"
    assert "CIFAR-10" in space.caveats()[0]
    assert KnownSpace(["adam"]).caveats() == []
    assert space.sample(np.random.default_rng(0))["optimizer"] in NAMES


def test_a_study_has_a_trial_a_name(monkeypatch: pytest.MonkeyPatch):
    rehearsed = list[str]()
    monkeypatch.setattr(BaselineSpace, "rehearse", lambda self: rehearsed.append(self.name))
    config = parsed()
    assert list(config.make_space().starts()) == list(NAMES)
    assert config.n_trials == len(NAMES)
    config.make_space().rehearse()
    assert rehearsed == ["adam", "adamw", "adam", "schedule_free"]
    assert parse_config(config.to_dict(), "stored") == config


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["adan"], "did you mean 'adam'?"),
        (["adam:lr10"], "unknown schedule 'lr10' of 'adam:lr10'"),
        (["none nothing(g)"], "nothing"),
        (["adam", "adam"], "named twice"),
        ("adam", "expected a list of names"),
        ([], "at least 1"),
        ([3], "unknown optimizer 3"),
        (["opt1:lr1"], "unknown optimizer 'opt1:lr1'"),
    ],
)
def test_names_of_nothing_are_refused(names: Any, said: str):
    with pytest.raises(UserError, match=re.escape(said)):
        parsed(space={"kind": "known", "names": names})


def test_a_study_without_learning_rate_trials_is_refused():
    with pytest.raises(UserError, match=r"'evaluation.rates' is missing"):
        parsed(evaluation={"tasks": ["digits"], "steps": 50})


@pytest.mark.parametrize("params", [{}, {"optimizer": "lion"}])
def test_parameters_that_name_none_of_them_are_refused(params: dict[str, Any]):
    with pytest.raises(ValueError, match=r"Invalid optimizer"):
        KnownSpace(NAMES).candidate(params)
