"""A time is an instant: the same for whoever reads it, wherever that is, and whatever clocks do there."""

from __future__ import annotations

import datetime
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial
from stored_studies import made

from optevo import keys
from optevo.liveness.status import running_trial
from optevo.reporting.frames import _seconds
from optevo.samplers import GeneticSampler
from optevo.storage.copying import copy_studies
from optevo.storage.instants import local
from optevo.storage.opening import open_storage
from optevo.storage.study_file import load_file, read_study, save_study

pytestmark = pytest.mark.usefixtures("quiet_optuna")
UTC = datetime.UTC
ZONES = [
    "UTC",
    "Asia/Tokyo",
    "America/New_York",
    "Europe/Berlin",
    "Pacific/Kiritimati",
    "Australia/Lord_Howe",
]
# Clocks went back in New York at 06:00, in Berlin at 01:00, on Lord Howe by half an hour at 15:00.
ODD = [
    *[
        datetime.datetime(2025, 11, 2, hour, minute, tzinfo=UTC)
        for hour in (4, 5, 6, 7)
        for minute in (0, 30)
    ],
    *[datetime.datetime(2025, 3, 9, hour, 30, tzinfo=UTC) for hour in (5, 6, 7)],
    *[datetime.datetime(2025, 10, 26, hour, 15, 0, 123456, tzinfo=UTC) for hour in (0, 1, 2)],
    *[
        datetime.datetime(2025, 4, 5, 14 + minute // 60, minute % 60, tzinfo=UTC)
        for minute in range(0, 90, 15)
    ],
]
Live = Callable[[str], None]


@pytest.fixture
def live_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    """Moves this process to another time zone."""

    def move(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield move
    monkeypatch.undo()
    time.tzset()


def stored(url: str) -> list[tuple[str, str]]:
    """What SQLite's file holds, which is UTC."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        return connection.execute(
            "SELECT datetime_start, datetime_complete FROM trials ORDER BY number"
        ).fetchall()


def instants(storage: BaseStorage) -> list[datetime.datetime]:
    (study,) = storage.get_all_studies()
    trials = storage.get_all_trials(study._study_id, deepcopy=False)
    return [trial.datetime_start.astimezone(UTC) for trial in trials if trial.datetime_start is not None]


def at_odd_times(url: str) -> None:
    """A study with a trial at each odd time, and what `made` has besides."""
    study = made(url)
    for start in sorted(ODD):
        trial = create_trial(state=TrialState.FAIL)
        trial.datetime_start, trial.datetime_complete = start, start + datetime.timedelta(minutes=20)
        study.add_trial(trial)


@pytest.mark.parametrize("zone", ZONES)
def test_every_instant_comes_back_from_local_time(live_in: Live, zone: str):
    live_in(zone)
    for instant in ODD:
        naive = local(instant)
        assert naive.tzinfo is None
        assert naive.astimezone(UTC) == instant
        assert local(naive) == naive
        assert local(naive).fold == naive.fold


def test_a_study_has_one_file_and_one_database_in_every_zone(url: str, live_in: Live, tmp_path: Path):
    live_in("UTC")
    at_odd_times(url)
    before, texts = stored(url), set()
    for n, zone in enumerate(ZONES):
        live_in(zone)
        file, second, third = (
            tmp_path / f"{n}.json",
            f"sqlite:///{tmp_path}/{n}b.db",
            f"sqlite:///{tmp_path}/{n}c.db",
        )
        save_study(url, "one", file)
        texts.add(file.read_bytes())
        live_in(ZONES[n - 1])  # somebody else's
        assert instants(read_study(file)) == instants(open_storage(url))
        load_file(file, second)
        live_in(ZONES[n - 2])
        list(copy_studies(second, third))
        for copy in (second, third):
            assert [row[0] for row in stored(copy)] == [row[0] for row in before]
            assert len({*stored(copy)} ^ {*before}) == 2 * 2  # the two that were running have ended
        save_study(third, "one", file)
        texts.add(file.read_bytes())
    assert len(texts) == 1


@pytest.mark.parametrize("zone", ZONES[:3])
def test_optuna_reads_the_same_instants_out_of_a_file(url: str, live_in: Live, tmp_path: Path, zone: str):
    live_in("UTC")
    made(url)
    before = instants(open_storage(url))
    save_study(url, "one", tmp_path / "one.json")
    live_in(zone)
    assert instants(JournalStorage(JournalFileBackend(str(tmp_path / "one.json")))) == before
    text = (tmp_path / "one.json").read_text("utf-8")
    assert text.count('+00:00","state"') == len(before)


def test_a_running_trial_ends_in_a_copy_when_it_was_last_heard_of(url: str, live_in: Live, tmp_path: Path):
    study, texts = made(url), []
    trial = study.get_trials(states=(TrialState.RUNNING,))[0]
    heard = datetime.datetime.now(UTC).replace(microsecond=0) + datetime.timedelta(hours=1)
    study._storage.set_trial_system_attr(trial._trial_id, keys.BEAT, [1, heard.isoformat()])
    for zone in ZONES:
        live_in(zone)
        save_study(url, "one", tmp_path / "one.json")
        texts.append((tmp_path / "one.json").read_bytes())
    assert len({*texts}) == 1
    ended = read_study(tmp_path / "one.json").get_all_trials(0)[trial.number]
    assert ended.datetime_complete is not None
    assert ended.datetime_complete.astimezone(UTC) == heard


def test_a_file_of_times_without_a_zone_is_read_as_local(live_in: Live):
    earlier = Path(__file__).parents[1] / "data" / "study_file_of_version_1.json"
    live_in("UTC")
    here = instants(read_study(earlier))
    live_in("Asia/Tokyo")
    there = instants(read_study(earlier))
    assert {a - b for a, b in zip(here, there, strict=True)} == {datetime.timedelta(hours=9)}


def test_a_sampler_without_a_seed_takes_the_same_one_in_every_zone(url: str, live_in: Live):
    live_in("UTC")
    study = optuna.create_study(study_name="s", storage=open_storage(url, create=True))
    trial, seeds = create_trial(value=0.5), set()
    trial.datetime_start = datetime.datetime(
        2025, 11, 2, 6, 30, tzinfo=UTC
    )  # half past one, for the second time
    study.add_trial(trial)
    for zone in ZONES:
        live_in(zone)
        sampler = GeneticSampler(population_size=4, n_elites=1)
        again = optuna.load_study(study_name="s", storage=open_storage(url), sampler=sampler)
        seeds.add(sampler._cache(again).seed)
    assert len(seeds) == 1


def at(start: datetime.datetime, end: datetime.datetime | None = None) -> FrozenTrial:
    trial = create_trial(state=TrialState.FAIL)
    trial.datetime_start, trial.datetime_complete = local(start), end and local(end)
    return trial


def test_seconds_are_seconds_while_clocks_are_put_back_and_forward(live_in: Live):
    live_in("America/New_York")
    for start in ODD:
        for minutes in (10, 65, 180):
            end = start + datetime.timedelta(minutes=minutes)
            assert _seconds(at(start, end)) == minutes * 60


def test_the_age_of_a_running_trial_is_no_matter_of_clocks(live_in: Live, monkeypatch: pytest.MonkeyPatch):
    live_in("America/New_York")
    start = datetime.datetime(2025, 11, 2, 5, 30, tzinfo=UTC)

    class Now(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            later = start + datetime.timedelta(minutes=65)
            return later.astimezone(tz) if tz else local(later)

    trial = at(start)
    trial.state = TrialState.RUNNING
    monkeypatch.setattr(datetime, "datetime", Now)
    assert running_trial(trial).seconds == 65 * 60
