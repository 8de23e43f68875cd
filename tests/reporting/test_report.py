"""The report, as a file and in a real browser."""

from __future__ import annotations

import html
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import optuna
import pytest
from browser import CHROMIUM, Browser
from example_studies import (
    DIFFERENCES,
    EVALUATION,
    STUDIES,
    SUMMARY,
    Loaded,
    example,
    grid,
    run,
    search,
    tamper,
)

from optevo import keys
from optevo.measurement.fresh_seeds import Result, Row, store_result
from optevo.reporting.page.report import write_report
from optevo.reporting.page.summary import toml
from optevo.training.run import Run

pytestmark = pytest.mark.usefixtures("quiet_optuna")

EVIL = "<script>alert(1)</script>"
BADGE = "selected on the test split"
SAID = {
    "complete": "not been trained on fresh seeds yet",
    "unfinished": "A genetic search over term genomes on digits and mnist, 20 steps and 2 seeds a task, "
    "scored on the validation split: 8 trials, 2 of them pruned; the search is not complete (8 of 14 slots "
    "decided)",
    "all pruned": "No trial is complete: 14 were pruned",
    "some failed": "2 more failed",
    "grid": "A grid over learning rate and weight decay of adamw",
    "empty": "not begun",
}


def measured(loaded: Loaded, winner: int = 4) -> Loaded:
    """With a result on fresh seeds."""
    study, config = loaded
    rows = [
        Row(name, search, tuple(Run(**{**run("digits", s, value + s / 100), "losses": ()}) for s in (7, 8)))
        for name, search, value in (("adam", 0.5, 0.55), (f"trial {winner}", 0.8, 0.75))
    ]
    store_result(study, config, Result(winner, tuple(rows)))
    return study, config


def evil() -> Loaded:
    """A study all of whose text wants to be markup."""
    study, config = search(name=EVIL)
    for number in range(len(study.trials)):
        tamper(study, number, keys.FORMULA, f"Δ = </script>{EVIL}<img src=x onerror=alert(2)> & 1·g")
        tamper(study, number, keys.HYPERPARAMETERS, f"lr <i>{number}</i> \x1b[2J")
        tamper(study, number, keys.ORIGIN, f"preset{EVIL}")
        for one in study.get_trials(deepcopy=False)[number].user_attrs[keys.RUNS]:
            one["task"] += EVIL
    return study, config


def on_test(name: str = "peeked") -> Loaded:
    return search(name=name, evaluation={**EVALUATION, "split": "test"})


def page(path: Path, *studies: Loaded, **options) -> str:
    write_report(studies, path, **options)
    return path.read_text("utf-8")


def words(text: str) -> str:
    """What a reader sees of a page, on one line."""
    body = re.sub(r"<script.*?</script>|<style>.*?</style>", "", text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


class Tags(HTMLParser):
    """Counts elements and collects addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, int] = {}
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[tag] = self.found.get(tag, 0) + 1
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        assert not [name for name, _ in attrs if name.startswith("on")]


def tags(text: str) -> Tags:
    parser = Tags()
    parser.feed(text)
    return parser


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a finished search whose best was measured on fresh seeds."""
    return page(tmp_path_factory.mktemp("found") / "a.html", measured(search()))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of two studies and their comparison; the first was selected on the test split."""
    two = measured(on_test("ours")), grid(name="two")
    path = tmp_path_factory.mktemp("compared") / "a.html"
    return page(path, *two, summary=SUMMARY, differences=DIFFERENCES)


@pytest.mark.parametrize("state", STUDIES)
def test_a_study_in_any_state_has_a_report_that_says_how_it_stands(state: str, tmp_path: Path):
    study, config = example(state)
    text = page(tmp_path / "a.html", (study, config))
    assert study.study_name in words(text)
    assert SAID.get(state, "A ") in words(text).replace("( ", "(")
    for figure in re.findall(r'data-figure="figure-\d+">(.*?)</script>', text):
        assert json.loads(figure)["data"]


def test_the_text_says_what_was_found_on_fresh_seeds(found: str):
    text = words(found)
    assert "trial 4 did best on fresh seeds" in text
    assert "0.8250 ± 0.0071 (mean ± sd), 0.0250 more than in the search" in text
    assert "the preset, adam, earns 0.6250 ± 0.0071" in text
    assert "1,120 training steps" in text


def test_several_studies_have_a_table_of_contents(found: str, compared: str):
    for address in ("#comparison", "#study-1", "#study-2"):
        assert f'href="{address}"' in compared
        assert f'id="{address[1:]}"' in compared
    assert "<nav" not in found


def test_a_comparison_shows_intervals_and_verdicts(compared: str):
    assert f"ours − adam {BADGE} overall 0.1000 0.0500 to 0.1500 0.001 0.002 5 better" in words(compared)


def test_a_study_selected_on_test_is_marked_wherever_its_numbers_stand(compared: str):
    first, second = compared.split('<section id="study-1">')[1].split('<section id="study-2">')
    assert BADGE not in words(second)
    tables, figures = first.count("<table>"), first.count("<figcaption>")
    assert first.count(BADGE) == 2 + tables + figures  # heading, text, and each of these
    comparison = words(compared.split('<section id="comparison">')[1].split("</section>", maxsplit=1)[0])
    assert comparison.count(BADGE) == 3  # two rows of levels and one of differences
    assert "(selected on test)" in compared


def test_a_study_selected_on_validation_is_not_marked(found: str):
    assert BADGE not in words(found)


def test_nothing_out_of_a_database_is_markup(found: str, tmp_path: Path):
    plain, text = tags(found), page(tmp_path / "b.html", measured(evil()), notes=[EVIL])
    hostile = tags(text)
    assert "alert(1)" in words(text)
    assert "\x1b" not in text
    assert {tag: n for tag, n in hostile.found.items() if n != plain.found[tag]}.keys() <= {"p", "span"}


def test_a_report_names_no_address_but_its_own_parts(compared: str):
    parsed = tags(compared)
    assert {address[0] for address in parsed.addresses} == {"#"}
    assert parsed.found["script"] - parsed.found["figure"] == 2  # plotly.js once, and the report's own
    assert "link" not in parsed.found


def test_the_policy_allows_nothing_but_what_is_in_the_file(found: str):
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', found)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "'unsafe-inline'" not in policy.split("style-src")[0]


def test_the_configuration_reads_as_a_study_file():
    _, config = grid()
    read = tomllib.loads(toml(config.to_dict()))
    assert read == {k: v for k, v in config.to_dict().items() if v is not None}


def test_the_gate_s_account_is_told_where_a_study_has_an_audit(tmp_path: Path):
    study, config = search(evaluation={**EVALUATION, "gate_audit": 0.5})
    for number, fitness in ((3, 2.0), (7, None)):
        tamper(study, number, keys.PRUNED_BY, "gate: cannot descend")
        tamper(study, number, keys.AUDIT, {"fitness": fitness, "steps": 40, "seconds": 1.0})
    text = words(page(tmp_path / "report.html", (study, config)))
    assert "The gate refused 2 of 14 (14 %, interval 4 to 40) individuals. Of those, 2 were trained" in text
    assert "1 of 2 (50 %, interval 9 to 91) did at least as well as the best quarter" in text
    assert "The gate refused" not in words(page(tmp_path / "other.html", search()))


def test_an_existing_report_is_replaced(tmp_path: Path):
    (tmp_path / "a.html").write_text("old")
    assert "old" not in page(tmp_path / "a.html", example("empty"))[:50]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of everything there is, hostile text included."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = tmp_path_factory.mktemp("report") / "all of it.html"
    studies = [measured(evil()), on_test("ours"), grid(name="a sweep"), example("empty")]
    write_report(studies, path, summary=SUMMARY, differences=DIFFERENCES, notes=[EVIL, "word " * 80])
    return path


@dataclass(frozen=True)
class Window:
    """The report in a window of a browser."""

    browser: Browser
    width: int
    dark: bool

    def value(self, expression: str) -> Any:
        return self.browser.value(expression)

    def shade(self, selector: str, style: str) -> str:
        """Whether a colour is "light" or "dark"."""
        colour = self.value(f"getComputedStyle(document.querySelector({selector!r})).{style}")
        return "light" if sum(map(int, re.findall(r"\d+", colour)[:3])) > 380 else "dark"


WINDOWS = [
    (400, True),
    *(pytest.param(one, marks=pytest.mark.slow) for one in [(400, False), (1280, True), (1280, False)]),
]


@pytest.fixture(scope="module", params=WINDOWS, ids=str)
def window(request: pytest.FixtureRequest, browser: Browser, report: Path) -> Window:
    """The report once it is drawn, at each width, in light and in dark."""
    width, dark = request.param
    browser.open(report, width=width, dark=dark, until="document.documentElement.dataset.drawn")
    return Window(browser, width, dark)


def in_a_browser(test: Callable[..., None]) -> Callable[..., None]:
    skip = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; .ci/run installs it")
    return pytest.mark.browser(skip(test))


@in_a_browser
def test_it_asks_nobody_and_complains_of_nothing(window, report):
    assert window.browser.complaints() == []
    asked = [address for address in window.browser.requests() if not address.startswith("data:image/png")]
    assert asked == [report.as_uri()]


@in_a_browser
def test_every_figure_is_drawn(window):
    drawn = "[...document.querySelectorAll('.plot')].filter(plot => plot.querySelector('svg.main-svg'))"
    n = window.value(f"{drawn}.length")
    assert n == window.value("document.querySelectorAll('figure').length")
    assert n >= 15


@in_a_browser
def test_it_is_no_wider_than_its_window(window):
    page, room, outside = window.value(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth, innerWidth]"
    )
    assert (page, outside) == (room, window.width)
    plots = "[...document.querySelectorAll('figure > .plot svg.main-svg')].map(svg => svg.clientWidth)"
    assert max(window.value(plots)) <= room


@in_a_browser
def test_every_cell_of_a_table_is_in_the_window_on_a_phone(window):
    """Among them the verdict, the last of its row."""
    cells = window.value(
        "[...document.querySelectorAll('td')].map(cell => {"
        "const box = cell.getBoundingClientRect(); return [cell.innerText, box.left, box.right]})"
    )
    verdicts = [cell for cell in cells if cell[0] == "better"]
    assert verdicts
    for text, left, right in cells if window.width < 500 else verdicts:
        assert 0 <= left < right <= window.width, text
    if window.width < 500:  # the name before a cell begins where the cell does
        styles = "[...document.querySelectorAll('td')].map(cell => getComputedStyle(cell))"
        indents = f"{styles}.map(style => parseFloat(style.paddingLeft) + parseFloat(style.textIndent))"
        assert set(window.value(indents)) == {0}
    names = window.value(
        "[...document.querySelectorAll('#comparison td')].map("
        "cell => getComputedStyle(cell, '::before').content.replaceAll('\"', ''))"
    )
    assert ("verdict" in names) is (window.width < 500)


@in_a_browser
def test_text_stands_out_from_the_page(window):
    page, text = ("dark", "light") if window.dark else ("light", "dark")
    assert window.shade("body", "backgroundColor") == page
    assert window.shade("body", "color") == text
    assert window.shade(".xtick text", "fill") == text


@in_a_browser
def test_the_button_turns_page_and_figures_over(window):
    before = window.shade(".xtick text", "fill")
    for expected in ("dark" if before == "light" else "light", before):
        window.value("document.getElementById('theme').click()")
        window.value("new Promise(done => setTimeout(done, 300))")
        assert window.shade("body", "color") == window.shade(".xtick text", "fill") == expected
    assert window.browser.complaints() == []


@in_a_browser
def test_on_paper_it_is_dark_on_white_and_fits(window):
    widths = "[...document.querySelectorAll('.plot svg.main-svg')].map(svg => svg.clientWidth)"
    before = window.shade("body", "color"), window.shade(".xtick text", "fill"), window.value(widths)
    window.value("dispatchEvent(new Event('beforeprint'))")
    assert window.shade("body", "color") == window.shade(".xtick text", "fill") == "dark"
    assert set(window.value(widths)) == {640}
    window.value("dispatchEvent(new Event('afterprint'))")
    after = window.shade("body", "color"), window.shade(".xtick text", "fill"), window.value(widths)
    assert after == before
    assert window.browser.complaints() == []


@in_a_browser
def test_hostile_text_is_read_and_not_run(window):
    assert window.value("document.querySelectorAll('img').length") == 0
    assert EVIL in window.value("document.body.innerText")
    scripts, figures = (
        window.value(f"document.querySelectorAll('{tag}').length") for tag in ("script", "figure")
    )
    assert scripts == figures + 2
