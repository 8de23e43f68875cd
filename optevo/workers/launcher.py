"""Launching a study's workers: in this process, on this machine or on a Dask cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import optuna
from rich.console import Console

from optevo.study.config import StudyConfig
from optevo.workers.dask_pool import DaskPool
from optevo.workers.here import work_here
from optevo.workers.local_pool import LocalPool
from optevo.workers.pool import WorkerPool
from optevo.workers.supervisor import Progress, watch


class Cluster(NamedTuple):
    """A Dask cluster.

    Attributes:
        address: Of its scheduler.
        device: `auto`, `cpu`, `cuda` or `cuda:N`, for each Dask worker.
        workers: At most so many in all. None: as many as there is room for.
        own_data_root: Whether the data root was asked for, and so holds there too.
    """

    address: str
    device: str
    workers: int | None
    own_data_root: bool


@dataclass(frozen=True)
class Launcher:
    """Launches workers, and watches them until they have ended.

    Attributes:
        storage_url: Where the study lies.
        devices: One for each worker, where they run on this machine.
        data_root: Where data sets lie.
        console: Where to print.
        stopped: SIGINT and SIGTERM are noted here as they come.
        cluster: Where the workers run. Default: None, on this machine.
    """

    storage_url: str
    devices: Sequence[str]
    data_root: Path
    console: Console
    stopped: list[int]
    cluster: Cluster | None = None

    def told(self, config: StudyConfig) -> str:
        """Where the workers of a study run, in words."""
        if config.in_process:
            return "in this process, which alone has its model and data"
        if self.cluster is not None:
            return f"Dask at {self.cluster.address}"
        return f"{len(self.devices)} worker{'s' * (len(self.devices) > 1)}"

    def run(
        self,
        study: optuna.Study,
        config: StudyConfig,
        progress: Progress,
        limit: int | None = None,
        *,
        stages: bool = False,
        tend: Callable[[], None] = lambda: None,
    ) -> None:
        """Have workers evaluate a search, or its stages, until it is complete.

        Args:
            study: The search or its stages.
            config: The search's configuration.
            progress: What to show meanwhile.
            limit: Trials in all after which to stop. Default: None, there is no limit.
            stages: Whether these are stages. Default: False.
            tend: See `watch`. Default: nothing.

        Raises:
            UserError: See `watch`.
            RunFailed: See `watch`.
            KeyboardInterrupt: A stop was requested.
        """
        if config.in_process:
            stopped = work_here(
                *(self.storage_url, config.name, self.console, progress),
                device=self.devices[0],
                data_root=self.data_root,
                limit=limit,
                stages=stages,
                tend=tend,
            )
        else:
            options = ["--stages"] * stages + ([] if limit is None else ["--limit", str(limit)])
            pool = self._pool(config.name, options)
            stopped = watch(study, pool, self.console, progress, self.stopped, tend=tend)
        if stopped:
            raise KeyboardInterrupt

    def _pool(self, name: str, options: Sequence[str]) -> WorkerPool:
        """Workers on a study of this name; `options` are those of `optevo worker`."""
        # -P: nothing in the current folder is imported but what a study file names.
        command = ["-P", "-m", "optevo", "worker", *options]
        data = ["--data-dir", str(self.data_root)]
        # The URL goes through the environment, where other users of the machine can't read a password in it.
        env = {"OPTEVO_STORAGE": self.storage_url, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        if self.cluster is not None:
            return DaskPool(
                self.cluster.address,
                [*command, *(data if self.cluster.own_data_root else [])],
                env,
                device=self.cluster.device,
                workers=self.cluster.workers,
                name_of_study=name,
                storage_url=self.storage_url,
            )
        command = [sys.executable, *command, *data, "--parent", str(os.getpid())]
        each = [
            [*command, "--device", device, "--sharing", str(self.devices.count(device)), "--", name]
            for device in self.devices
        ]
        return LocalPool(each, {**os.environ, **env})
