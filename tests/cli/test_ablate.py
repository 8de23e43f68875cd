"""`optevo ablate`: what it prints and writes, whom it measures, what it refuses."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from command_line import said
from comparing import NAMES, cells_of, config, create, searched
from measuring import Inline

from optevo import keys
from optevo.optim.baselines.registry import TunedBaseline
from optevo.optim.candidate import WINNER
from optevo.optim.terms.variants import TUNED, variants
from optevo.reporting.text import TEST_MARK

SWEEP = {"kind": "adamw", "lr": [1e-3, 3e-3], "weight_decay": [0.1]}
GRID = {"kind": "grid"}


def sweep(name: str = "sweep", tasks: Sequence[str] = ("digits",), **changes: Any) -> optuna.Study:
    """A finished sweep of AdamW; its winner is the second point."""
    return searched(name, tasks, **{"space": SWEEP, "sampler": GRID, **changes})


def table(text: str, first: str) -> list[list[str]]:
    """The rows of the markdown table whose header begins so."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} "))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append(cells_of(line))
    return rows[2:]


def written() -> tuple[str, pd.DataFrame]:
    assert {path.name for path in Path("ablation").iterdir()} == {"ablation.md", "ablation.csv"}
    text = Path("ablation/ablation.md").read_text(encoding="utf-8")
    return text, pd.read_csv("ablation/ablation.csv")


def own_variants(study: optuna.Study, adamw: Any = None) -> dict[str, Any]:
    winner = config("tiny").make_space().candidate(study.trials[1].params)
    return variants(winner, adamw).candidates


def test_without_a_sweep_the_winner_is_taken_apart_and_what_is_missing_is_said(ablate, pool):
    study = searched("tiny")
    answer = ablate("tiny", "--steps", "2", "--seeds", "2")
    assert answer.status == 0, answer
    assert "--adamw" in answer.out
    text, frame = written()
    assert list(frame["variant"]) == list(own_variants(study))
    assert "AdamW, one thing changed" not in text + answer.out
    assert "validation split" in text
    assert "2 steps, 2 seeds" in text
    different = {one.canonical() for one in own_variants(study).values()}
    assert len(pool.asked) == 2 * len(different)


def test_with_a_sweep_the_gain_over_tuned_adamw_is_split(ablate, pool):
    study = searched("tiny")
    best = sweep().trials[1].params
    answer = ablate("tiny", "--steps", "2", "--seeds", "2")
    assert answer.status == 0, answer
    text, frame = written()
    tuned = TunedBaseline("adamw", best["lr"], best["weight_decay"])
    assert list(frame["variant"]) == list(own_variants(study, tuned))
    assert tuned.canonical() in {one.canonical() for one, _, _ in pool.asked}
    whole, *parts = [float(row[1]) for row in table(text, "what")]
    assert sum(parts) == pytest.approx(whole, abs=3e-4)  # four digits each
    mean = frame.set_index("variant")["mean"]
    assert whole == pytest.approx(mean[WINNER] - mean[TUNED], abs=1e-4)
    assert "of it the schedule" in answer.out


def test_variants_are_trained_for_the_studys_steps_unless_others_are_asked_for(ablate):
    study = searched("tiny", evaluation__steps=3)
    assert ablate("tiny", "--seeds", "2").status == 0
    stored = [value for key, value in study.user_attrs.items() if key.startswith(keys.ABLATION)]
    assert {run["steps"] for run in stored} == {3}
    assert "3 steps" in written()[0]


def test_asked_again_nothing_is_trained_and_the_tables_are_the_same(ablate, pool):
    searched("tiny")
    sweep()
    assert ablate("tiny", "--steps", "2", "--seeds", "2").status == 0
    before = {path.name: path.read_bytes() for path in Path("ablation").iterdir()}
    pool.asked.clear()
    assert ablate("tiny", "--steps", "2", "--seeds", "2").status == 0
    assert pool.asked == []
    assert {path.name: path.read_bytes() for path in Path("ablation").iterdir()} == before


def test_an_interrupted_ablation_goes_on_where_it_was(ablate, pool, monkeypatch):
    study = searched("tiny")
    monkeypatch.setattr(Inline, "lives", 3)
    assert ablate("tiny", "--steps", "2", "--seeds", "2").status == 130
    monkeypatch.setattr(Inline, "lives", 100)
    assert ablate("tiny", "--steps", "2", "--seeds", "2").status == 0
    asked = [(one.canonical(), seed) for one, _, seed in pool.asked]
    assert len(asked) == len(set(asked))
    assert {one for one, _ in asked} == {one.canonical() for one in own_variants(study).values()}


def test_the_fittest_sweep_of_the_same_tasks_is_taken_and_others_are_left_alone(ablate):
    searched("tiny")
    sweep("scheduled", space={**SWEEP, "schedule": "warmup_cosine"})
    sweep("of adam", space={**SWEEP, "kind": "adam"})
    sweep("other tasks", ("mnist",))
    create(config("begun", space=SWEEP, sampler=GRID))
    sweep("constant", space={**SWEEP, "lr": [0.0125, 0.025, 0.05]})  # a later point is fitter
    sweep("longer", space={**SWEEP, "lr": [0.1, 0.2, 0.3, 0.4]}, evaluation__steps=7)
    assert ablate("tiny", "--steps", "1", "--seeds", "2").status == 0
    assert asked_rates() <= {0.0125, 0.025, 0.05}
    assert asked_schedules() == {"none"}
    Inline.asked.clear()
    assert ablate("tiny", "--steps", "1", "--seeds", "2", "--adamw", "scheduled").status == 0
    assert asked_schedules() == {"warmup_cosine"}


def asked_baselines() -> list[TunedBaseline]:
    return [one for one, _, _ in Inline.asked if isinstance(one, TunedBaseline)]


def asked_rates() -> set[float]:
    assert asked_baselines()
    return {one.lr for one in asked_baselines()}


def asked_schedules() -> set[str]:
    return {one.schedule_name for one in asked_baselines()}


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_sweep_has_no_rule_to_take_apart(ablate, pool, kind: str):
    sweep("sweep", space={**SWEEP, "kind": kind})
    said(ablate("sweep"), "sweep", kind, "no rule")
    assert pool.asked == []
    assert not Path("ablation").exists()


def test_a_search_that_is_not_over_is_refused(ablate):
    create(config("tiny"))
    said(ablate("tiny"), "tiny", "not complete")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("of adam", ["of adam", "adamw"]),
        ("tiny", ["tiny", "adamw"]),
        ("nowhere", ["nowhere"]),
        ("begun", ["begun", "not complete"]),
        ("other tasks", ["other tasks", "evaluation.tasks"]),
    ],
)
def test_an_unfit_sweep_is_refused_and_nothing_is_trained(ablate, pool, name: str, words):
    study = searched("tiny")
    sweep("of adam", space={**SWEEP, "kind": "adam"})
    sweep("other tasks", ("mnist",))
    create(config("begun", space=SWEEP, sampler=GRID))
    before = copy.deepcopy(study.user_attrs)
    said(ablate("tiny", "--adamw", name), *words)
    assert pool.asked == []
    assert study.user_attrs == before


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--measure", "speed"), "speed"),
        (("--seeds", "1"), "--seeds"),
        (("--steps", "0"), "--steps"),
        (("--output", "file"), "file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_bad_option_is_refused_and_nothing_is_trained(ablate, pool, options, word):
    Path("file").write_text("mine")
    searched("tiny")
    said(ablate("tiny", *options), word)
    assert pool.asked == []


def test_ablating_a_study_that_selected_on_the_test_split_does_not_touch_it(ablate):
    searched("tiny", ["measuring:Guarded"], evaluation__split="test")
    sweep("peeked", ["measuring:Guarded"], evaluation__split="test")
    answer = ablate("tiny", "--steps", "1", "--seeds", "2", "--adamw", "peeked")
    assert answer.status == 0, answer
    for shown in (written()[0], answer.out):
        for name in ("tiny", "peeked"):
            assert f"{name}: {TEST_MARK}" in shown


def test_seeds_of_a_search_are_not_the_variants_own(ablate, pool):
    searched("tiny", evaluation__seeds=[0, 2001])
    said(ablate("tiny", "--steps", "1", "--seeds", "2"), "seeds 2000 to 2001 are for the variants")
    assert pool.asked == []


def test_a_sweep_of_which_nothing_is_left_is_no_tuned_adamw(ablate):
    searched("tiny")
    one = config("sweep", space=SWEEP, sampler=GRID)
    study = create(one)
    for _ in range(one.n_trials):
        trial = study.ask()
        one.make_space().suggest(trial)
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    answer = ablate("tiny", "--steps", "1", "--seeds", "2")
    assert answer.status == 0
    assert "no finished sweep" in answer.out


@pytest.mark.parametrize("name", NAMES)
def test_a_study_of_any_name_is_taken_apart_and_its_name_is_no_markup(ablate, name: str):
    searched(name)
    answer = ablate("--steps", "1", "--seeds", "2", "--", name)
    assert answer.status == 0, answer
    heading, after = written()[0].splitlines()[:2]
    assert heading.startswith("# The winner of ")
    assert heading.endswith(" taken apart")
    assert after == ""
    assert "<b>" not in heading
