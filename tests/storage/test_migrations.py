"""Studies and tables of older versions brought up to this one."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import optuna
import pytest
from small_studies import config
from stored_studies import made

from optevo import keys
from optevo.errors import UserError
from optevo.samplers.sections import GeneticSection
from optevo.storage import migrations
from optevo.storage.migrations import upgrade
from optevo.storage.opening import open_storage
from optevo.study.studies import create_or_resume, load_study


def as_version(study: optuna.Study, version: int) -> None:
    """Make a study look as an older optevo left it."""
    storage, study_id = study._storage, study._study_id
    config = dict(study.user_attrs[keys.CONFIG])
    config["sampler"] = {k: v for k, v in config["sampler"].items() if k != "asynchronous"}
    if version == 1:
        new = ("precision", "gate", "pruner", "batch_candidates")
        config["evaluation"] = {k: v for k, v in config["evaluation"].items() if k not in new}
        with closing(storage._backend.engine.raw_connection()) as connection:  # type: ignore[attr-defined]
            key = keys.COSTS
            connection.cursor().execute(f"DELETE FROM study_user_attributes WHERE key = '{key}'")
            connection.commit()
    storage.set_study_user_attr(study_id, keys.CONFIG, config)
    storage.set_study_user_attr(study_id, keys.FINGERPRINT, "0" * 16)
    storage.set_study_user_attr(study_id, keys.SCHEMA, version)


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_study_goes_on_as_it_was_evaluated(url: str, version: int):
    study = made(url)
    study.set_user_attr(keys.COSTS, {"digits": 7})
    as_version(study, version)
    trials = repr(study.trials)
    with pytest.raises(UserError, match="schema version"):
        load_study(open_storage(url), "one")
    lines = list(upgrade(url))
    assert f"study 'one': schema version {version} → {keys.SCHEMA_VERSION}" in lines
    upgraded, stored = load_study(open_storage(url), "one")
    assert repr(upgraded.trials) == trials
    assert upgraded.user_attrs[keys.FINGERPRINT] == stored.fingerprint()
    assert upgraded.user_attrs[keys.COSTS] == ({} if version == 1 else {"digits": 7})
    new = stored.evaluation
    if version == 1:
        assert (new.precision, new.gate, new.pruner, new.batch_candidates) == ("float32", False, "none", 1)
    else:
        assert new == config().evaluation
    assert isinstance(stored.sampler, GeneticSection)
    assert stored.sampler.asynchronous is False
    create_or_resume(stored, open_storage(url), "cpu")
    assert lines[1:] != list(upgrade(url))[1:] == [f"study 'one': schema version {keys.SCHEMA_VERSION}"]


def test_every_version_has_a_way_to_this_one():
    assert sorted(migrations.MIGRATIONS) == list(range(1, keys.SCHEMA_VERSION))


@pytest.mark.parametrize("calls", range(4))
def test_an_upgrade_that_was_cut_off_is_repeated(url: str, monkeypatch: pytest.MonkeyPatch, calls: int):
    as_version(made(url), 1)
    real, left = optuna.Study.set_user_attr, [calls]

    def dying(self: optuna.Study, key: str, value: Any) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        real(self, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "set_user_attr", dying)
        with pytest.raises(KeyboardInterrupt):
            list(upgrade(url))
    list(upgrade(url))
    _, config = load_study(open_storage(url), "one")
    assert config.evaluation.pruner == "none"


@pytest.mark.parametrize("version", [keys.SCHEMA_VERSION + 1, 0, None, "2"])
def test_a_study_of_another_optevo_is_refused(url: str, version: Any):
    study = made(url)
    study.set_user_attr(keys.SCHEMA, version)
    with pytest.raises(UserError, match=f"schema version {version}"):
        list(upgrade(url))


def test_studies_of_others_are_left_as_they_are(url: str):
    study = optuna.create_study(study_name="theirs", storage=open_storage(url, create=True))
    assert "left as it is" in list(upgrade(url))[1]
    assert study.user_attrs == {}


def test_optunas_tables_of_an_older_version_are_upgraded(url: str):
    made(url)
    storage = optuna.storages.RDBStorage(url)
    head, versions = storage.get_head_version(), storage.get_all_versions()
    before = versions[versions.index(head) + 1]
    storage._version_manager._set_alembic_revision(before)  # an empty step back is enough to be refused
    with pytest.raises(UserError, match="optevo storage upgrade"):
        open_storage(url)
    assert storage.get_current_version() == before
    lines = list(upgrade(url))
    assert lines[0] == f"Optuna's tables: {before} → {head}"
    open_storage(url)


def test_optunas_tables_of_a_newer_version_are_refused(url: str):
    storage = made(url)._storage
    with closing(storage._backend.engine.raw_connection()) as connection:  # type: ignore[attr-defined]
        connection.cursor().execute("UPDATE alembic_version SET version_num = 'v9.9.9'")
        connection.commit()
    with pytest.raises(UserError, match="install a newer Optuna"):
        list(upgrade(url))
