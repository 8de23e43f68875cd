"""`optevo dashboard` in a real browser: studies, a study, its note, a trial and its files."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from example_studies import search

from optevo import keys
from optevo.reporting.dashboard.board import Board
from optevo.storage.opening import open_storage
from optevo.study.studies import best_trials, load_study

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.usefixtures("quiet_optuna"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; .ci/run installs it"),
]


class Address(str):
    """Where `Browser.open` goes."""

    def as_uri(self) -> str:
        return str(self)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with a genetic study, some trials of which diverged, shown on its board."""
    url = f"sqlite:///{tmp_path_factory.mktemp('dashboard') / 'studies.db'}"
    study, config = search(storage=open_storage(url, create=True), name="browser-study")
    Board(study, config).refresh()
    return url


@pytest.fixture(scope="module")
def address(url: str) -> Iterator[str]:
    """A dashboard over it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "optevo", "dashboard", "--storage", url, "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    address = f"http://127.0.0.1:{port}/dashboard"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, "the dashboard ended"
                time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait(timeout=20)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def until(page: Browser, expression: str) -> None:
    """Wait for an expression of the page to hold."""
    end = time.monotonic() + 60
    while not page.value(f"Boolean({expression})"):
        assert time.monotonic() < end, f"{expression} never held: {page.value('document.body.innerText')}"
        time.sleep(0.1)


def says(words: str) -> str:
    return f"document.body.innerText.includes({words!r})"


def test_who_clicks_through_a_study_reads_what_the_database_has(url: str, address: str, page: Browser):
    study, _ = load_study(open_storage(url), "browser-study")
    best = best_trials(study, 1)[0]
    own = address.rpartition("/")[0]

    page.open(Address(address), width=1400, until=says("browser-study"))
    page.value("[...document.querySelectorAll('a')].find(a => a.innerText.includes('browser-study')).click()")
    until(page, says("Best Trial"))
    # History: refused and diverged trials have no value, so its axis is that of those that have one.
    until(page, "document.querySelector('#plot-history .scatterlayer .trace')")  # before, the axis is empty
    low, high = page.value("document.getElementById('plot-history')._fullLayout.yaxis.range")
    values = [trial.value for trial in study.trials if trial.value is not None]
    assert min(values) - 0.2 <= low < high <= max(values) + 0.2
    assert page.value("document.getElementById('plot-history')._fullLayout.yaxis.title.text") == "fitness"
    assert page.value(says(f"Best Trial (number={best.number})"))
    for title in ("Fitness by generation", "Building blocks in the population"):
        until(page, f"[...document.querySelectorAll('.gtitle')].some(t => t.textContent.includes({title!r}))")

    page.value("document.querySelector('a[href$=\"/note\"]').click()")
    until(page, says("The best so far"))
    note = page.value("document.body.innerText")
    assert keys.ours(best)[keys.FORMULA] in note
    assert f"optevo export {best.number} --study browser-study" in note

    trial = f"{address}/studies/1/trials?numbers={best.number}"
    page.open(Address(trial), width=480, dark=True, until=says(f"Trial {best.number}"))
    until(page, says(f"trial_{best.number}.py"))
    text = page.value("document.body.innerText")
    assert str(best.value) in text
    assert f"trial {best.number} of study 'browser-study'" in text  # its note
    assert f"trial_{best.number}_learning.csv" in text
    links = page.value("[...document.querySelectorAll('a[download]')].map(a => a.getAttribute('href'))")
    folder = Path(url.removeprefix("sqlite:///") + ".artifacts")
    fetched = [urllib.request.urlopen(own + link, timeout=20).read() for link in links]
    assert len(fetched) == 3
    assert set(fetched) <= {file.read_bytes() for file in folder.iterdir()}
    until(page, "[...document.images].some(i => i.src.includes('/artifacts/') && i.naturalWidth === 640)")

    assert page.complaints() == []
    assert all(one.startswith((own, "data:", "blob:", "about:")) for one in page.requests())
