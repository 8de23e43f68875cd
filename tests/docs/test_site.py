"""The site that mkdocs makes of docs/: built strictly, complete, and looked at in a browser."""

from __future__ import annotations

import http.server
import importlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from documents import ROOT

pytest.importorskip("mkdocs")
pytestmark = [pytest.mark.slow, pytest.mark.browser]
DOCUMENTED = ("optevo", "optevo.optim", "optevo.samplers", "optevo.spaces", "optevo.tasks")
WIDTHS = (360, 1400)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the working tree; a dead link or anchor is an error."""
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The site, served."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def test_the_reference_has_every_public_name(site: Path):
    for module in DOCUMENTED:
        page = "index" if module == "optevo" else module.rpartition(".")[2]
        text = (site / "reference" / f"{page}.html").read_text("utf-8")
        for name in importlib.import_module(module).__all__:
            assert f'id="{module}.{name}"' in text or f"<code>{name}</code>" in text, f"{module}.{name}"
        assert "<blockquote>" not in text, f"{module}: a session of Python that is not read as code"


def test_nothing_in_it_is_asked_from_another_machine(site: Path):
    """Links lead out; scripts, styles, fonts and images do not."""
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        asked = re.findall(r"<(?:script|img|iframe)[^>]*src=\W*(https?:[^>\s]*)", text)
        asked += re.findall(r"<link[^>]*href=\W*(https?:[^>\s]*)", text)
        assert not asked, f"{page.name}: {asked}"


def check(browser: Browser, address: str, where: str) -> None:
    """No complaint, no request that leaves the machine, nothing wider than the window."""
    assert not browser.complaints(), where
    away = [url for url in browser.requests() if not url.startswith((address, "data:", "blob:"))]
    assert not away, where
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.value(wide) <= 0, f"{where} scrolls sideways"


@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_opens_without_a_complaint(browser: Browser, address: str, site: Path, width: int):
    for page in sorted(site.rglob("*.html")):
        if page.name != "404.html":  # its addresses are those of the server's root
            name = str(page.relative_to(site))
            browser.open(address + name, width=width, until="document.querySelector('article h1')")
            check(browser, address, f"{name} at {width}")


def test_light_and_dark(browser: Browser, address: str):
    """As the system says, and by the button."""
    scheme = "document.body.getAttribute('data-md-color-scheme')"
    ground = "getComputedStyle(document.body).backgroundColor"
    for dark, expected in ((False, "default"), (True, "slate")):
        browser.open(address + "index.html", width=1400, dark=dark, until=f"{scheme} === '{expected}'")
        before = browser.value(ground)
        for label in ("light", "dark"):
            browser.value(f"document.querySelector('label[title*={label}]:not([hidden])')?.click()")
        browser.value("new Promise(done => setTimeout(done, 300))")
        assert browser.value(scheme) == "slate"
        assert (browser.value(ground) == before) == dark
        check(browser, address, f"toggled from {expected}")
        browser.value("localStorage.clear()")


def test_the_search_finds_a_page(browser: Browser, address: str):
    browser.open(address + "index.html", width=1400)
    browser.value(
        "(() => { const field = document.querySelector('.md-search__input'); field.focus();"
        " field.value = 'tournament'; field.dispatchEvent(new Event('keyup', {bubbles: true}));"
        " field.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )
    found = "[...document.querySelectorAll('.md-search-result__link')].map(link => link.href).join()"
    browser.value(
        f"new Promise(done => {{ const look = () => ({found}) ? done() : setTimeout(look, 50); look(); }})"
    )
    assert "how_it_works.html" in browser.value(found)
    check(browser, address, "search")
