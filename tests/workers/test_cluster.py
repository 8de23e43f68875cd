"""`optevo run --cluster`: the workers that a Dask cluster holds, with real schedulers and Dask workers."""

from __future__ import annotations

import itertools
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from test_resume import Place, Slots, ending, unbroken  # noqa: F401  a fixture

from optevo.errors import UserError
from optevo.workers import dask_remote as remote
from optevo.workers.dask_client import run_in
from optevo.workers.local_pool import WorkerExit

pytest.importorskip("distributed")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and sessions of POSIX")

from optevo.workers.dask_pool import DaskPool  # noqa: E402

PATIENCE = 90
# What stands in for a worker: leaves a note of its arguments, ends with its parent, and when asked to.
FAKE = """
import json, os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
note = folder / f"{os.getpid()}.tmp"
note.write_text(json.dumps({"argv": sys.argv[2:], "url": os.environ["OPTEVO_STORAGE"]}))
def end(*_):
    (folder / f"{os.getpid()}.polite").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, %(on_term)s)
note.rename(note.with_suffix(".json"))
%(then)s
while os.getppid() == int(sys.argv[sys.argv.index("--parent") + 1]):
    time.sleep(0.1)
"""


class Cluster:
    """A scheduler and Dask workers, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.notes = folder, folder / "notes"
        self.notes.mkdir()
        self.file = folder / "scheduler.json"
        self.log = folder / "dask.txt"
        self.processes: list[subprocess.Popen[bytes]] = []

    def begin(self) -> None:
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0")
        wait(lambda: self.file.exists() and self.file.read_text().endswith("}"))
        self.address = json.loads(self.file.read_text())["address"]

    def _start(self, kind: str, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *options]
        command += ["--scheduler-file", str(self.file), "--no-dashboard"]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, cwd=self.folder
            )
        self.processes.append(process)
        return process

    def worker(self, threads: int = 1, *, nanny: bool = False) -> subprocess.Popen[bytes]:
        options = ["--nthreads", str(threads), "--nanny" if nanny else "--no-nanny"]
        return self._start("worker", *options, "--local-directory", str(self.folder))

    def pool(
        self, workers: int | None = None, *, then: str = "", on_term: str = "end", address: str | None = None
    ) -> DaskPool:
        command = ["-c", FAKE % {"then": then, "on_term": on_term}, str(self.notes)]
        return DaskPool(
            address or self.address,
            command,
            {"OPTEVO_STORAGE": "postgresql://nobody:secret@nowhere/x"},
            device="cpu",
            workers=workers,
            name_of_study="small",
            storage_url="postgresql://nobody:secret@nowhere/x",
        )

    def started(self) -> dict[int, dict[str, Any]]:
        """Every stand-in there ever was, with its arguments and environment."""
        return {int(note.stem): json.loads(note.read_text()) for note in self.notes.glob("*.json")}

    def living(self) -> dict[int, int]:
        """Those alive, each with the Dask worker process it belongs to."""
        found = {}
        for pid in self.started():
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    found[pid] = process.ppid()
        return found

    def polite(self) -> set[int]:
        return {int(note.stem) for note in self.notes.glob("*.polite")}

    def end(self) -> None:
        for process in reversed(self.processes):
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process with its whole session, as a machine's power cut would."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(PATIENCE)


def wait(condition: Callable[[], Any], message: Callable[[], Any] = lambda: "it never came") -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, message()
        time.sleep(0.05)


@contextmanager
def closing(pool: DaskPool) -> Iterator[DaskPool]:
    try:
        yield pool
    finally:
        pool.close()


def tend_until(pool: DaskPool, condition: Callable[[], Any]) -> list[WorkerExit]:
    """Tend the pool until something is so; those that ended."""
    ended: list[WorkerExit] = []

    def tended() -> Any:
        ended.extend(pool.tend(0))
        return condition()

    wait(tended, lambda: ended)
    return ended


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch) -> Iterator[Cluster]:
    monkeypatch.setattr("optevo.workers.dask_pool._POLL_SECONDS", 0.3)
    made = Cluster(tmp_path)
    try:
        made.begin()
        yield made
    finally:
        made.end()


def test_every_dask_worker_gets_as_many_workers_as_it_has_threads(cluster: Cluster, capfd, caplog):
    one, two = cluster.worker(1), cluster.worker(2, nanny=True)
    with closing(cluster.pool()) as pool:
        assert tend_until(pool, lambda: len(cluster.living()) == 3) == []
        assert pool.working
        running_trials = sorted(cluster.living().values())
        assert running_trials.count(one.pid) == 1
        nannied = next(pid for pid in running_trials if pid != one.pid)
        assert running_trials.count(nannied) == 2
        assert psutil.Process(nannied).ppid() == two.pid
        for pid, note in cluster.started().items():
            parent = str(cluster.living()[pid])
            assert note["argv"] == ["--device", "cpu", "--sharing", "1", "--parent", parent, "--", "small"]
            assert "secret" not in " ".join(note["argv"])
            assert note["url"] == "postgresql://nobody:secret@nowhere/x"
    assert cluster.living() == {}
    assert "secret" not in cluster.log.read_text()
    assert capfd.readouterr() == ("", "")
    assert [r for r in caplog.records if not r.name.startswith("optevo")] == []


@pytest.mark.slow
def test_no_more_workers_than_asked_for_spread_over_the_dask_workers(cluster: Cluster):
    pids = {cluster.worker(2).pid, cluster.worker(2).pid}
    wait(lambda: cluster.log.read_text().count("Registered to:") == 2)
    with closing(cluster.pool(workers=2)) as pool:
        tend_until(pool, lambda: len(cluster.living()) == 2)
        assert set(cluster.living().values()) == pids
        until = time.monotonic() + 4
        tend_until(pool, lambda: time.monotonic() > until)
        assert len(cluster.started()) == 2


@pytest.mark.slow
def test_a_worker_killed_by_a_signal_is_replaced(cluster: Cluster):
    cluster.worker()
    with closing(cluster.pool()) as pool:
        tend_until(pool, cluster.living)
        (first,) = cluster.living()
        os.kill(first, signal.SIGKILL)
        ended = tend_until(pool, lambda: cluster.living() and first not in cluster.living())
        assert [(e.status, e.replaced) for e in ended] in ([], [(-signal.SIGKILL, True)])
        assert pool.working


@pytest.mark.slow
def test_a_worker_that_ended_with_an_error_is_reported_and_not_replaced(cluster: Cluster):
    cluster.worker()
    with closing(cluster.pool(then="print('the data is missing'); sys.exit(2)")) as pool:
        ended = tend_until(pool, lambda: not pool.working)
        assert [(e.status, e.replaced) for e in ended] == [(2, False)]
        assert "the data is missing" in ended[0].output_tail
        assert ended[0].name.startswith("worker 1 on tcp://127.0.0.1:")
        assert len(cluster.started()) == 1


@pytest.mark.slow
def test_workers_that_are_done_leave_the_crew_idle(cluster: Cluster):
    cluster.worker(2)
    with closing(cluster.pool(then="sys.exit(0)")) as pool:
        ended = tend_until(pool, lambda: not pool.working)
        assert [e.status for e in ended] == [0, 0]
        assert len(cluster.started()) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "nanny", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["no nanny", "nanny"]
)
def test_a_dask_worker_that_is_gone_for_good_leaves_the_other_at_work(cluster: Cluster, nanny: bool):
    lost, kept = cluster.worker(nanny=nanny), cluster.worker()
    with closing(cluster.pool()) as pool:
        tend_until(pool, lambda: len(cluster.living()) == 2)
        (other,) = (pid for pid, running_trial in cluster.living().items() if running_trial == kept.pid)
        kill(lost)
        tend_until(pool, lambda: set(cluster.living()) == {other})
        until = time.monotonic() + 3
        assert tend_until(pool, lambda: time.monotonic() > until) == []
        assert set(cluster.living()) == {other}
        assert pool.working


@pytest.mark.slow
def test_a_dask_worker_that_its_nanny_restarts_gets_its_workers_again(cluster: Cluster):
    cluster.worker(nanny=True)
    with closing(cluster.pool()) as pool:
        tend_until(pool, cluster.living)
        ((first, running_trial),) = cluster.living().items()
        os.kill(running_trial, signal.SIGKILL)
        tend_until(pool, lambda: set(cluster.living()) - {first})
        assert len(set(cluster.living()) - {first}) == 1


@pytest.mark.slow
def test_dask_workers_are_waited_for_and_get_their_workers_when_they_come(cluster: Cluster, caplog):
    with caplog.at_level(logging.WARNING), closing(cluster.pool()) as pool:
        assert pool.tend(0) == []
        assert pool.working
        assert "waiting for them" in caplog.text
        cluster.worker()
        tend_until(pool, lambda: len(cluster.living()) == 1)
        cluster.worker(2)
        tend_until(pool, lambda: len(cluster.living()) == 3)


@pytest.mark.slow
def test_a_stop_is_polite_and_starts_nobody_anew(cluster: Cluster):
    cluster.worker(2)
    with closing(cluster.pool()) as pool:
        tend_until(pool, lambda: len(cluster.living()) == 2)
        pool.stop()
        ended = tend_until(pool, lambda: not pool.working)
        assert [e.status for e in ended] == [0, 0]
        assert cluster.polite() == set(cluster.started())
        assert cluster.living() == {}


@pytest.mark.slow
def test_a_second_stop_kills(cluster: Cluster):
    cluster.worker()
    with closing(cluster.pool(on_term="signal.SIG_IGN")) as pool:
        tend_until(pool, cluster.living)
        pool.stop()
        until = time.monotonic() + 3
        tend_until(pool, lambda: time.monotonic() > until)
        assert len(cluster.living()) == 1
        pool.stop()
        ended = tend_until(pool, lambda: not pool.working)
        assert [(e.status, e.replaced) for e in ended] == [(-signal.SIGKILL, False)]
        assert cluster.living() == {}


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
def test_nothing_outlives_a_parent_that_was_killed_and_the_dask_workers_stay(cluster: Cluster):
    dask_worker = cluster.worker(2)
    fake = ["-c", FAKE % {"then": "", "on_term": "end"}, str(cluster.notes)]
    parent = subprocess.Popen([sys.executable, "-c", PARENT, cluster.address, *fake])
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
def test_a_scheduler_that_is_gone_ends_the_workers_and_is_reported(cluster: Cluster, monkeypatch, capfd):
    monkeypatch.setattr("optevo.workers.dask_client.RECONNECT_SECONDS", 5.0)
    cluster.worker()
    with closing(cluster.pool()) as pool:
        tend_until(pool, cluster.living)
        kill(cluster.scheduler)
        with pytest.raises(UserError, match="answers no more; nothing is lost"):
            tend_until(pool, lambda: False)
        wait(lambda: not cluster.living())
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_an_address_where_no_scheduler_answers_is_an_error(cluster: Cluster, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("optevo.workers.dask_client.CONNECT_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes connections and says nothing
        address = f"tcp://127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(UserError, match=f"no Dask scheduler answers at {address}"):
            cluster.pool(address=address)
    for wrong in (address, "tcp://127.0.0.1:notaport", "nonsense://here"):
        with pytest.raises(UserError, match="no Dask scheduler answers at"):
            cluster.pool(address=wrong)
    with pytest.raises(UserError, match=r"cannot use the scheduler file .*none\.json"):
        cluster.pool(address=str(tmp_path / "none.json"))


@pytest.mark.slow
def test_the_scheduler_file_stands_for_the_address(cluster: Cluster):
    cluster.worker()
    with closing(cluster.pool(address=str(cluster.file))) as pool:
        tend_until(pool, cluster.living)


def _fakes(monkeypatch, change: Callable[[int, Any], Any]) -> None:
    """Have what is found in the n-th Dask worker looked at changed."""
    real, order = run_in, itertools.count()

    async def run(client: Any, address: str, function: Callable[..., Any], *args: Any) -> Any:
        answer = await real(client, address, function, *args)
        return change(next(order), answer) if function is remote.probe else answer

    monkeypatch.setattr("optevo.workers.dask_pool.run_in", run)


@pytest.mark.slow
def test_a_dask_worker_of_another_version_is_refused_and_the_others_work(cluster: Cluster, monkeypatch):
    _fakes(monkeypatch, lambda n, found: found if n else {**found, "torch": "1.0+cu118", "optevo": "9.9"})
    cluster.worker()
    cluster.worker()
    wait(lambda: cluster.log.read_text().count("Registered to:") == 2)
    with closing(cluster.pool()) as pool:
        (refused,) = tend_until(pool, cluster.living)
        assert refused.status == 2
        assert refused.name.startswith("worker on tcp://127.0.0.1:")
        assert "optevo 9.9 there, 0.1.0 here" in refused.output_tail
        assert "torch 1.0+cu118 there" in refused.output_tail
        assert pool.working
        assert len(cluster.living()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("found", "message"),
    [
        pytest.param({"torch": "1.0"}, r"tcp://127.0.0.1:\d+: torch 1.0 there", id="version"),
        pytest.param({"machine": ["far", ""]}, "it is on another machine", id="SQLite"),
        pytest.param("No module named 'torch'", "optevo cannot be used there: No module", id="no torch"),
    ],
)
def test_where_no_dask_worker_fits_nothing_is_begun(cluster: Cluster, monkeypatch, found: Any, message: str):
    _fakes(monkeypatch, lambda _, real: {**real, **found} if isinstance(found, dict) else found)
    cluster.worker()
    wait(lambda: "Registered to:" in cluster.log.read_text())
    with pytest.raises(UserError, match=message):
        DaskPool(
            cluster.address,
            ["-c", FAKE % {"then": "", "on_term": "end"}, str(cluster.notes)],
            {},
            device="auto",
            workers=None,
            name_of_study="small",
            storage_url="sqlite:///optevo.db",
        )
    assert cluster.started() == {}


@pytest.mark.slow
def test_a_gpu_that_two_dask_workers_see_is_used_once(cluster: Cluster, monkeypatch):
    gpus = [["A", "B"], ["B", "A", "C"]]
    _fakes(monkeypatch, lambda n, found: {**found, "gpus": gpus[n]})
    cluster.worker()
    cluster.worker()
    wait(lambda: cluster.log.read_text().count("Registered to:") == 2)
    command = ["-c", FAKE % {"then": "", "on_term": "end"}, str(cluster.notes)]
    options: dict[str, Any] = {"workers": None, "name_of_study": "small", "storage_url": "grpc://x:1"}
    with closing(DaskPool(cluster.address, command, {}, device="auto", **options)) as pool:
        tend_until(pool, lambda: len(cluster.living()) == 3)
        until = time.monotonic() + 3
        tend_until(pool, lambda: time.monotonic() > until)
        assert len(cluster.living()) == 3
        assert "cuda:2" in [note["argv"][1] for note in cluster.started().values()]


@pytest.mark.slow
def test_a_search_that_loses_a_dask_worker_ends_as_the_unbroken_one(
    unbroken: Slots,  # noqa: F811
    cluster: Cluster,
):
    place = Place(cluster.folder)
    place.create()
    lost, _ = cluster.worker(), cluster.worker()
    with ending(place.run("--cluster", cluster.address, "--device", "cpu")) as process:
        wait(lambda: len(_workers(place)) == 2)
        kill(lost)
        assert process.wait(3 * PATIENCE) == 0, place.log.read_text()
    place.check_complete(unbroken)


def _workers(place: Place) -> set[int]:
    """Those who have said that a trial is theirs."""
    trials = place.study().get_trials(deepcopy=False)
    return {trial.user_attrs["worker"]["pid"] for trial in trials if "worker" in trial.user_attrs}
