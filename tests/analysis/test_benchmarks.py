"""The benchmarks run, and what ours is measured against is honest work; speed stays untested."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path

import optuna
import pytest
import torch
from strategies import ORACLE, oracle_genome

from analysis.benchmarks import ask, plain
from optevo import keys
from optevo.optim import ReferenceOptimizer
from optevo.optim.terms import kernels
from optevo.storage.opening import open_storage
from optevo.tasks import get_task, models

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(
    path.stem
    for path in (ROOT / "analysis" / "benchmarks").glob("*.py")
    if "__main__" in path.read_text("utf-8")
)


# The others' time goes to the processes that they start, or to what they are measured against.
QUICK = {"graphs", "step"}


@pytest.mark.parametrize(
    "script", [pytest.param(s, marks=[pytest.mark.slow] * (s not in QUICK)) for s in SCRIPTS]
)
def test_a_benchmark_prints_what_it_ran_on_and_a_table(
    script: str,
    data_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    quiet_optuna: None,
):
    monkeypatch.setenv("OPTEVO_DATA", str(data_root))
    # Compiling would take most of the time here; the kernels have their own tests.
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    monkeypatch.setattr(kernels, "_kernels", {})
    monkeypatch.setattr(sys, "argv", [script, "--quick"])
    importlib.import_module(f"analysis.benchmarks.{script}").main()
    head, table, _ = capsys.readouterr().out.partition("┏")
    assert table
    assert f"torch {torch.__version__.partition('+')[0]}" in head


def test_the_plain_update_is_the_published_one():
    for case in ORACLE["cases"]:
        genome, steps = oracle_genome(case), 12
        mine, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 7, dtype=torch.float64)) for _ in range(2))
        optimizer, reference = (
            plain.PlainOptimizer([mine], genome, steps),
            ReferenceOptimizer([theirs], genome),
        )
        schedule = genome.scheduler(reference, steps)
        generator = torch.Generator().manual_seed(0)
        for step in range(steps):
            mine.grad = torch.randn(7, dtype=torch.float64, generator=generator)
            theirs.grad = mine.grad.clone()
            optimizer.step()
            reference.step()
            schedule.step()
            place = f"case {case['id']}, step {step}"
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12, msg=place)


@pytest.mark.parametrize(
    ("make", "ours", "shape", "count"),
    [
        (plain.SmallCNN, models.small_cnn, (4, 1, 28, 28), 824_458),
        (plain.CifarCNN, models.cifar_cnn, (4, 3, 32, 32), 2_168_554),
    ],
)
def test_the_plain_networks_are_the_published_ones_and_ours(make, ours, shape, count):
    mine, theirs = make().eval(), ours(torch.Generator().manual_seed(0)).eval()
    assert sum(p.numel() for p in mine.parameters()) == count
    with torch.no_grad():
        for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
            if q.dim() == 2 and q.shape[1] % 64 == 0 and q.shape[1] > 512:  # ours flattens channels last
                side = math.isqrt(q.shape[1] // 64)
                q = q.view(-1, side, side, 64).movedim(-1, 1).flatten(1)  # noqa: PLW2901
            p.copy_(q)
        images = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(mine(images), theirs(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=[pytest.mark.slow] * (one == "cifar10")) for one in plain.STATISTICS]
)
def test_the_plain_way_sees_the_examples_that_ours_sees(name, data_root):
    task = get_task(name)
    splits = task.load(data_root)
    training, validation = plain.load(name, data_root)
    assert len(training) == len(splits["train"])
    assert len(validation) == len(splits["validation"])
    for i in (0, 1, 4_999):
        image, label = validation[i]
        torch.testing.assert_close(image, task.prepare(splits["validation"].inputs[i : i + 1])[0])
        assert label == splits["validation"].targets[i]
        assert training[i][1] == splits["train"].targets[i]


@pytest.mark.parametrize(
    ("storage", "name"),
    [*(("memory", name) for name in ask.samplers()), ("sqlite", "optevo GeneticSampler")],
)
def test_a_history_made_fast_is_the_one_that_a_search_leaves(name, storage, tmp_path):
    searched = optuna.create_study(sampler=ask.samplers()[name], direction="maximize")
    for _ in range(120):
        ask.ask(searched)
    trials = [ask.finished(t.number, t.params) for t in searched.trials]
    place = None if storage == "memory" else open_storage(f"sqlite:///{tmp_path}/copy.db", create=True)
    copied = optuna.create_study(storage=place, sampler=ask.samplers()[name], direction="maximize")
    ask.fill(copied, trials)
    for mine, theirs in zip(copied.trials, searched.trials, strict=True):
        assert (mine.number, mine.state, mine.params, mine.values) == (
            theirs.number,
            theirs.state,
            theirs.params,
            theirs.values,
        )
        assert all(
            mine.system_attrs[key] == value
            for key, value in theirs.system_attrs.items()
            if key not in LINEAGE
        )
    if name == "optevo GeneticSampler":  # the others go on from a generator, not from what is stored
        assert ask.ask(copied).params == ask.ask(searched).params


LINEAGE = {keys.PARENTS, keys.ORIGIN}  # written for people, read by no sampler
