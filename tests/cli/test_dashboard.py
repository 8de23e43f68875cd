"""`optevo dashboard` in a real browser."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from optevo import keys
from optevo.samplers import GeneticSampler
from optevo.spaces import TermSpace
from optevo.storage.opening import open_storage

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; .ci/run installs it"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A dashboard over a small genetic study."""
    url = f"sqlite:///{tmp_path_factory.mktemp('dashboard') / 'studies.db'}"
    space = TermSpace()
    sampler = GeneticSampler(
        population_size=6, n_elites=2, seed=0, space=space, presets=list(space.presets().values())
    )
    sampler.lineage_in_user_attrs = True
    study = optuna.create_study(
        study_name="browser-study",
        storage=open_storage(url, create=True),
        sampler=sampler,
        direction="maximize",
    )

    def objective(trial: optuna.Trial) -> float:
        genome = space.candidate(space.suggest(trial))
        trial.set_user_attr(keys.FORMULA, genome.formula())
        trial.report(0.5, step=1)
        if trial.number == 7:
            trial.report(-1.0, step=2)
            raise optuna.TrialPruned
        return genome.lr

    study.optimize(objective, n_trials=14)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "optevo", "dashboard", "--storage", url, "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
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


def visible_text(url: str, profile: Path) -> str:
    """The page's DOM after its scripts have run and its requests have come back."""
    assert CHROMIUM is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    page = subprocess.run(
        [CHROMIUM, *flags, f"--user-data-dir={profile}", "--virtual-time-budget=20000", "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return page.stdout


def test_the_front_page_lists_the_study(address: str, tmp_path: Path) -> None:
    assert "browser-study" in visible_text(f"{address}/dashboard", tmp_path)


def test_the_study_page_draws_its_history_and_importances(address: str, tmp_path: Path) -> None:
    page = visible_text(f"{address}/dashboard/studies/1", tmp_path)
    assert "browser-study" in page
    assert "Hyperparameter Importance" in page
    assert 'class="main-svg"' in page  # plotly drew something
    assert "weight_decay" in page


def test_the_trial_page_shows_genes_lineage_and_formula(address: str, tmp_path: Path) -> None:
    page = visible_text(f"{address}/dashboard/studies/1/trials?numbers=9", tmp_path)
    assert "Trial 9" in page
    for word in ("generation", "parents", "crossover+mutation", "Δ =", "alpha_0"):
        assert word in page
