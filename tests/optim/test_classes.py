"""The classes of `optevo.optim` that need no search: each is used as any of torch's optimizers."""

from __future__ import annotations

import inspect
import re

import pytest
import torch
from contract import assert_close, assert_equal, feed, parameters, run, through_a_file, values
from torch.optim.lr_scheduler import LambdaLR

import optevo.optim
from optevo.optim import PRESETS, CautiousOrthoConvAdamW, Evolved, EvolvedModern, OrthoConvAdamW
from optevo.optim.scheduled import Scheduled

# Those that are told a genome are tried elsewhere.
TOLD = ("GenomeOptimizer", "GraphOptimizer", "ModernOptimizer", "ReferenceOptimizer")
CLASSES = [
    one
    for name in optevo.optim.__all__
    if name not in TOLD
    and isinstance(one := getattr(optevo.optim, name), type)
    and issubclass(one, torch.optim.Optimizer)
]
SCHEDULED = {
    Evolved: "evolved",
    EvolvedModern: "evolved_modern_linear",
    OrthoConvAdamW: "ortho_conv",
    CautiousOrthoConvAdamW: "cautious_ortho_conv",
}
every_class = pytest.mark.parametrize("made", CLASSES, ids=lambda made: made.__name__)
with_schedule = pytest.mark.parametrize(("made", "preset"), SCHEDULED.items(), ids=SCHEDULED.values())


def test_there_are_classes_and_all_with_a_schedule_are_tried() -> None:
    assert len(CLASSES) >= 13
    assert {made for made in CLASSES if issubclass(made, Scheduled)} == SCHEDULED.keys()


@every_class
def test_it_is_used_as_torchs_optimizers_are(made: type[torch.optim.Optimizer]) -> None:
    """Defaults, closure, groups of their own, torch's schedulers, checkpoints, one call for many tensors."""
    params = parameters()
    optimizer = made(params)
    lr = optimizer.defaults["lr"]
    feed(params, 0)
    assert optimizer.step(lambda: 1.5) == 1.5
    before = values(params)
    run(optimizer, params, 1)  # some make their bases in the first step, and move in the second
    assert all(not torch.equal(a, b) for a, b in zip(values(params), before, strict=True))

    # A group's own rate, and torch's scheduler, count at once: both are as if made with that rate.
    halved, grouped, scheduled = parameters(), parameters(), parameters()
    expected = run(made(halved, lr=lr / 2), halved, 3)
    assert_equal(run(made([{"params": grouped, "lr": lr / 2}]), grouped, 3), expected)
    optimizer = made(scheduled)
    LambdaLR(optimizer, lambda t: 0.5)
    assert_equal(run(optimizer, scheduled, 3), expected)

    # From a checkpoint it goes on as if nothing had been.
    again = [torch.nn.Parameter(p.detach().clone()) for p in scheduled]
    resumed = made(again)
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    assert_equal(run(resumed, again, range(3, 6)), run(optimizer, scheduled, range(3, 6)))

    # All tensors are updated in few calls, and each as if it were alone.
    together, alone = parameters(), parameters()
    each = [made([p]) for p in alone]
    for k in range(3):
        feed(alone, k)
        for one in each:
            one.step()
    assert_close(run(made(together), together, 3), values(alone))


@every_class
def test_its_arguments_are_torchs_and_documented(made: type[torch.optim.Optimizer]) -> None:
    arguments = inspect.signature(made).parameters
    names = list(arguments)
    if made.__name__ == "MuonConvAdamW":  # as MuonAdamW's
        names = list(inspect.signature(made.__base__).parameters)
    assert names[:2] == ["params", "lr"]
    assert "weight_decay" in names
    parts = [one.__doc__ or "" for one in made.__mro__ if one.__module__.startswith("optevo")]
    documented = re.findall(r"^ {8}(\w+): ", parts[0], re.MULTILINE)
    if not documented:
        base = made.__base__
        assert re.search(rf"those of `(\w+\.)*{base.__name__}`", parts[0]), made
        documented = re.findall(r"^ {8}(\w+): ", base.__doc__ or "", re.MULTILINE)
    assert set(names) <= set(documented)


@with_schedule
def test_by_default_it_is_its_preset(made: type[Scheduled], preset: str) -> None:
    ours, theirs = parameters(), parameters()
    built, schedule = PRESETS[preset].build(theirs, total_steps=200)
    optimizer = made(ours)
    own = optimizer.scheduler(200)
    rates = []
    for k in range(4):
        for one, params, steps in ((optimizer, ours, own), (built, theirs, schedule)):
            feed(params, k)
            one.step()
            steps.step()
        rates.append((own.get_last_lr(), schedule.get_last_lr()))
    assert_close(values(ours), values(theirs), rtol=1e-9)
    for mine, its in rates:
        assert mine == pytest.approx(its, rel=1e-12)
    assert rates[0][0] != rates[1][0]


@with_schedule
def test_every_number_may_be_changed(made: type[Scheduled], preset: str) -> None:
    for name, value in {"betas": (0.5, 0.6), "eps": 0.1, "momentum": 0.5, "weight_decay": 0.5}.items():
        if name not in inspect.signature(made).parameters:
            continue
        params, usual = parameters(), parameters()
        changed = run(made(params, **{name: value}), params, 2)
        assert not all(map(torch.equal, changed, run(made(usual), usual, 2))), name
    with pytest.raises(ValueError, match="beta parameter at index 0: 1"):
        made(parameters(), betas=(1.0, 0.9))
    with pytest.raises(ValueError, match="total_steps"):
        made(parameters()).scheduler(0)
