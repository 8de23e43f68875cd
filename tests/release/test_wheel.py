"""The built wheel, installed beside the libraries: it runs in an empty folder, without this repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
pytest.importorskip("build", reason="the extra release is not installed")
ROOT = Path(__file__).parents[2]
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "requirements.txt", "README.md", "LICENSE")
ALSO = ("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md")
Run = Callable[..., str]


def call(*command: str | Path, folder: Path, **environment: str) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    words = list(map(str, command))
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sdist and wheel, the wheel built from the sdist, in a copy: a build writes beside its sources."""
    copy = tmp_path_factory.mktemp("copy")
    for name in (*FILES, *ALSO):
        shutil.copy(ROOT / name, copy / name)
    for name in ("optevo", "studies"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    call(sys.executable, "-m", "build", "--no-isolation", folder=copy)
    return copy / "dist"


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel; what it depends on is found where this one has it."""
    venv = tmp_path_factory.mktemp("venv")
    call(sys.executable, "-m", "venv", "--without-pip", venv, folder=venv)
    (wheel,) = dist.glob("*.whl")
    (site,) = (venv / "lib").glob("python*/site-packages")
    pip = (sys.executable, "-m", "pip", "--python", venv / "bin" / "python")
    call(*pip, "install", "--no-deps", "--no-index", "--quiet", wheel, folder=venv)
    # A path file alone: the editable install of this environment, which is another one's, is not run.
    libraries = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "libraries.pth").write_text(libraries + "\n", "utf-8")
    return venv / "bin"


@pytest.fixture
def run(installed: Path, tmp_path: Path) -> Run:
    """A command of the environment in an empty folder."""
    return lambda *words: call(installed / words[0], *words[1:], folder=tmp_path)


def test_both_have_study_files_and_winners_and_nothing_large(dist: Path) -> None:
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    studies = {path.relative_to(ROOT) for path in (ROOT / "studies").rglob("*.toml")}
    assert {f"optevo/{path.as_posix()}" for path in studies} <= set(names)
    assert "optevo/studies/results/own_search/evolved.py" in names
    assert "optevo/reporting/page/report.css" in names
    assert not [name for name in names if not name.startswith("optevo")]
    assert not [name for name in names if name.endswith((".json", ".gz", ".csv"))]
    assert wheel.stat().st_size < 2**20
    with tarfile.open(sdist) as tar:
        packed = tar.getnames()
    top = sdist.name.removesuffix(".tar.gz")
    assert {f"{top}/{path.as_posix()}" for path in studies} <= set(packed)
    assert {f"{top}/{name}" for name in (*FILES, *ALSO)} <= set(packed)
    call(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist, folder=dist)


def test_a_study_runs_by_its_name_in_an_empty_folder(run: Run, tmp_path: Path) -> None:
    where = run("python", "-c", "import optevo; print(optevo.__file__)")
    assert str(ROOT) not in where
    assert "venv" in where
    run("optevo", "run", "quickstart", "--trials", "2", "--workers", "1", "--device", "cpu")
    assert "quickstart" in run("optevo", "status")
    assert {path.suffix for path in tmp_path.iterdir()} <= {".db", ".db-shm", ".db-wal"}


def test_a_preset_is_exported_and_checks_itself(run: Run) -> None:
    run("optevo", "export", "evolved")
    assert "equals the recorded one" in run("python", "evolved.py")


def test_what_an_error_points_to_is_there(installed: Path, tmp_path: Path) -> None:
    words = [str(installed / "optevo"), "run", "studies/quickstart.toml"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "did you mean 'quickstart', a study that comes with optevo?" in done.stderr
