"""Figures of studies."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator

import optuna
import pandas as pd
import plotly.graph_objects as go
import pytest
from example_studies import DIFFERENCES, SUMMARY, Loaded, evaluate, example, grid, prune, search, tamper

from optevo import keys
from optevo.reporting import best, curves, generations, lineage, parts, runs, schedules, trials
from optevo.reporting.figures import search as drawn
from optevo.reporting.figures.drawing import PALETTE, log_ticks, text
from optevo.study.config import StudyConfig

pytestmark = pytest.mark.usefixtures("quiet_optuna")


def all_figures(loaded: Loaded) -> dict[str, go.Figure | None]:
    study, config = loaded
    frame = trials(study, config)
    numbers = [int(n) for n in best(frame, 3)["number"]] or [0]
    return {
        "generations": drawn.fitness_by_generation(generations(study, config)),
        "trials": drawn.fitness_by_trial(frame),
        "parts": drawn.parts_by_generation(parts(study, config)),
        "lineage": drawn.lineage_graph(lineage(study, int(frame["number"].max()) if len(frame) else 0)),
        "tasks": drawn.fitness_by_task(runs(study), numbers),
        "curves": drawn.learning_curves(curves(study), numbers),
        "steps": drawn.step_sizes(schedules(study, config, numbers if len(frame) else [])),
        "map": drawn.lr_decay_map(frame),
        "importances": drawn.importances(study),
    }


@pytest.fixture(scope="module")
def complete() -> Iterator[dict[str, go.Figure | None]]:
    return all_figures(example("complete"))


def test_a_genetic_search_has_all_figures(complete):
    assert all(figure.data for figure in complete.values())


def test_an_empty_study_has_none():
    assert set(all_figures(example("empty")).values()) == {None}


@pytest.mark.parametrize("n", [1, 8])
def test_few_trials_have_no_importances(n):
    assert drawn.importances(search(n_trials=n)[0]) is None


def test_importances_are_of_parameters_that_a_trial_uses():
    def luck(trial: optuna.Trial, settings: StudyConfig) -> float:
        evaluate(trial, settings)
        if trial.params["n_terms"] == 4:
            raise optuna.TrialPruned
        return trial.params["alpha_3"]

    study, config = search(luck, space={"presets": []}, sampler={"kind": "tpe", "n_trials": 40})
    complete = [trial for trial in study.trials if trial.value is not None and trial.params["n_terms"] < 4]
    assert len(complete) >= 10
    found = optuna.importance.get_param_importances(study)  # as if the fourth term were there
    assert max(found, key=found.get) == "alpha_3"
    shown = drawn.importances(study).layout.yaxis.ticktext
    space = config.make_space()
    assert {*shown} <= {name for trial in complete for name in space.expressed(trial.params)}
    assert not {"term_3", "alpha_3"} & {*shown}


def test_runs_without_loss_have_no_learning_curves():
    figures = all_figures(example("scored by itself"))
    assert figures["curves"] is None
    assert figures["tasks"] is not None


def test_every_axis_that_shows_has_a_title(complete):
    figures = [*complete.values(), drawn.comparison(SUMMARY, DIFFERENCES)]
    for figure in figures:
        for name, axis in figure.to_plotly_json()["layout"].items():
            shared = axis.get("matches") and not axis.get("showticklabels", True) if "axis" in name else True
            names_rows = "axis" in name and "ticktext" in axis and axis["ticktext"] and name[0] == "y"
            if not shared and not names_rows and axis.get("visible", True):
                assert axis["title"]["text"], name


def test_figures_are_transparent_and_untitled(complete):
    for figure in complete.values():
        assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"
        assert figure.layout.title.text is None


def test_colours_are_none_that_vanish_on_a_page():
    def luminance(colour: str) -> float:
        shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in PALETTE[:4]:  # as many as usually stand on the page itself
        assert 1.05 / (luminance(colour) + 0.05) > 2.9  # on white
        assert (luminance(colour) + 0.05) / (luminance("#14171a") + 0.05) > 2.9  # on the dark page


def test_a_grid_is_drawn_as_cells_with_the_pruned_crossed_out():
    def objective(trial, settings):
        return prune(trial, settings) if trial.number == 2 else evaluate(trial, settings)

    figure = drawn.lr_decay_map(trials(*grid(objective)))
    cells, pruned = figure.data[0], figure.data[1]
    assert isinstance(cells, go.Heatmap)
    assert sum(value is None for row in cells.z for value in row) == 1
    assert (pruned.name, len(pruned.x)) == ("pruned", 1)
    assert len(figure.layout.shapes) == 1  # around the best


def test_scattered_points_are_drawn_on_their_scales():
    space = {"kind": "lion", "lr": [1e-5, 1e-2], "weight_decay": [0.001, 1.0]}
    figure = drawn.lr_decay_map(trials(*grid(space=space, sampler={"kind": "tpe", "n_trials": 9})))
    assert isinstance(figure.data[0], go.Scatter)
    assert (figure.layout.xaxis.type, figure.layout.yaxis.type) == ("log", "log")


def test_a_weight_decay_of_zero_is_on_the_map():
    frame = trials(*example("sweep by tpe"))
    assert drawn.lr_decay_map(frame).layout.yaxis.type == "log"
    frame.loc[0, "weight_decay"] = 0.0
    assert drawn.lr_decay_map(frame).layout.yaxis.type is None


def test_the_lineage_s_bold_line_follows_the_fitter_parent():
    rows = [(3, 1, 1, 0.9), (3, 2, 1, 0.9), (1, None, 0, 0.3), (2, None, 0, 0.7)]
    frame = pd.DataFrame(rows, columns=["trial", "parent", "generation", "fitness"])
    figure = drawn.lineage_graph(frame.assign(origin="random", formula="Δ = 1·g"))
    bold = next(trace for trace in figure.data if trace.name == "fitter parent")
    random = next(trace for trace in figure.data if trace.name == "random")
    place = dict(zip(random.text, zip(random.x, random.y, strict=True), strict=True))
    assert list(zip(bold.x, bold.y, strict=True))[:2] == [place["2"], place["3"]]
    assert figure.layout.yaxis.range[1] > max(y for _, y in place.values()) + 0.5  # a number has room above


def test_a_lineage_is_coloured_and_followed_by_its_complete_trials():
    rows = [(4, 1, 1, -2.0, "COMPLETE"), (4, 2, 1, -2.0, "COMPLETE"), (4, 3, 1, -2.0, "COMPLETE")]
    rows += [(1, None, 0, -3.0, "COMPLETE"), (2, None, 0, 0.0, "PRUNED"), (3, None, 0, math.nan, "PRUNED")]
    frame = pd.DataFrame(rows, columns=["trial", "parent", "generation", "fitness", "state"])
    figure = drawn.lineage_graph(frame.assign(origin="random", formula="Δ = 1·g"))
    bold = next(trace for trace in figure.data if trace.name == "fitter parent")
    random = next(trace for trace in figure.data if trace.name == "random")
    assert (random.marker.cmin, random.marker.cmax) == (-3.0, -2.0)
    place = dict(zip(random.text, zip(random.x, random.y, strict=True), strict=True))
    assert list(zip(bold.x, bold.y, strict=True))[:2] == [place["1"], place["4"]]


def test_a_long_lineage_is_cut_but_for_the_bold_line():
    parents = [(n, parent) for n in range(1000, 0, -1) for parent in sorted({n - 1, max(0, n - 7)})]
    frame = pd.DataFrame([*parents, (0, None)], columns=["trial", "parent"])
    frame = frame.assign(generation=frame["trial"], fitness=1 - frame["trial"] / 1000, origin="x", formula="")
    figure = drawn.lineage_graph(frame)
    shown = {x for trace in figure.data if trace.mode == "markers" for x in trace.x}
    assert {0, 1000} <= shown
    assert 150 <= len(shown) < 300


def test_steps_far_apart_get_a_logarithmic_axis():
    frame = pd.DataFrame(
        {"trial": [0, 0, 1, 1], "step": [0, 1, 0, 1], "factor": 1.0, "step_size": [1e-4, 0.0, 0.1, 0.1]}
    )
    assert drawn.step_sizes(frame).layout.yaxis2.type == "log"


def test_ticks_of_a_logarithmic_axis_are_whole_numbers_of_it():
    axis = log_ticks([0.003, 0.2])
    assert "0.005" in axis["ticktext"]
    assert "10<sup>-7</sup>" in log_ticks([1e-7, 1.0])["ticktext"]


def test_a_comparison_draws_whichever_frame_there_is():
    assert drawn.comparison(None, None) is None
    assert drawn.comparison(SUMMARY.head(0), None) is None
    both = drawn.comparison(SUMMARY, DIFFERENCES)
    assert (both.layout.xaxis.title.text, both.layout.xaxis2.title.text) == (
        "mean ± sd",
        "paired difference",
    )
    interval = both.data[-1].error_x
    assert (interval.array[0], interval.arrayminus[0]) == (pytest.approx(0.05), pytest.approx(0.05))
    assert drawn.comparison(SUMMARY, None) is not None
    assert drawn.comparison(None, DIFFERENCES) is not None


def test_an_interval_without_an_end_goes_on_beyond_the_axis():
    """JSON has no infinity: a bar of that length would not be drawn, and the difference look exact."""
    endless = DIFFERENCES.assign(low=-math.inf, high=math.inf)
    figure = drawn.comparison(None, endless)
    low, high = figure.layout.xaxis.range
    mean = endless["mean"].iloc[0]
    assert low < 0 < high
    assert low < mean < high
    thresholds = figure.data[0].error_x
    assert all(math.isfinite(length) for length in (*thresholds.array, *thresholds.arrayminus))
    assert thresholds.array[0] > high - low < thresholds.arrayminus[0]
    assert high - low < 10 * max(abs(mean), 0.1)


def test_a_study_selected_on_test_says_so_at_the_axis():
    figure = drawn.comparison(SUMMARY, DIFFERENCES, on_test={"adam"})
    assert ["selected on test" in tick for tick in figure.layout.yaxis.ticktext] == [False, True]
    assert "selected on test" in figure.layout.yaxis2.ticktext[0]


def test_nothing_out_of_a_database_is_markup_in_a_figure():
    study, config = search(n_trials=8)
    evil = "<b>Δ</b> = <a href='http://example.org'>g</a> & %{x}"
    for number in range(8):
        tamper(study, number, keys.FORMULA, evil)
        tamper(study, number, keys.ORIGIN, evil)
    for figure in all_figures((study, config)).values():
        if figure is not None:
            tags = set(re.findall(r"<[^>]*>", json.dumps(json.loads(figure.to_json()), ensure_ascii=False)))
            assert tags <= {"<br>", "<extra>", "</extra>", "<sup>", "</sup>"}
    assert text("a<b\n") == "a&lt;b\\n"


def test_a_study_with_a_diverged_run_is_a_mark_at_the_edge_of_a_comparison():
    summary = SUMMARY.assign(mean=[-math.inf, *SUMMARY["mean"][1:]], sd=[math.nan, *SUMMARY["sd"][1:]])
    differences = DIFFERENCES.assign(mean=math.inf, low=-math.inf, high=math.inf)
    figure = drawn.comparison(summary, differences)
    json.loads(figure.to_json(), parse_constant=pytest.fail)
    above = [trace for trace in figure.data if trace.xaxis in (None, "x")]
    marks = {x: symbol for trace in above for x, symbol in zip(trace.x, trace.marker.symbol, strict=True)}
    assert [x for x, symbol in marks.items() if symbol == "x-thin"] == [min(marks)]
    finite = [x for x, symbol in marks.items() if symbol != "x-thin"]
    assert min(finite) - min(marks) <= 1.0
    assert all("diverged" in trace.hovertext[0] for trace in figure.data[-1:])
    assert "a run diverged" in str(figure.data[0].hovertext)


def test_trials_without_any_complete_one_are_drawn_on_the_scale_of_the_stopped():
    frame = trials(*search(n_trials=8)).assign(state="PRUNED", counted=True)
    frame.loc[3, "fitness"] = math.nan
    figure = drawn.fitness_by_trial(frame)
    low, high = figure.layout.yaxis.range
    assert low < frame["fitness"].min() < frame["fitness"].max() < high
    assert drawn.fitness_by_trial(frame.assign(fitness=math.nan)) is None
