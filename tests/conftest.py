"""What every test shares: one thread, quiet hypothesis, and a device to run on."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from postgres import postgres  # noqa: F401  a fixture

# Before torch is imported: the machines that run the tests share their cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
# pytest-xdist's workers have 80, whatever the terminal; what commands print into a pipe has no width.
os.environ.pop("COLUMNS", None)
# What is compiled once is read by the next run: a kernel takes seconds to make and half a second to load.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "optevo"
KERNELS = f"test-kernels-torch-{importlib.metadata.version('torch')}"
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(CACHE / KERNELS))
# A database writes through to its disk at every step of a study: in memory that costs nothing.
MEMORY = Path("/dev/shm")
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 2 * 1024**3:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# A deadline would measure the neighbours; a fixed order makes a red run repeatable.
settings.register_profile(
    "optevo",
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("optevo")


@pytest.fixture(scope="session", autouse=True)
def _migrations_read_once() -> Iterator[None]:
    """Optuna imports its migrations, 25 ms, whenever it opens a database, and three times to make one."""
    rdb = sys.modules.get("optuna.storages._rdb.storage")
    if rdb is None:  # no test of this run stores anything in a database
        yield
        return
    manager = rdb._VersionManager
    make, known = manager._create_alembic_script, []

    def script(self: Any) -> Any:
        if not known:
            known.append(make(self))
        return known[0]

    manager._create_alembic_script = script
    yield
    manager._create_alembic_script = make


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest):
    """Each device a test can run on; CUDA is skipped where there is none."""
    torch = pytest.importorskip("torch")
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch.cuda.is_available() is false on this machine")
    return torch.device(request.param)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The real data sets: $OPTEVO_DATA, or unpacked once into the system's temporary folder."""
    if os.environ.get("OPTEVO_DATA"):
        return Path(os.environ["OPTEVO_DATA"])
    script = Path(__file__).parents[2] / "shared" / "data" / "unpack.sh"
    if not script.is_file():
        pytest.skip("no real data: set OPTEVO_DATA to a folder that has it")
    root = Path(tempfile.gettempdir()) / "optevo-test-data"
    subprocess.run(
        ["sh", str(script), str(root), "mnist", "fashion", "cifar10", "shakespeare"],
        check=True,
        capture_output=True,
    )
    return root


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither HOME nor an account, and none of our variables."""
    for name in ("HOME", "OPTEVO_DATA", "OPTEVO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where there is no account


@pytest.fixture
def quiet_optuna() -> Iterator[None]:
    """Optuna tells of errors only."""
    optuna = pytest.importorskip("optuna")
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of a database that is not there yet."""
    return f"sqlite:///{tmp_path / 'a.db'}"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet_optuna: None) -> None:
    """A folder and an environment of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPTEVO_STORAGE", raising=False)


@pytest.fixture
def optevo(
    here: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """The command line in this process: what takes seconds to import is imported once."""
    from command_line import Answer  # noqa: PLC0415

    from optevo.cli import main as cli  # noqa: PLC0415

    def call(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["optevo", *arguments])
        capsys.readouterr()
        status: Any = 0
        try:
            cli.main()
        except SystemExit as error:
            status = error.code or 0
        return Answer(status, *capsys.readouterr())

    return call


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Measurements made in this process, by `measuring.Inline`."""
    from measuring import Inline  # noqa: PLC0415

    from optevo.measurement import pool  # noqa: PLC0415

    monkeypatch.setattr(pool, "ProcessPoolExecutor", Inline)
    monkeypatch.setattr(Inline, "asked", [], raising=False)
    monkeypatch.setattr(Inline, "lives", 10_000, raising=False)
    return Inline


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A CUDA device that is not there, see `fake_cuda`."""
    from fake_cuda import rehearsing  # noqa: PLC0415

    with rehearsing(monkeypatch) as device:
        yield device
