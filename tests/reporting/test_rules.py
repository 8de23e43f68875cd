"""What is told of candidates that are drawn, defined as they run, and look for their learning rate."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pandas as pd
import pytest
from browser import CHROMIUM, Browser
from example_studies import Loaded, grid, tamper
from rule_space import KIND, RATES, rules, with_winner

from optevo import keys
from optevo.api.winners import Machine, trained_winner
from optevo.cli.trials import write_export
from optevo.measurement import test_split as final
from optevo.measurement.ablation import variants_config
from optevo.optim.candidate import Drawing, DrawnEdge, DrawnNode
from optevo.optim.graphs.genome import GraphGenome
from optevo.optim.graphs.presets import PRESETS
from optevo.reporting import schedules, trials
from optevo.reporting.caveats import caveats
from optevo.reporting.comparison import Entry, studies_frame
from optevo.reporting.dashboard import charts
from optevo.reporting.figures import search as drawn
from optevo.reporting.figures.rule import rule_curves, rule_graph
from optevo.reporting.page.report import write_report
from optevo.reporting.progress import SearchProgress
from optevo.reporting.text import trial_lines
from optevo.spaces import SPACES
from optevo.training.run import found_rate, read_run

pytestmark = pytest.mark.usefixtures("quiet_optuna", "registered")
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPACES, "rules", KIND)


@pytest.fixture
def loaded(registered: None) -> Loaded:
    return rules()


def winner(loaded: Loaded) -> int:
    return max(loaded[0].trials, key=lambda trial: trial.value).number


def test_frames_have_the_parameters_of_each_trial_and_the_rate_that_its_runs_found(loaded):
    frame = trials(*loaded)
    assert set(frame["root"]) == {"div", "i1e"}
    assert (frame["depth"].notna() == (frame["root"] == "i1e")).all()
    assert (frame["below"].notna() == (frame["root"] == "div")).all()
    assert set(frame["found_lr"]) == {1.0}
    assert frame["hyperparameters"][0].endswith("; found lr 1 in 3 runs, 10 in 1 run")


def test_a_rate_of_equals_is_the_first_and_runs_without_trials_have_none(loaded):
    run = read_run(keys.ours(loaded[0].trials[0])[keys.RUNS][0])
    rates = [0.1, None, 1.0, 1.0, 0.1]
    assert found_rate(type(run)(**{**vars(run), "lr": rate}) for rate in rates) == 0.1
    assert found_rate([type(run)(**{**vars(run), "lr": None})]) is None


def test_importances_of_parameters_that_only_some_trials_have(loaded):
    figure = drawn.importances(loaded[0])
    assert "root" in figure.layout.yaxis.ticktext
    assert {*figure.layout.yaxis.ticktext} <= {"root", "depth", "below"}


def test_a_trial_is_told_with_its_rule_to_paste_and_its_rates(loaded):
    study, config = loaded
    lines = trial_lines(study, config, study.trials[winner(loaded)])
    assert lines[2].startswith("  none [a2]*div([mul(a13,a2)]*qh_v,")
    assert GraphGenome(lines[2].strip()).formula() == lines[1].strip()
    assert "found lr 1 in 3 runs" in lines[3]
    rows = dict(SearchProgress(study, config)._rows())
    assert "found lr 1 in 3 runs" in rows[""]


def test_step_sizes_are_at_the_rate_that_was_found(loaded):
    study, config = loaded
    frame = schedules(study, config, [winner(loaded)])
    assert frame["step_size"].max() == pytest.approx(frame["factor"].max())


def test_a_trial_that_never_had_its_parameters_has_neither_rule_nor_schedule(loaded):
    study, config = loaded
    study.get_trials(deepcopy=False)[3].params.clear()
    assert schedules(study, config, [3]).empty
    assert "none [" not in "".join(trial_lines(study, config, study.get_trials(deepcopy=False)[3]))


def test_a_map_of_learning_rates_has_those_that_were_trained_with():
    study, config = grid()
    frame = trials(study, config)
    assert frame["found_lr"].isna().all()
    before = drawn.lr_decay_map(frame).layout.xaxis.ticktext
    after = drawn.lr_decay_map(frame.assign(found_lr=frame["lr"] * 10)).layout.xaxis.ticktext
    assert (before[0], after[0]) == ("0.0001", "0.001")


def test_the_winner_is_exported_at_the_rate_that_most_of_its_fresh_runs_found(loaded, tmp_path, monkeypatch):
    study, config = loaded
    result = with_winner(loaded, winner(loaded))
    seen = {}

    def source(self: GraphGenome, class_name: str, provenance: dict[str, str]) -> str:
        seen[self.lr] = provenance.get("hyperparameters", "")
        return "x = 1\n"

    monkeypatch.setattr(GraphGenome, "source", source)
    for number in (result.winner, (result.winner + 1) % 30):
        write_export(study, config, study.trials[number], tmp_path / "a.py", "Evolved")
    assert list(seen) == [10.0, 1.0]
    assert seen[10.0].endswith("; found lr 10 in 2 runs, 0.1 in 1 run")


def test_variants_have_the_winner_s_rate_and_look_for_none(loaded):
    study, config = loaded
    result = with_winner(loaded, winner(loaded))
    taken_apart = trained_winner(study, config, Machine(1, "cpu", None))
    assert taken_apart.lr == 10.0
    assert taken_apart.at_rate(None) == config.make_space().candidate(study.trials[result.winner].params)
    budget = variants_config(config, 7, 2).evaluation
    assert (budget.rates, budget.steps, budget.split) == (None, 7, "validation")


def entry(loaded: Loaded, lr: float) -> Entry:
    study, config = loaded
    result = with_winner(loaded, winner(loaded), lr)
    test = final.TestEvaluation(study.study_name, result.winner, 1, 20, result.rows[0].runs, {})
    return Entry(study, config, result, test)


def test_a_comparison_tells_rates_found_at_the_end_of_those_tried_and_protocols_that_differ(loaded):
    assert RATES["first"][0] == 10.0
    said = caveats([entry(loaded, 10.0)], "metric")
    assert any("found, 10, is the greatest that they tried" in sentence for sentence in said)
    assert not any("they tried" in sentence for sentence in caveats([entry(loaded, 1.0)], "metric"))
    assert not any("protocol" in sentence for sentence in said)
    own = entry(loaded, 1.0)
    evaluation = own.config.evaluation.model_copy(update={"rates": None})
    other = own.config.model_copy(update={"evaluation": evaluation})
    pair = [own, Entry(own.study, other, own.result, own.test)]
    assert any("not of one protocol" in sentence for sentence in caveats(pair, "metric"))
    told = studies_frame([entry(loaded, 10.0)])["hyperparameters"][0]
    assert told.endswith("found lr 10 in 2 runs, 0.1 in 1 run")


def words(figure: dict) -> str:
    return json.dumps(figure, ensure_ascii=False)


def test_the_report_shows_the_winner_s_rule_as_picture_curves_and_text(loaded, tmp_path):
    with_winner(loaded, winner(loaded))
    write_report([loaded], tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text("utf-8")
    shown = [json.loads(f) for f in re.findall(r'data-figure="figure-\d+">(.*?)</script>', page)]
    assert "w ← w − η·U" in words(shown[0])
    assert "a13·a2" in words(shown[0])
    assert "base schedule × a2" in words(shown[1])
    assert "v ← 0.9·v + 0.1·g" in page
    assert "<pre>none [a2]*div([mul(a13,a2)]*qh_v," in page
    assert r"<pre>U = \left[a_{2}\right] \frac{" in page
    assert "found lr 10 in 2 runs, 0.1 in 1 run" in page


def test_a_candidate_without_a_drawing_has_no_such_figures(tmp_path):
    write_report([grid()], tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text("utf-8")
    assert "The rule as text" not in page
    assert "stand on their arrows" not in page
    assert rule_graph(None) is rule_curves(None, 20) is None


def test_the_dashboard_gets_the_rule_s_figures(loaded):
    study, config = loaded
    charts.write(study, config, with_winner(loaded, winner(loaded)))
    attrs = study._storage.get_study_system_attrs(study._study_id)
    for name in ("rule", "curves"):
        parts = [key for key in attrs if key.startswith(f"dashboard:plot_data:optevo-{name}:")]
        assert json.loads("".join(attrs[key] for key in parts))["data"]
    other, settings = grid()
    charts.write(other, settings, with_winner((other, settings), 0))
    assert "optevo-rule" not in str(other._storage.get_study_system_attrs(other._study_id))


@pytest.mark.parametrize("name", PRESETS)
def test_a_picture_has_no_two_nodes_in_one_place_and_no_arrow_across_a_node(name: str):
    drawing = PRESETS[name].drawing()
    figure = rule_graph(drawing)
    nodes = {
        (x, y): label
        for trace in figure.data
        if trace.name in ("input", "operation", "output")
        for x, y, label in zip(trace.x, trace.y, trace.text, strict=True)
    }
    assert len(nodes) == len(drawing.nodes)
    arrows = [one for one in figure.layout.annotations if one.showarrow]
    heads = [(one.x, one.y) for one in arrows if one.arrowhead == 2]
    assert len(heads) == len(drawing.edges)
    assert {*heads} <= nodes.keys()
    for one in arrows:
        assert one.ax < one.x
        for x, y in nodes.keys() - {(one.ax, one.ay), (one.x, one.y)}:
            if one.ax <= x <= one.x:
                height = one.ay + (one.y - one.ay) * (x - one.ax) / (one.x - one.ax)
                assert abs(height - y) > 0.3


def test_text_of_a_drawing_is_no_markup_and_values_that_are_not_finite_are_gaps():
    nodes = (DrawnNode(EVIL, "input", EVIL), DrawnNode(f"{EVIL}\nsecond", "output", EVIL))
    drawing = Drawing(nodes, (DrawnEdge(0, 1, EVIL, EVIL),), {EVIL: lambda total: [math.nan, 1.0, math.inf]})
    graph, curves = rule_graph(drawing), rule_curves(drawing, 3)
    assert "<script>" not in words(graph.to_plotly_json()["layout"]) + graph.to_json() + curves.to_json()
    assert graph.data[-1].text == ("&lt;script&gt;alert(1)&lt;/script&gt;<br>second",)
    assert curves.data[0].y == (None, 1.0, None)


def test_of_many_building_blocks_the_most_used_are_drawn_and_the_others_together():
    names = [f"part {i}" for i in range(56)]
    rows = [
        {"generation": g, "part": name, "count": 0 if i % 2 else i + g, "members": 20}
        for g in range(3)
        for i, name in enumerate(names)
    ]
    frame = pd.DataFrame(rows)
    figure = drawn.parts_by_generation(frame)
    assert [trace.name for trace in figure.data] == [*(f"part {i}" for i in range(32, 56, 2)), "16 others"]
    assert len({(trace.fillcolor, trace.line.color) for trace in figure.data}) == 13
    total = [sum(trace.y[g] for trace in figure.data) for g in range(3)]
    assert total == frame.groupby("generation")["count"].sum().tolist()
    few = drawn.parts_by_generation(frame[frame["part"].isin(names[:12])])
    assert [trace.name for trace in few.data] == names[0:12:2]


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; .ci/run installs it")
def test_labels_of_a_picture_lie_within_the_page(loaded, tmp_path):
    with_winner(loaded, winner(loaded))
    write_report([loaded], path := Path(tmp_path / "a.html"))
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(path, width=400, until="document.documentElement.dataset.drawn")
        boxes = browser.value(
            "[...document.querySelectorAll('#figure-1 text, #figure-2 .legendtext')].map(one => {"
            "const box = one.getBoundingClientRect(); return [one.textContent, box.left, box.right]})"
        )
        assert any("a13·a2" in text for text, _, _ in boxes)
        assert all(-1 <= left <= right <= 401 for _, left, right in boxes), boxes
        assert browser.complaints() == []
    finally:
        browser.close()


def test_tampered_hyperparameters_stay_text(loaded, tmp_path):
    study, _ = loaded
    for number in range(30):
        tamper(study, number, keys.HYPERPARAMETERS, EVIL)
    write_report([loaded], tmp_path / "a.html")
    assert EVIL not in (tmp_path / "a.html").read_text("utf-8")
