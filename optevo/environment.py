"""What a number may depend on besides the study file."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from optevo import __version__


def environment(device: str) -> dict[str, Any]:
    """Versions, machine and commit, as JSON-ready values."""
    packages = ("torch", "torchvision", "optuna", "numpy")
    return {
        "optevo": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "device": device,
        "git_commit": git_commit(),
    }


def git_commit() -> str | None:
    """The commit of optevo's own checkout, None for an installed package."""
    folder = Path(__file__).parent.parent
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
