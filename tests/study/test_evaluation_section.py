"""Learning-rate trials and screening in a study file: what is read, and what is refused by key."""

from __future__ import annotations

from typing import Any

import pytest
from sifting import sift

from optevo.errors import UserError
from optevo.study.config import StudyConfig, parse_config
from optevo.study.evaluation import RatesConfig

__all__ = ["sift"]
BASELINE = {"kind": "adamw", "lr": [1e-3]}
GENETIC = {"kind": "genetic", "population_size": 6, "n_generations": 3, "n_elites": 2}
SIFT = GENETIC | {"kind": "sift"}
RANDOM = {"kind": "random", "n_trials": 4}


def parsed(
    evaluation: dict[str, Any], sampler: dict[str, Any] = RANDOM, space: dict[str, Any] = BASELINE
) -> StudyConfig:
    data = {"name": "one", "space": space, "sampler": sampler}
    return parse_config(data | {"evaluation": {"tasks": ["digits"], "steps": 2000, **evaluation}}, "one.toml")


def refusal(*args: Any) -> str:
    with pytest.raises(UserError) as caught:
        parsed(*args)
    return str(caught.value)


def test_the_defaults_of_the_trials_are_the_published_ones():
    rates = parsed({"rates": {}}).evaluation.rates
    assert rates is not None
    assert rates.first == (10.0, 1e-2, 1e-5)
    assert rates.more == (1.0, 1e-1, 1e-3, 1e-4)
    assert (rates.epochs, rates.epoch_steps, rates.full_epochs) == (4, 200, 40)
    assert (rates.first_threshold, rates.threshold) == (0.25, 0.40)
    assert (rates.patience, rates.full_patience) == (3, 5)
    assert rates.trial_steps(2000) == 7 * 4 * 200
    assert rates.trial_steps(300) == 7 * 300


def test_a_study_without_the_keys_is_stored_as_it_was_before_there_were_any():
    config = parsed({})
    assert not {"rates", "screening"} & config.to_dict()["evaluation"].keys()
    assert config.fingerprint() == "755b2b44aa1a66b5"
    assert config.evaluation.model_dump(include={"steps", "split"}) == {"steps": 2000, "split": "validation"}
    assert config.evaluation.run_steps == 2000
    assert (config.screened(), config.evaluation.screened()) == (None, None)


def test_a_budget_of_operations_is_another_study_and_one_of_steps_is_not():
    assert parsed({"budget": "steps"}) == parsed({})
    assert "budget" not in parsed({"budget": "steps"}).to_dict()["evaluation"]
    equal = parsed({"budget": "flops"})
    assert equal.fingerprint() != parsed({}).fingerprint()
    assert parse_config(equal.to_dict(), "stored") == equal


@pytest.mark.usefixtures("sift")
def test_what_is_stored_is_read_back():
    evaluation = {
        "rates": {"first": [1, 0.1], "more": [], "epochs": 2, "epoch_steps": 5},
        "screening": {"tasks": ["mnist"], "steps": 90, "seeds": [3], "rates": {"epoch_steps": 10}},
    }
    config = parsed(evaluation, SIFT)
    assert parse_config(config.to_dict(), "stored") == config
    cheap = config.screened()
    assert cheap is not None
    assert cheap.evaluation.screening is None
    assert [task.name for task in cheap.evaluation.tasks] == ["mnist"]
    assert (cheap.evaluation.steps, cheap.evaluation.seeds) == (90, (3,))
    assert cheap.evaluation.rates == RatesConfig(epoch_steps=10)  # the whole table is another one
    assert cheap.evaluation.run_steps == 90 + 7 * 4 * 10
    assert config.evaluation.run_steps == 2000 + 2 * 2 * 5
    assert (cheap.evaluation.batch_size, cheap.sampler) == (128, config.sampler)
    assert config.without_screening() == parsed({"rates": evaluation["rates"]}, SIFT)


@pytest.mark.usefixtures("sift")
def test_what_screening_does_not_name_is_that_of_the_full_evaluation():
    config = parsed({"rates": {"full_epochs": 7}, "screening": {"batch_size": 32}}, SIFT)
    cheap = config.evaluation.screened()
    assert cheap is not None
    assert cheap.batch_size == 32
    assert cheap.model_copy(update={"batch_size": 128}) == config.without_screening().evaluation


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        ({"rates": {"first": []}}, "evaluation.rates.first = []"),
        ({"rates": {"first": [0.1, 0.1]}}, "evaluation.rates.first: 0.1 is named twice"),
        ({"rates": {"first": [0.0]}}, "evaluation.rates.first.0 = 0.0"),
        ({"rates": {"more": [0.01]}}, "evaluation.rates.more = [0.01]: 0.01 is one of the first"),
        ({"rates": {"epochs": 0}}, "evaluation.rates.epochs = 0"),
        ({"rates": {"threshold": float("nan")}}, "evaluation.rates.threshold = NaN"),
        ({"rates": {"epoch": 3}}, "unknown key 'evaluation.rates.epoch': did you mean"),
        ({"rates": 3}, "evaluation.rates = 3: expected a table"),
        (
            {"rates": {"epochs": 20}},
            "evaluation.rates: a trial of epochs × epoch_steps = 4000 steps is longer than the run",
        ),
        (
            {"rates": {"full_epochs": 2001}},
            "evaluation.rates: full_epochs = 2001 is more than the run",
        ),
        ({"rates": {}, "batch_candidates": 4}, "set evaluation.batch_candidates = 1"),
        ({"screening": {}}, "evaluation.screening: the sampler 'random' screens no generation; leave it out"),
        ({"screening": {"step": 3}}, "unknown key 'evaluation.screening.step': did you mean"),
        ({"screening": {"rates": {"epoch": 3}}}, "unknown key 'evaluation.screening.rates.epoch'"),
        ({"screening": {"tasks": [{"nam": "digits"}]}}, "'evaluation.screening.tasks.0.nam'"),
        ({"screening": {"steps": 0}}, "evaluation.screening.steps = 0"),
        ({"screening": {"seeds": [1, 1]}}, "evaluation.screening.seeds: 1 is named twice"),
        ({"screening": {"tasks": ["digts"]}}, 'evaluation.screening.tasks.0.name = "digts"'),
        ({"screening": {}, "pruner": "median"}, "pruner 'median' would compare screened trials with others"),
        ({"screening": {"steps": 90}, "rates": {}}, "= 800 steps is longer than the run, which has 90"),
        ({"screening": {"rates": {}}, "batch_candidates": 4}, "set evaluation.batch_candidates = 1"),
        ({"budget": "flop"}, "evaluation.budget = \"flop\": Input should be 'steps' or 'flops'"),
        ({"budget": "flops", "batch_candidates": 4}, "set evaluation.batch_candidates = 1"),
        ({"budget": "flops", "rates": {}}, 'evaluation.budget = "flops": runs that look for their own rate'),
        ({"budget": "flops", "screening": {"rates": {}}}, 'evaluation.budget = "flops": runs that look'),
    ],
    ids=str,
)
def test_what_is_wrong_is_named_by_its_key(evaluation: dict[str, Any], said: str):
    assert said in refusal(evaluation).replace("\n", " ")


def test_a_space_with_rates_of_its_own_has_no_trials():
    said = "evaluation.rates: of the space 'terms', candidates have a learning rate of their own"
    assert said in refusal({"rates": {}}, RANDOM, {"kind": "terms"})
    assert said in refusal({"screening": {"rates": {}}}, RANDOM, {"kind": "terms"})


def test_a_baselines_space_names_exactly_one_rate():
    said = "evaluation.rates: of the space 'adamw', lr names 5 rates; name exactly one"
    assert said in refusal({"rates": {}}, RANDOM, {"kind": "adamw"})
    assert parsed({"rates": {}}).make_space().own_rate is None
