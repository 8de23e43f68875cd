"""Audit of the gate: some of what it refuses is trained all the same, and the search never knows."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from racing import Slots, Workers, config, noisy

from optevo import keys
from optevo.errors import UserError
from optevo.evaluation.audit import audit
from optevo.optim.graphs.equation import Equation
from optevo.optim.graphs.genome import GraphGenome
from optevo.optim.terms import gate as integrity
from optevo.optim.terms.gate import gate
from optevo.reporting.gate import gate_account
from optevo.spaces.graphs import preset_graph
from optevo.study.config import StudyConfig, parse_config
from optevo.tasks.roots import data_root
from optevo.training.bench import Bench

OURS = (keys.AUDIT, keys.GATE_SECONDS)


@pytest.fixture(autouse=True, scope="module")
def _quiet_and_quick() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(integrity, "gate", functools.cache(gate))  # most of what these studies would take
        yield
    optuna.logging.set_verbosity(before)


def without(slots: Slots, *names: str) -> Slots:
    return {slot: {k: v for k, v in found.items() if k not in names} for slot, found in slots.items()}


def audits(slots: Slots) -> dict[tuple[int, int], dict[str, Any]]:
    return {slot: found[keys.AUDIT] for slot, found in slots.items() if keys.AUDIT in found}


def refused(slots: Slots) -> set[tuple[int, int]]:
    return {slot for slot, found in slots.items() if found.get(keys.PRUNED_BY, "").startswith("gate")}


@pytest.fixture(scope="module")
def plain() -> Slots:
    return Workers(config()).play()


@pytest.fixture(scope="module")
def audited() -> Workers:
    world = Workers(config(gate_audit=0.5))
    world.play()
    return world


@pytest.fixture(scope="module")
def slots(audited: Workers) -> Slots:
    return audited.play()


def test_the_search_is_the_one_without_an_audit(plain: Slots, slots: Slots) -> None:
    assert without(slots, *OURS) == plain
    assert not any(key in found for found in plain.values() for key in OURS)


def test_about_the_share_of_those_refused_is_audited_and_nobody_else(slots: Slots) -> None:
    assert audits(slots).keys() < refused(slots)
    assert 0.25 < len(audits(slots)) / len(refused(slots)) < 0.75
    assert all(keys.GATE_SECONDS in found for found in slots.values())


@pytest.mark.parametrize("k", [1, 4])
def test_workers_and_groups_audit_the_same(slots: Slots, k: int) -> None:
    several = Workers(config(gate_audit=0.5, batch_candidates=k), 3).play(random.Random(2))
    if k == 1:
        assert without(several, keys.GATE_SECONDS) == without(slots, keys.GATE_SECONDS)
    else:  # who trains in a stack differs in the last bits, and so may whom they breed
        alone = Workers(config(gate_audit=0.5, batch_candidates=k)).play()
        assert audits(several) == audits(alone) != {}


def test_what_is_audited_has_all_its_runs_and_they_count_for_nothing(slots: Slots) -> None:
    for slot, found in audits(slots).items():
        runs = {(t, s): noisy(slots[slot][keys.CANONICAL], t, s) for t in ("digits", "mnist") for s in (0, 1)}
        if None in runs.values():
            assert found["fitness"] is None
        else:
            assert found["fitness"] == pytest.approx(sum(runs.values()) / 4)
            assert found["steps"] == 80
        assert slots[slot][keys.TRAINED_STEPS] == 0
        assert slots[slot][keys.RUNS] == []
        assert slots[slot]["state"] == TrialState.PRUNED
        assert slots[slot]["value"] is None


def test_a_task_that_raises_in_an_audit_fails_no_trial(plain: Slots) -> None:
    known: list[str] = [found[keys.CANONICAL] for slot, found in plain.items() if slot in refused(plain)]

    def score(canonical: str, task: str, seed: int) -> float | None:
        if canonical in known:
            raise RuntimeError("it climbs")
        return noisy(canonical, task, seed)

    world = Workers(config(gate_audit=1), score=score)
    slots = world.play()
    assert without(slots, *OURS) == plain
    assert audits(slots).keys() == refused(plain)
    errors = {(found["fitness"], found["error"]) for found in audits(slots).values()}
    assert errors == {(None, "RuntimeError: it climbs")}


def test_a_machine_that_fails_in_an_audit_fails_the_trial() -> None:
    def score(canonical: str, task: str, seed: int) -> float | None:
        raise MemoryError

    world = Workers(config(gate_audit=1), score=score)
    with pytest.raises(MemoryError):
        audit(GraphGenome(Equation.parse("none g")), world.benches[0], [(0, 0)], lambda: None)


def test_the_account_counts_whom_the_gate_refused_and_who_would_have_been_of_use(audited: Workers) -> None:
    found, slots = gate_account(audited.studies[0], audited.config), audited.play()
    assert found is not None
    assert (found.asked, found.refused) == (len(slots), len(refused(slots)))
    earned = {slot: one["fitness"] for slot, one in audits(slots).items() if one["fitness"] is not None}
    assert (found.audited, found.learned) == (len(audits(slots)), len(earned))
    assert found.steps == sum(one["steps"] for one in audits(slots).values())
    members = audited.studies[0].sampler.slot_table(audited.studies[0]).populations
    useful = 0
    for (generation, _), fitness in earned.items():
        best = sorted((m.value for m in members[max(0, generation - 1)] if m.complete), reverse=True)[:4]
        useful += fitness >= best[-1]
    assert found.useful == useful
    assert f"{found.audited} were trained all the same" in found.told()
    assert gate_account(audited.studies[0], config()) is None


# The study file


def parsed(space: dict[str, Any], **evaluation: Any) -> StudyConfig:
    settings = {"tasks": ["digits"], "steps": 20, "seeds": [0], "batch_size": 32, **evaluation}
    sampler = {"kind": "random", "n_trials": 8}
    return parse_config({"name": "a", "space": space, "sampler": sampler, "evaluation": settings}, "test")


def test_a_study_without_an_audit_is_stored_as_ever() -> None:
    terms = {"kind": "terms"}
    assert "gate_audit" not in parsed(terms, gate_audit=0).to_dict()["evaluation"]
    assert parsed(terms, gate_audit=0).fingerprint() == parsed(terms).fingerprint()
    assert parsed(terms, gate_audit=0.02).fingerprint() != parsed(terms).fingerprint()


@pytest.mark.parametrize(
    ("space", "evaluation", "said"),
    [
        ({"kind": "terms"}, {"gate": False, "gate_audit": 0.1}, "nothing is refused"),
        ({"kind": "terms"}, {"gate_audit": 1.5}, "less than or equal to 1"),
        ({"kind": "terms", "viable": True}, {"gate_audit": 0.1}, "set space.viable = false"),
        ({"kind": "graph"}, {"gate_audit": 0.1, "rates": {"epochs": 1, "epoch_steps": 5}}, "viable = false"),
    ],
)
def test_an_audit_of_a_gate_that_refuses_nobody_is_refused(
    space: dict[str, Any], evaluation: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        parsed(space, **evaluation)


def test_an_equation_that_the_sphere_refuses_is_trained_at_the_rate_that_its_trials_find() -> None:
    rates = {"epochs": 2, "epoch_steps": 10, "first_threshold": 0, "threshold": 0, "full_epochs": 2}
    settings = parsed({"kind": "graph", "viable": False}, rates=rates, gate_audit=1)
    space = settings.make_space()
    climbs = space.candidate(space.params(preset_graph("none abs(g)")))
    assert climbs.gate() is not None
    found = audit(climbs, Bench(settings, "cpu", data_root()), [(0, 0)], lambda: None)
    assert found["fitness"] is not None
    assert found["steps"] >= 20
