"""What a number may depend on besides the study file."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optevo import __version__
from optevo.errors import UserError
from optevo.samplers import SAMPLERS
from optevo.spaces import SPACES
from optevo.tasks import TASKS

if TYPE_CHECKING:
    from optevo.study.config import StudyConfig

_NO_PACKAGES = ("python", "machine", "device", "git_commit", "data")


def environment(
    device: str, package: str | None = None, data: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Versions, machine and commit, as JSON-ready values.

    Args:
        device: Where something is trained.
        package: What else its numbers depend on. Default: None, nothing.
        data: Digests of the tasks' data, by the tasks' names. Default: None.
    """
    packages = ("torch", "torchvision", "pytorch_optimizer", "optuna", "numpy")
    return {
        "optevo": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        **({package: importlib.metadata.version(package)} if package else {}),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "device": device,
        "git_commit": git_commit(),
        **({"data": dict(data)} if data else {}),
    }


def differences(
    stored: dict[str, Any], package: str | None = None, data: Mapping[str, str] | None = None
) -> list[str]:
    """In what this process differs from a stored `environment`, as far as it changes what comes out.

    Args:
        stored: The environment.
        package: What else the study's numbers depend on. Default: None, nothing.
        data: Digests of the tasks' data here. Default: None, they are not compared.
    """
    before, here = deciding(stored, package), deciding(environment("", package), package)
    known = stored.get("data")
    before |= {
        f"data of {name}": digest for name, digest in (known if isinstance(known, dict) else {}).items()
    }
    here |= {f"data of {name}": digest for name, digest in (data or {}).items()}
    return [
        f"{key}: {before[key]} → {value}" for key, value in here.items() if before.get(key, value) != value
    ]


def deciding(environment: dict[str, Any], package: str | None = None) -> dict[str, str]:
    """What of an environment numbers depend on."""
    # torch's builds for CPU and CUDA differ after the plus sign: one study may have workers of both.
    found = {key: str(environment.get(key)).partition("+")[0] for key in ("optevo", "torch")}
    if package in environment:  # earlier versions did not record it
        found[package] = str(environment[package])
    return found


def packages(config: StudyConfig) -> dict[str, str]:
    """The packages whose tasks, space and sampler a study has by their entry points, and their versions."""
    named = [SPACES.package(config.space.kind), SAMPLERS.package(config.sampler.kind)]
    named += [TASKS.package(task.name) for task in config.evaluation.tasks if task.kind is None]
    return {name: importlib.metadata.version(name) for name in named if name is not None}


@contextlib.contextmanager
def missing_told(stored: object) -> Iterator[None]:
    """Errors within say which packages of a stored `environment` are not installed here."""
    try:
        yield
    except UserError as error:
        gone = []
        for name, version in (stored if isinstance(stored, dict) else {}).items():
            try:
                importlib.metadata.version(name if name not in _NO_PACKAGES else "optuna")
            except (importlib.metadata.PackageNotFoundError, ValueError):
                gone.append(f"{name} {version}")
        if not gone:
            raise
        raise UserError(f"{error}\nIt was begun with {', '.join(gone)}, not installed here.") from error


def git_commit() -> str | None:
    """The commit of optevo's own checkout, None for an installed package."""
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
