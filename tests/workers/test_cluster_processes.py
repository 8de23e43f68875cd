"""`optevo run --cluster` on a scheduler and Dask workers that are processes, and are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import psutil
import pytest
from study_folders import FILE, Slots, StudyFolder, ending

from optevo import keys
from optevo.errors import UserError

pytest.importorskip("distributed")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and sessions of POSIX")

from dask_clusters import SECONDS, OuterCluster, closing, kill, tend_for, tend_until, wait  # noqa: E402

from optevo.workers import dask_remote as remote  # noqa: E402


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OuterCluster]:
    monkeypatch.setattr("optevo.workers.dask_pool._POLL_SECONDS", 0.3)
    made = OuterCluster(tmp_path)
    try:
        made.begin()
        yield made
    finally:
        made.end()


@pytest.mark.slow
def test_a_search_that_loses_a_dask_worker_ends_as_the_unbroken_one(unbroken: Slots, cluster: OuterCluster):
    folder = StudyFolder(cluster.folder, FILE.replace("candidates = 1", "candidates = 0"))
    folder.create()
    study = folder.study()
    lost, _ = cluster.worker(), cluster.worker()
    with ending(folder.run("--cluster", cluster.address, "--device", "cpu")) as process:
        wait(lambda: len(_workers(study)) == 2)
        kill(lost)
        assert process.wait(3 * SECONDS) == 0, folder.log.read_text()
    folder.check_complete(unbroken)
    assert folder.url not in cluster.log.read_text()  # a password may be in it


def _workers(study: optuna.Study) -> set[int]:
    """Those who have said that a trial is theirs."""
    trials = study.get_trials(deepcopy=False)
    return {keys.ours(trial)[keys.WORKER]["pid"] for trial in trials if keys.WORKER in keys.ours(trial)}


@pytest.mark.slow
def test_workers_belong_to_their_dask_worker_and_no_password_is_in_its_log(
    cluster: OuterCluster, capfd, caplog
):
    one, two = cluster.worker(1), cluster.worker(2, nanny=True)
    with closing(cluster.pool()) as pool:
        tend_until(pool, lambda: len(cluster.living()) == 3)
        parents = sorted(cluster.living().values())
        assert parents.count(one.pid) == 1
        nannied = next(pid for pid in parents if pid != one.pid)
        assert parents.count(nannied) == 2
        assert psutil.Process(nannied).ppid() == two.pid
        for pid, note in cluster.started().items():
            parent = str(cluster.living()[pid])
            assert note["argv"] == ["--device", "cpu", "--sharing", "1", "--parent", parent, "--", "small"]
            assert note["url"] == "postgresql://nobody:secret@nowhere/x"
    assert cluster.living() == {}
    assert "secret" not in cluster.log.read_text()
    assert capfd.readouterr() == ("", "")
    assert [r for r in caplog.records if not r.name.startswith("optevo")] == []


@pytest.mark.slow
@pytest.mark.parametrize("nanny", [False, True], ids=["no nanny", "nanny"])
def test_a_dask_worker_that_is_gone_for_good_leaves_the_other_at_work(cluster: OuterCluster, nanny: bool):
    lost, kept = cluster.worker(nanny=nanny), cluster.worker()
    with closing(cluster.pool()) as pool:
        tend_until(pool, lambda: len(cluster.living()) == 2)
        (other,) = (pid for pid, parent in cluster.living().items() if parent == kept.pid)
        kill(lost)
        tend_until(pool, lambda: set(cluster.living()) == {other})
        assert tend_for(pool, 3) == []
        assert set(cluster.living()) == {other}
        assert pool.working


@pytest.mark.slow
def test_a_dask_worker_that_its_nanny_restarts_gets_its_workers_again(cluster: OuterCluster):
    cluster.worker(nanny=True)
    with closing(cluster.pool()) as pool:
        tend_until(pool, cluster.living)
        ((first, parent),) = cluster.living().items()
        os.kill(parent, signal.SIGKILL)
        tend_until(pool, lambda: set(cluster.living()) - {first})
        assert len(set(cluster.living()) - {first}) == 1


PARENT = """
import sys, time
from optevo.workers.dask_pool import DaskPool
pool = DaskPool(
    sys.argv[1], sys.argv[2:], {}, device="cpu", workers=None, name_of_study="small", storage_url="grpc://x:1"
)
while True:
    pool.tend(0)
    time.sleep(0.2)
"""


@pytest.mark.slow
def test_nothing_outlives_a_parent_that_was_killed_and_the_dask_workers_stay(cluster: OuterCluster):
    dask_worker = cluster.worker(2)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, cluster.address, *cluster.fake()])
    try:
        wait(lambda: len(cluster.living()) == 2)
    finally:
        parent.kill()
        parent.wait()
    killed = time.monotonic()
    wait(lambda: not cluster.living())
    assert time.monotonic() - killed < remote.LEASE_SECONDS + 10
    assert cluster.polite() == set(cluster.started())
    assert dask_worker.poll() is None


@pytest.mark.slow
def test_a_scheduler_that_is_gone_ends_the_workers_and_is_reported(
    cluster: OuterCluster, monkeypatch: pytest.MonkeyPatch, capfd
):
    monkeypatch.setattr("optevo.workers.dask_client.RECONNECT_SECONDS", 5.0)
    cluster.worker()
    with closing(cluster.pool()) as pool:
        tend_until(pool, cluster.living)
        kill(cluster.scheduler)
        with pytest.raises(UserError, match="answers no more; nothing is lost"):
            tend_until(pool, lambda: False)
        wait(lambda: not cluster.living())
    assert capfd.readouterr().err == ""
