"""The second system's baselines: their published trajectories, and decays of the signs over a run."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from graph_oracles import TRAJECTORIES
from small_studies import config
from torch import nn

from optevo.errors import UserError
from optevo.optim.averaged import QHM, AddSign, PowerSign
from optevo.optim.baselines.registry import TunedBaseline
from optevo.spaces import SPACES

INPUTS = TRAJECTORIES["inputs"]
GRADS = torch.tensor(INPUTS["grads"], dtype=torch.float64)
CASES = {case["id"]: case["w"] for case in TRAJECTORIES["cases"] if case["id"].startswith("baseline/")}
# As a study names them: (kind, options).
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("sgd", {"momentum": 0.0, "nesterov": False}),
    "momentum": ("momentum", {}),
    "nesterov": ("nesterov", {}),
    "rmsprop": ("rmsprop", {"alpha": 0.9, "eps": 1e-7}),
    "adam": ("adam", {"eps": 1e-7}),
    "qhm": ("qhm", {}),
}
for kind in ("powersign", "addsign"):
    for suffix, decay in (("", "none"), ("_ld", "linear"), ("_cd", "cosine")):
        KINDS[kind + suffix] = (kind, {"decay": decay})


def walk(optimizer: torch.optim.Optimizer, w: nn.Parameter, steps: range) -> list[list[float]]:
    seen = [w.tolist()]
    for t in steps:
        w.grad = GRADS[t].clone()
        optimizer.step()
        seen.append(w.tolist())
    return seen


def start() -> nn.Parameter:
    return nn.Parameter(torch.tensor(INPUTS["w0"], dtype=torch.float64))


def test_there_is_a_baseline_for_every_case_of_the_oracle() -> None:
    assert {f"baseline/{name}" for name in KINDS} == set(CASES)


@pytest.mark.parametrize("name", KINDS)
def test_a_baseline_makes_the_published_steps(name: str) -> None:
    kind, options = KINDS[name]
    w = start()
    optimizer, _ = TunedBaseline(kind, INPUTS["lr"], 0.0, options=options).build([w], INPUTS["T"])
    seen = walk(optimizer, w, range(INPUTS["T"]))
    np.testing.assert_allclose(seen, CASES[f"baseline/{name}"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [PowerSign, AddSign])
@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_past_the_end_of_the_run_the_signs_weigh_nothing(make: type[PowerSign], decay: str) -> None:
    w = start()
    optimizer = make([w], lr=0.1, decay=decay, total_steps=3)
    before = torch.tensor(walk(optimizer, w, range(3))[-1], dtype=torch.float64)
    after = torch.tensor(walk(optimizer, w, range(3, 6))[-1], dtype=torch.float64)
    torch.testing.assert_close(after, before - 0.1 * GRADS[3:6].sum(0))


def test_a_decay_goes_on_from_a_checkpoint() -> None:
    whole, first = start(), start()
    expected = walk(PowerSign([whole], decay="cosine", total_steps=20), whole, range(20))[-1]
    optimizer = PowerSign([first], decay="cosine", total_steps=20)
    walk(optimizer, first, range(8))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    second = nn.Parameter(first.detach().clone())
    resumed = PowerSign([second])
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert walk(resumed, second, range(8, 20))[-1] == expected


def test_a_parameter_that_comes_later_has_its_own_count() -> None:
    early, late = start(), start()
    optimizer = AddSign([early], decay="linear", total_steps=20)
    walk(optimizer, early, range(5))
    early.grad = None
    optimizer.add_param_group({"params": [late]})
    alone = start()
    expected = walk(AddSign([alone], decay="linear", total_steps=20), alone, range(10))
    assert walk(optimizer, late, range(10)) == expected


def test_weight_decay_and_maximize_are_as_torchs() -> None:
    ours, theirs = start(), start()
    more = {"lr": 0.1, "weight_decay": 0.3, "maximize": True}
    optimizer = QHM([ours], nu=0.0, **more)
    assert walk(optimizer, ours, range(5)) == walk(torch.optim.SGD([theirs], **more), theirs, range(5))


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (QHM, {"nu": 1.5}, "Invalid nu value: 1.5"),
        (QHM, {"momentum": 1.0}, "Invalid momentum value: 1.0"),
        (AddSign, {"momentum": -0.1}, "Invalid momentum value: -0.1"),
        (PowerSign, {"decay": "exp"}, "Invalid decay value: 'exp', expected none, linear, cosine"),
        (PowerSign, {"decay": "cosine"}, "Invalid total_steps value: None"),
        (AddSign, {"decay": "linear", "total_steps": 0}, "Invalid total_steps value: 0"),
    ],
)
def test_what_is_out_of_range_is_refused(make: type, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make([start()], **options)


def test_a_study_that_names_no_decay_is_told() -> None:
    one = config(space={"kind": "addsign", "options": {"decay": "exp"}}, sampler={"kind": "grid"})
    with pytest.raises(UserError, match=r"space\.options: addsign refuses them: Invalid decay value: 'exp'"):
        one.make_space().rehearse()


def test_only_a_decay_over_the_run_keeps_a_class_from_being_exported() -> None:
    for decay, said in (("none", None), ("linear", "the run's length as total_steps")):
        tuned = TunedBaseline("addsign", 0.1, 0.0, options={"decay": decay})
        assert tuned.wants == said
        told = SPACES["addsign"].make(options={"decay": decay}).not_exportable()
        assert (told is None) == (said is None)
    with pytest.raises(ValueError, match="the run's length as total_steps"):
        tuned.source("Evolved", {})


def test_a_copy_trains_on() -> None:
    w = start()
    again, optimizer = copy.deepcopy((w, PowerSign([w], decay="linear", total_steps=20)))
    assert walk(optimizer, again, range(3)) == walk(
        PowerSign([w], decay="linear", total_steps=20), w, range(3)
    )
