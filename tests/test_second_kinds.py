"""A second search space and another sampler, registered by tests alone, go through every command."""

from __future__ import annotations

import importlib
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from command_line import write

from optevo import keys
from optevo.errors import UserError
from optevo.samplers import SAMPLERS, sampler_of
from optevo.spaces import SPACES
from optevo.storage.opening import open_storage
from optevo.study.config import StudyConfig, parse_config
from optevo.study.studies import load_study

STUDY = """
name = "toys"
seed = 1

[space]
kind = "toy"
fastest = 8.0

[sampler]
kind = "climb"
size = 4
rounds = 3

[evaluation]
tasks = ["digits"]
steps = 10
seeds = [0]

[rerun]
candidates = 2
seeds = 2
"""
CONFIG = tomllib.loads(STUDY)
HERE = Path(__file__).parent
KINDS: dict[str, Any] = {}
pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Both are registered, in this process and in every worker that it starts."""
    for registry, kind, module in ((SPACES, "toy", "toy_space"), (SAMPLERS, "climb", "toy_sampler")):
        importlib.import_module(module)
        one = registry.pop(kind, None) or KINDS[kind]
        KINDS[kind] = one
        monkeypatch.setitem(registry, kind, one)  # and gone again after the test
    start = tmp_path_factory.mktemp("start")
    (start / "sitecustomize.py").write_text("import toy_space, toy_sampler\n")
    path = os.pathsep.join([str(start), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setenv("PYTHONPATH", path)


@pytest.mark.slow
@pytest.mark.usefixtures("toys", "pool")
def test_a_second_space_and_another_sampler_go_through_every_command(optevo):
    ran = optevo("run", write(STUDY), "--workers", "1", "--export", "winner.py")
    assert ran.status == 0, ran
    assert "the search is complete" in ran.out
    assert "wrote winner.py: from winner import Evolved, scheduler" in ran.out
    assert Path("winner.py").read_text().startswith("RATE = ")
    status = optevo("status")
    assert "climb" in status.out
    assert "12/12" in status.out
    study, _ = load_study(open_storage("sqlite:///optevo.db"), "toys")
    generations = [keys.ours(trial)[keys.GENERATION] for trial in study.trials]
    assert [generations.count(g) for g in range(3)] == [4, 4, 4]
    assert {keys.ours(t)[keys.ORIGIN] for t in study.trials} == {"preset", "random", "climbed"}
    best = {g: sampler_of(study).slot_table(study).populations[g][0].number for g in range(2)}
    for trial in study.trials[4:]:
        assert keys.ours(trial)[keys.PARENTS] == [best[keys.ours(trial)[keys.GENERATION] - 1]]
    shown = optevo("show", "5")
    assert re.search(r"climbed of trial \d", shown.out)
    assert "Δ = " in optevo("show").out
    exported = optevo("export", "0", "--output", "preset.py", "--class-name", "Slow")
    assert exported.status == 0
    assert "class Slow:" in Path("preset.py").read_text()
    compared = optevo("compare", "toys", "--steps", "5", "--seeds", "2")
    assert compared.status == 0, compared
    assert "toys" in Path("comparison/comparison.md").read_text()
    ablated = optevo("ablate", "toys", "--seeds", "2")
    assert ablated.status == 0, ablated
    assert "ten times slower" in Path("ablation/ablation.md").read_text()
    assert optevo("report", "toys").status == 0
    page = Path("report.html").read_text()
    assert "over toys on digits" in page
    assert "momentum, generation 2" in page.replace("\\u002c", ",")
    assert optevo("storage", "save", "toys", "--output", "toys.log").status == 0
    loaded = optevo("storage", "load", "toys.log", "--storage", "sqlite:///again.db")
    assert loaded.status == 0, loaded
    assert optevo("status", "--storage", "sqlite:///again.db").out == status.out
    again = optevo("run", "study.toml", "--workers", "1")
    assert again.status == 0
    assert "study 'toys' is complete" in again.out


@pytest.mark.usefixtures("toys")
def test_a_registered_kind_checks_its_own_part_of_a_study_file():
    config = parse_config(CONFIG, "test")
    assert isinstance(config, StudyConfig)
    assert config.n_trials == 12
    assert config.to_dict()["space"] == {"kind": "toy", "fastest": 8.0}
    assert parse_config(config.to_dict(), "again") == config
    for section, key, value, words in (
        ("space", "fastest", "very", 'space.fastest = "very"'),
        ("sampler", "rounds", 1.5, "sampler.rounds = 1.5"),
        ("space", "slowest", 1.0, "unknown key 'space.slowest'"),
    ):
        wrong = {**CONFIG, section: {**CONFIG[section], key: value}}
        with pytest.raises(UserError, match=re.escape(words)):
            parse_config(wrong, "test")


def test_the_toys_are_gone_after_their_tests():
    assert "toy" not in SPACES
    assert "climb" not in SAMPLERS
