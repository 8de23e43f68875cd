"""Worker processes: replaced where something kills them, left alone where they end by themselves."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from optevo.evaluation.giving_up import MAX_LOSSES
from optevo.workers import local_pool as pools
from optevo.workers.local_pool import LocalPool
from optevo.workers.pool import (
    EXIT_TASK_BROKEN,
    EXIT_TERMINATED,
    EXIT_USER_ERROR,
    FAREWELL,
    Replacements,
    WorkerExit,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

# Like a worker: ends politely on SIGTERM, and says so by its status.
SLEEP = f"""
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit({EXIT_TERMINATED}))
print('up', flush=True)
while True: signal.pause()
"""
# Says with which status it is about to end, as a worker does that has its reasons.
SAY = f"import os, sys; say = lambda status: print('\\n' + os.environ['{FAREWELL}'], status, flush=True); "
DEAF = SLEEP.replace(f"lambda *_: sys.exit({EXIT_TERMINATED})", "signal.SIG_IGN")
SECONDS = 60


@pytest.fixture
def start() -> Iterator[Callable[..., LocalPool]]:
    begun: list[LocalPool] = []

    def start(*programs: str) -> LocalPool:
        begun.append(LocalPool([[sys.executable, "-c", program] for program in programs], {**os.environ}))
        return begun[-1]

    yield start
    for one in begun:
        one.close()


def tend_until(
    pool: LocalPool, done: Callable[[list[WorkerExit]], object], counted: Callable[[], int] = lambda: 0
):
    """Tend until `done` holds of all that have ended so far."""
    ended: list[WorkerExit] = []
    until = time.monotonic() + SECONDS
    while not done(ended):
        assert time.monotonic() < until
        ended += pool.tend(counted())
        time.sleep(0.02)
    return ended


def awake(pool: LocalPool) -> None:
    tend_until(pool, lambda _: all(slot.output_tail for slot in pool.slots))


def pids(pool: LocalPool) -> list[int]:
    return [slot.process.pid for slot in pool.slots if slot.process is not None]


def test_a_killed_worker_is_replaced_and_the_others_stay(start: Callable[..., LocalPool]):
    pool = start(SLEEP, SLEEP)
    first, second = pids(pool)
    os.kill(first, signal.SIGKILL)
    (ended,) = tend_until(pool, len)
    assert (ended.status, ended.replaced) == (-signal.SIGKILL, True)
    assert str(first) in ended.name
    assert pids(pool)[0] != first
    assert pids(pool)[1] == second


def test_a_worker_asked_to_end_by_somebody_else_is_replaced(start: Callable[..., LocalPool]):
    pool = start(SLEEP)
    awake(pool)
    os.kill(pids(pool)[0], signal.SIGTERM)
    (ended,) = tend_until(pool, len)
    assert (ended.status, ended.replaced) == (EXIT_TERMINATED, True)


@pytest.mark.parametrize("status", [0, EXIT_USER_ERROR, EXIT_TASK_BROKEN])
@pytest.mark.parametrize("end", ["sys.exit(STATUS)", "os.abort()", "os._exit(0)"])
def test_a_worker_that_says_why_it_ends_is_not_replaced_and_its_output_is_kept(
    start: Callable[..., LocalPool], status: int, end: str
):
    pool = start(f"{SAY}print('it says why'); say({status}); {end.replace('STATUS', str(status))}")
    (ended,) = tend_until(pool, len)
    assert (ended.status, ended.replaced, ended.crashed) == (status, False, False)
    assert ended.output_tail.strip() == "it says why"
    assert not pool.working


@pytest.mark.parametrize("status", [0, 1, EXIT_USER_ERROR, 3, EXIT_TASK_BROKEN])
def test_a_worker_whose_process_just_ends_has_crashed_whatever_its_status(
    start: Callable[..., LocalPool], status: int
):
    pool = start(f"import os; print('last words', flush=True); os._exit({status})")
    ended = tend_until(pool, len)
    assert (ended[0].status, ended[0].replaced, ended[0].crashed) == (status, True, True)
    assert "last words" in ended[0].output_tail


def test_a_worker_that_has_said_its_farewell_and_does_not_end_is_ended(
    start: Callable[..., LocalPool], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pools, "_LINGER_SECONDS", 0.1)
    pool = start(f"{SAY}say(0); import time; time.sleep({10 * SECONDS})")
    (ended,) = tend_until(pool, len)
    assert (ended.status, ended.replaced, ended.crashed) == (0, False, False)


def test_a_farewell_needs_no_streams_of_python(start: Callable[..., LocalPool]):
    program = """
import os, sys
from optevo.workers.pool import farewell
say = farewell()
sys.stdout.close()
os.close(1)
say(2)
"""
    (ended,) = tend_until(start(program), len)
    assert (ended.status, ended.replaced, ended.crashed) == (2, False, False)


def test_a_worker_that_cannot_be_started_for_now_is_started_later(
    start: Callable[..., LocalPool], monkeypatch: pytest.MonkeyPatch
):
    pool = start(SLEEP)
    with monkeypatch.context() as broken:
        broken.setattr(pools.subprocess, "Popen", _no_memory)
        os.kill(pids(pool)[0], signal.SIGKILL)
        tend_until(pool, len)
        assert pool.working
    tend_until(pool, lambda _: pids(pool))


def test_a_worker_that_can_never_be_started_is_given_up(
    start: Callable[..., LocalPool], monkeypatch: pytest.MonkeyPatch, caplog
):
    monkeypatch.setattr(pools, "_VACANT_SECONDS", 0.1)
    pool = start(SLEEP)
    monkeypatch.setattr(pools.subprocess, "Popen", _no_memory)
    os.kill(pids(pool)[0], signal.SIGKILL)
    ended = tend_until(pool, lambda _: not pool.working)
    assert [(one.status, one.crashed) for one in ended] == [(-signal.SIGKILL, True), (1, True)]
    assert "Resource temporarily unavailable" in ended[-1].output_tail
    assert "worker 1 cannot be started" in caplog.text


def _no_memory(*_: object, **__: object) -> None:
    raise BlockingIOError("Resource temporarily unavailable")


def test_a_worker_that_stands_still_is_killed_and_replaced(
    start: Callable[..., LocalPool], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pools, "KILL_FROZEN_SECONDS", 0.3)
    pool = start(SLEEP)
    (frozen,) = pids(pool)
    os.kill(frozen, signal.SIGSTOP)
    (ended,) = tend_until(pool, len)
    assert ended.replaced
    assert not psutil.pid_exists(frozen)
    assert pids(pool) != [frozen]


def test_replacing_ends_where_nothing_is_achieved(start: Callable[..., LocalPool]):
    pool = start("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    ended = tend_until(pool, lambda _: not pool.working)
    assert [one.replaced for one in ended] == [True] * (pools.IN_VAIN + 1) + [False]


def test_a_genome_that_always_loses_its_process_is_given_up_before_the_pool_is():
    assert pools.IN_VAIN > MAX_LOSSES


def test_replacing_goes_on_where_trials_finish_in_between():
    replacements = Replacements(limit=2)
    assert all(replacements.allow(counted) for counted in range(20))
    assert [replacements.allow(19) for _ in range(3)] == [True, False, False]


def test_replacing_ends_where_only_every_tenth_makes_a_trial():
    replacements = Replacements(limit=pools.IN_VAIN + 1)
    allowed = [replacements.allow(i // MAX_LOSSES) for i in range(100)]
    assert allowed.index(False) < 40


def test_a_stopped_pool_ends_politely_and_is_not_replaced(start: Callable[..., LocalPool]):
    pool = start(SLEEP, SLEEP)
    awake(pool)
    os.kill(pids(pool)[0], signal.SIGSTOP)  # one that stands still hears it too
    pool.stop()
    ended = tend_until(pool, lambda _: not pool.working)
    assert [(one.status, one.replaced) for one in ended] == [(EXIT_TERMINATED, False)] * 2


def test_the_second_stop_kills(start: Callable[..., LocalPool]):
    pool = start(DEAF)
    awake(pool)
    pool.stop()
    pool.stop()
    (ended,) = tend_until(pool, lambda _: not pool.working)
    assert ended.status == -signal.SIGKILL


def test_nothing_is_left_of_a_closed_pool(start: Callable[..., LocalPool]):
    pool = start(SLEEP, SLEEP)
    processes = [psutil.Process(pid) for pid in pids(pool)]
    pool.close()
    assert psutil.wait_procs(processes, timeout=SECONDS)[1] == []
