"""`optevo run --cluster`: who gets which workers, with a scheduler and Dask workers in this process."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import optevo
from optevo.errors import UserError

pytest.importorskip("distributed")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

from dask_clusters import InnerCluster, closing, tend_for, tend_until, wait  # noqa: E402

from optevo.workers import dask_remote as remote  # noqa: E402
from optevo.workers.dask_client import run_in  # noqa: E402

POLL_SECONDS = 0.1
FITS = {"optevo": optevo.__version__, "torch": version("torch"), "gpus": [], "machine": remote.machine()}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InnerCluster]:
    monkeypatch.setattr("optevo.workers.dask_pool._POLL_SECONDS", POLL_SECONDS)
    finds(monkeypatch, lambda _: FITS)
    made = InnerCluster(tmp_path)
    try:
        yield made
    finally:
        made.end()


def finds(monkeypatch: pytest.MonkeyPatch, found: Callable[[int], Any]) -> None:
    """What a look at the n-th Dask worker finds; a real one imports torch in a process of its own."""
    order = itertools.count()

    async def run(client: Any, address: str, function: Callable[..., Any], *args: Any) -> Any:
        if function is remote.probe:
            return found(next(order))
        return await run_in(client, address, function, *args)

    monkeypatch.setattr("optevo.workers.dask_pool.run_in", run)


def test_every_dask_worker_gets_as_many_workers_as_it_has_threads(cluster: InnerCluster, capfd):
    cluster.worker(1)
    cluster.worker(2)
    with closing(cluster.pool()) as pool:
        assert tend_until(pool, lambda: len(cluster.living()) == 3) == []
        assert pool.working
        for note in cluster.started().values():
            here = str(os.getpid())
            assert note["argv"] == ["--device", "cpu", "--sharing", "1", "--parent", here, "--", "small"]
            assert note["url"] == "postgresql://nobody:secret@nowhere/x"
    assert cluster.living() == {}
    assert capfd.readouterr() == ("", "")


def test_no_password_is_in_what_dask_logs_of_a_call_that_fails():
    order = remote.Order(
        "run", (), "small", {}, 0, 0, {"OPTEVO_STORAGE": "postgresql://nobody:secret@nowhere/x"}
    )
    assert "secret" not in repr(order)


def test_no_more_workers_than_asked_for_spread_over_the_dask_workers(
    cluster: InnerCluster, monkeypatch: pytest.MonkeyPatch
):
    orders: dict[str, remote.Order] = {}

    async def run(client: Any, address: str, function: Callable[..., Any], *args: Any) -> Any:
        if function is remote.probe:
            return FITS
        (orders[address],) = args
        return await run_in(client, address, function, *args)

    monkeypatch.setattr("optevo.workers.dask_pool.run_in", run)
    cluster.worker(2)
    cluster.worker(2)
    with closing(cluster.pool(workers=2)) as pool:
        tend_until(pool, lambda: len(cluster.living()) == 2)
        tend_for(pool, 10 * POLL_SECONDS)
        assert len(cluster.started()) == 2
        assert [order.devices for order in orders.values()] == [{0: "cpu"}] * 2


def test_a_worker_killed_by_a_signal_is_replaced(cluster: InnerCluster):
    cluster.worker()
    with closing(cluster.pool()) as pool:
        tend_until(pool, cluster.living)
        (first,) = cluster.living()
        os.kill(first, signal.SIGKILL)
        ended = tend_until(pool, lambda: cluster.living() and first not in cluster.living())
        ended += tend_for(pool, 5 * POLL_SECONDS)
        assert [(e.status, e.replaced) for e in ended] == [(-signal.SIGKILL, True)]
        assert pool.working


def test_a_worker_that_ended_with_an_error_is_reported_and_not_replaced(cluster: InnerCluster):
    cluster.worker()
    with closing(cluster.pool(then="print('the data is missing'); done(2)")) as pool:
        ended = tend_until(pool, lambda: not pool.working)
        assert [(e.status, e.replaced) for e in ended] == [(2, False)]
        assert "the data is missing" in ended[0].output_tail
        assert ended[0].name.startswith("worker 1 on tcp://127.0.0.1:")
        assert len(cluster.started()) == 1


def test_a_worker_that_cannot_be_started_is_reported(cluster: InnerCluster, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remote.sys, "executable", "/no/such/python")
    cluster.worker()
    with closing(cluster.pool()) as pool:
        (ended,) = tend_until(pool, lambda: not pool.working)
    assert (ended.status, ended.replaced) == (1, False)
    assert "cannot start a worker" in ended.output_tail


def test_workers_that_are_done_leave_the_pool_idle(cluster: InnerCluster):
    cluster.worker(2)
    with closing(cluster.pool(then="done(0)")) as pool:
        ended = tend_until(pool, lambda: not pool.working)
        assert [e.status for e in ended] == [0, 0]
        assert len(cluster.started()) == 2


def test_dask_workers_are_waited_for_and_get_their_workers_when_they_come(cluster: InnerCluster, caplog):
    with caplog.at_level(logging.WARNING), closing(cluster.pool()) as pool:
        assert pool.tend(0) == []
        assert pool.working
        assert "waiting for them" in caplog.text
        cluster.worker()
        tend_until(pool, lambda: len(cluster.living()) == 1)
        cluster.worker(2)
        tend_until(pool, lambda: len(cluster.living()) == 3)


def test_a_dask_worker_that_leaves_is_told_of_and_others_are_waited_for(
    cluster: InnerCluster, monkeypatch: pytest.MonkeyPatch, caplog
):
    monkeypatch.setattr(remote, "LEASE_SECONDS", 1.0)
    leaving = cluster.worker()
    with closing(cluster.pool()) as pool:
        tend_until(pool, cluster.living)
        cluster.leave(leaving)
        tend_until(pool, lambda: "has gone with its workers; none left; waiting for others" in caplog.text)
        tend_until(pool, lambda: not cluster.living())
        assert pool.working
        cluster.worker()
        tend_until(pool, lambda: len(cluster.living()) == 1)


def test_a_stop_is_polite_and_starts_nobody_anew(cluster: InnerCluster):
    cluster.worker(2)
    with closing(cluster.pool()) as pool:
        tend_until(pool, lambda: len(cluster.living()) == 2)
        pool.stop()
        ended = tend_until(pool, lambda: not pool.working)
        assert [e.status for e in ended] == [0, 0]
        assert cluster.polite() == set(cluster.started())
        assert cluster.living() == {}


def test_a_second_stop_kills(cluster: InnerCluster):
    cluster.worker()
    with closing(cluster.pool(on_term="signal.SIG_IGN")) as pool:
        tend_until(pool, cluster.living)
        pool.stop()
        tend_for(pool, 10 * POLL_SECONDS)
        assert len(cluster.living()) == 1
        pool.stop()
        ended = tend_until(pool, lambda: not pool.working)
        assert [(e.status, e.replaced) for e in ended] == [(-signal.SIGKILL, False)]
        assert cluster.living() == {}


@pytest.mark.parametrize("polite", [True, False])
def test_a_dask_worker_that_hears_nothing_more_ends_its_workers(
    cluster: InnerCluster, monkeypatch: pytest.MonkeyPatch, polite: bool
):
    monkeypatch.setattr(remote, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(remote, "POLITE_SECONDS", 0.5)
    cluster.worker(2)
    with closing(cluster.pool(on_term="end" if polite else "signal.SIG_IGN")) as pool:
        tend_until(pool, lambda: len(cluster.living()) == 2)
        pool._attending.cancel()  # as when `optevo run` is killed
        wait(lambda: not cluster.living())
        assert len(cluster.started()) == 2
        assert cluster.polite() == (set(cluster.started()) if polite else set())


def test_an_address_where_no_scheduler_answers_is_an_error(cluster: InnerCluster, tmp_path, monkeypatch):
    monkeypatch.setattr("optevo.workers.dask_client.CONNECT_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes connections and says nothing
        address = f"tcp://127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(UserError, match=f"no Dask scheduler answers at {address}"):
            cluster.pool(address=address)
    for wrong in (address, "tcp://127.0.0.1:notaport", "nonsense://here", cluster.worker().address):
        with pytest.raises(UserError, match="no Dask scheduler answers at"):
            cluster.pool(address=wrong)
    with pytest.raises(UserError, match=r"cannot use the scheduler file .*none\.json"):
        cluster.pool(address=str(tmp_path / "none.json"))


def test_the_scheduler_file_stands_for_the_address(cluster: InnerCluster, tmp_path: Path):
    cluster.worker()
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": cluster.address}))
    with closing(cluster.pool(address=str(file))) as pool:
        tend_until(pool, cluster.living)


def test_a_dask_worker_of_another_version_is_refused_and_the_others_work(cluster: InnerCluster, monkeypatch):
    finds(monkeypatch, lambda n: FITS if n else {**FITS, "torch": "1.0+cu118", "optevo": "9.9"})
    cluster.worker()
    cluster.worker()
    with closing(cluster.pool()) as pool:
        (refused,) = tend_until(pool, cluster.living)
        assert refused.status == 2
        assert refused.name.startswith("worker on tcp://127.0.0.1:")
        assert f"optevo 9.9 there, {optevo.__version__} here" in refused.output_tail
        assert "torch 1.0+cu118 there" in refused.output_tail
        assert pool.working
        assert len(cluster.living()) == 1


@pytest.mark.parametrize(
    ("found", "message"),
    [
        pytest.param({**FITS, "torch": "1.0"}, r"tcp://127.0.0.1:\d+: torch 1.0 there", id="version"),
        pytest.param({**FITS, "machine": ["far", ""]}, "it is on another machine", id="SQLite"),
        pytest.param("No module named 'torch'", "optevo cannot be used there: No module", id="no torch"),
        pytest.param(FITS, "device 'cuda' was asked for, torch sees 0 CUDA devices there", id="no GPU"),
    ],
)
def test_where_no_dask_worker_fits_nothing_is_begun(
    cluster: InnerCluster, monkeypatch, found: Any, message: str
):
    finds(monkeypatch, lambda _: found)
    cluster.worker()
    with pytest.raises(UserError, match=message):
        cluster.pool(device="cuda", storage_url="sqlite:///optevo.db")
    assert cluster.started() == {}


def test_a_pool_for_which_only_misfits_come_ends(cluster: InnerCluster, monkeypatch):
    finds(monkeypatch, lambda _: "No module named 'torch'")
    with closing(cluster.pool()) as pool:
        cluster.worker()
        (refused,) = tend_until(pool, lambda: not pool.working)
        assert "optevo cannot be used there" in refused.output_tail


def test_a_gpu_that_two_dask_workers_see_is_used_once(cluster: InnerCluster, monkeypatch):
    gpus = [["A", "B"], ["B", "A", "C"]]
    finds(monkeypatch, lambda n: {**FITS, "gpus": gpus[n]})
    cluster.worker()
    cluster.worker()
    with closing(cluster.pool(device="auto", storage_url="sqlite:///optevo.db")) as pool:
        tend_until(pool, lambda: len(cluster.living()) == 3)
        tend_for(pool, 10 * POLL_SECONDS)
        notes = cluster.started().values()
        assert len(notes) == 3
        assert "cuda:2" in [note["argv"][1] for note in notes]
        assert {note["url"] for note in notes} == {f"sqlite:///{Path('optevo.db').absolute()}"}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        pytest.param("import no_such_module", "No module named 'no_such_module'", id="a module is missing"),
        pytest.param("import os; os._exit(3)", "status 3", id="a crash"),
        pytest.param("import time; time.sleep(60)", "importing torch took more than 1 s", id="a slow disk"),
    ],
)
def test_a_look_tells_what_stands_in_the_way(monkeypatch: pytest.MonkeyPatch, code: str, message: str):
    monkeypatch.setattr(remote, "_PROBE", code)
    monkeypatch.setattr(remote, "_PROBE_SECONDS", 1.0 if "sleep" in code else 60.0)

    async def look() -> Any:
        answer = await remote.probe()
        await asyncio.sleep(0.1)  # the end of a process that was killed is noted
        return answer

    assert message in asyncio.run(look())


def test_a_look_tells_versions_and_the_machine():
    answer = asyncio.run(remote.probe())
    torch, mine = (found["torch"].partition("+")[0] for found in (answer, FITS))  # without the build
    assert torch == mine
    assert {**answer, "torch": "", "gpus": []} == {**FITS, "torch": ""}
