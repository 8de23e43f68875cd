"""Searches whose scores lie on other scales than 0 to 1, as figures, tables and text show them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from optevo import keys
from optevo.evaluation.objective import Objective
from optevo.measurement.fresh_seeds import Result, Row, store_result
from optevo.reporting.figures import search as drawn
from optevo.reporting.frames import runs, trials
from optevo.reporting.page.report import write_report
from optevo.reporting.populations import generations
from optevo.reporting.progress import SearchProgress
from optevo.reporting.text import result_cells, trial_lines
from optevo.samplers import NoSlot
from optevo.study.config import StudyConfig, parse_config
from optevo.study.studies import best_trials, create_or_resume, load_study
from optevo.tasks import ScoredTask
from optevo.training.benches import ScoredBench
from optevo.training.run import read_run

SCALES: dict[str, Callable[[float], float]] = {
    "accuracy": lambda x: x,
    "minus loss": lambda x: -4.0 + x,
    "minus perplexity": lambda x: -1e6 * (1.1 - x),
}


class Stub(ScoredTask):
    """The nearer a step size is to 0.003 the better; one candidate in seven diverges."""

    name = "stub"

    def __init__(self, scale: Callable[[float], float]) -> None:
        self.scale = scale

    def score(self, candidate: Any, seed: int, steps: int) -> float | None:
        if hash(candidate.lr) % 7 == 0:
            return None
        return self.scale(1 / (1 + abs(math.log(candidate.lr / 0.003))) + 0.01 * seed)


Loaded = tuple[optuna.Study, StudyConfig]


@pytest.fixture(scope="module", params=SCALES)
def searched(request: pytest.FixtureRequest) -> Loaded:
    one = parse_config(
        {
            "name": "scaled",
            "space": {"presets": ["sgd", "adam"]},
            "sampler": {"kind": "genetic", "population_size": 14, "n_generations": 5, "n_elites": 2},
            "evaluation": {"tasks": ["m:f"], "steps": 7, "seeds": [0, 1, 2], "gate": False},
        },
        "test",
    )
    storage = optuna.storages.InMemoryStorage()
    create_or_resume(one, storage, "cpu")
    study, _ = load_study(storage, one.name)
    bench = ScoredBench(one, [Stub(SCALES[request.param])], Path())
    with contextlib.suppress(NoSlot):
        study.optimize(Objective(bench, one.make_space()), n_trials=one.n_trials)
    verdicts = {t.user_attrs.get(keys.PRUNED_BY, "complete").split(":")[0] for t in study.trials}
    assert verdicts == {"complete", "racing", "diverged"}
    return study, one


def span(values: Any) -> float:
    return max(values) - min(values)


def test_the_scale_of_trials_is_that_of_the_complete_ones(searched: Loaded):
    frame = trials(*searched)
    figure = drawn.fitness_by_trial(frame)
    traces = {trace.name: trace for trace in figure.data}
    assert set(traces) == {
        *("complete", "stopped (at the edge)", "no fitness (at the edge)", "best so far"),
    }
    low, high = figure.layout.yaxis.range
    complete = frame.loc[frame["state"] == "COMPLETE", "fitness"]
    assert low < complete.min() <= complete.max() < high
    assert high - low < 1.25 * span(complete)
    for name in ("stopped (at the edge)", "no fitness (at the edge)"):
        assert set(traces[name].y) == {low}
    assert sum(len(traces[name].x) for name in traces if name != "best so far") == len(frame)


def test_generations_are_drawn_by_their_complete_members(searched: Loaded):
    frame = generations(*searched)
    study = searched[0]
    complete = [t.value for t in study.trials if t.state.name == "COMPLETE"]
    assert (frame["complete"] < frame["n"]).any()
    rounding = 1e-9 * span(complete)
    for trace in drawn.fitness_by_generation(frame).data:
        assert min(complete) - rounding <= min(trace.y) <= max(trace.y) <= max(complete) + rounding


def test_a_diverged_run_has_no_fitness_in_a_frame(searched: Loaded):
    frame = runs(searched[0])
    assert (frame["fitness"].isna() == frame["diverged_at"].notna()).all()
    whole = trials(*searched)
    assert (whole["fitness"].isna() == whole["diverged_at"].notna()).all()
    assert (whole["fitness:stub"].isna() == whole["diverged_at"].notna()).all()


def test_a_search_reads_alike_on_every_scale(searched: Loaded, tmp_path: Path):
    study, config = searched
    top = best_trials(study, 1)[0]
    assert top.value == study.best_value
    said = {t.number: trial_lines(study, config, t) for t in study.trials}
    assert said[top.number][0].endswith(f"COMPLETE, fitness {top.value:.4f}")
    diverged = next(t for t in study.trials if keys.DIVERGED_AT in t.user_attrs)
    assert said[diverged.number][0].endswith("PRUNED, no fitness")
    assert any(f"best fitness {top.value:.4f}" in f"{label} {value}" for label, value in rows(study, config))
    write_report([searched], tmp_path / "report.html")
    body = (tmp_path / "report.html").read_text("utf-8").partition("<main>")[2].partition("</main>")[0]
    assert f"{top.value:.4f}" in body
    words = re.sub(r"<script.*?</script>", "", body, flags=re.DOTALL)
    assert not re.search(r"\b(nan|inf|Infinity)\b|−1\.0000|-1\.0000", words)
    for data in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', body, flags=re.DOTALL):
        json.loads(data, parse_constant=pytest.fail)  # JavaScript reads no NaN


def rows(study: optuna.Study, config: StudyConfig) -> list[tuple[str, str]]:
    return list(SearchProgress(study, config)._rows())


def test_a_result_with_a_diverged_run_says_how_many(searched: Loaded, tmp_path: Path):
    study, config = searched
    top = best_trials(study, 1)[0]
    read = [read_run(run) for run in top.user_attrs[keys.RUNS]]
    bad = dataclasses.replace(read[0], metric=None, fitness=-1.0, diverged_at=3)
    wild, whole = Row("adam", None, (bad, *read[1:])), Row(f"trial {top.number}", top.value, tuple(read))
    result = Result(top.number, (wild, whole))
    header, adam, winner = result_cells(result)
    assert header[2] == "fitness, 3 fresh seeds"
    assert adam[2:] == ["diverged (1 of 3)", "diverged"]
    assert winner[2].startswith(f"{top.value:.4f} ± ")
    store_result(study, config, Result(top.number, result.rows[::-1]))
    write_report([searched], tmp_path / "report.html")
    body = (tmp_path / "report.html").read_text("utf-8")
    assert "it diverged in 1 of 3 runs." in body
    assert "diverged (1 of 3)" in body
