"""`promote` and `[[stages]]` in a study file and in one of their own: right, or a message that says what."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from small_studies import config

from optevo.errors import UserError
from optevo.study.config import load_stages, parse_stages

ROOT = Path(__file__).parents[2]
ONE = {"name": "one", "keep": 2}
RATES = {"first": [0.1], "more": [], "epochs": 1, "epoch_steps": 4, "full_epochs": 2}


def stages(*several: dict[str, Any], promote: int = 4, **changes: Any) -> list[Any]:
    """The stages of a study file."""
    return list(config(promote=promote, stages=list(several), **changes).stages)


def refusal(data: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        config(**data)
    return str(caught.value)


def test_stages_are_no_part_of_the_search():
    alone, with_stages = config(), config(promote=4, stages=[ONE])
    assert alone.fingerprint() == with_stages.fingerprint()
    assert "stages" not in alone.to_dict()
    assert "promote" not in alone.to_dict()
    assert config(**with_stages.to_dict()) == with_stages


def test_a_stage_has_the_studys_evaluation_but_for_what_it_says():
    (stage,) = stages({**ONE, "steps": 9, "seeds": [4]}, evaluation__batch_candidates=3)
    one = config(promote=4, stages=[ONE], evaluation__batch_candidates=3)
    evaluation = one.staged(stage).evaluation
    assert (evaluation.steps, evaluation.seeds) == (9, (4,))
    assert evaluation.tasks == one.evaluation.tasks
    assert (evaluation.gate, evaluation.pruner, evaluation.batch_candidates) == (False, "none", 1)
    assert one.staged(stage).stages == ()


def test_a_stage_has_nothing_of_the_cheap_evaluation():
    graphs = {"kind": "graph"}
    sampler = {"kind": "particle", "initial_size": 8, "n_particles": 2, "n_mutations": 2}
    changes = {"space": graphs, "sampler": sampler, "evaluation__rates": RATES}
    one = config(promote=4, stages=[ONE], evaluation__screening={"steps": 4}, **changes)
    evaluation = one.staged(one.stages[0]).evaluation
    assert evaluation.screening is None
    assert evaluation.rates == one.evaluation.rates
    (stage,) = stages({**ONE, "steps": 50, "rates": {**RATES, "epochs": 5}}, **changes)
    assert one.staged(stage).evaluation.rates.epochs == 5


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"stages": [ONE]}, "key 'promote' is missing: it says how many of the search's best"),
        ({"promote": 3}, "promote = 3: there are no [[stages]]"),
        ({"promote": 0, "stages": [ONE]}, "promote = 0: Input should be greater than or equal to 1"),
        ({"promote": 1, "stages": [ONE]}, "stages.0.keep = 2: no more than 1 enter this stage"),
        ({"promote": 4, "stages": [{"keep": 1}]}, "key 'stages.0.name' is missing"),
        ({"promote": 4, "stages": [{**ONE, "step": 5}]}, "'stages.0.step': did you mean 'stages.0.steps'?"),
        ({"promote": 4, "stages": [{**ONE, "gate": True}]}, "unknown key 'stages.0.gate'"),
        ({"promote": 4, "stages": [ONE, ONE]}, "stages: 'one' is named twice"),
        ({"promote": 4, "stages": [{**ONE, "tasks": ["digit"]}]}, 'stages.0.tasks.0.name = "digit"'),
        ({"promote": 4, "stages": [{**ONE, "seeds": []}]}, "stages.0.seeds = []"),
        ({"promote": 4, "stages": [{**ONE, "rates": {}}]}, "stages.0.rates: of the space 'terms'"),
        ({"promote": 4, "stages": ["one"]}, 'stages.0 = "one": expected a table'),
        ({"promote": 4, "stages": {}}, "stages: Input should be a valid list"),
        ({"promot": 4, "stages": [ONE]}, "unknown key 'promot': did you mean 'promote'?"),
    ],
)
def test_what_is_wrong_is_named(data: dict[str, Any], said: str):
    assert f"test: {said}" in refusal(data) or f"test: unknown key {said}" in refusal(data)


def test_a_stage_that_does_not_go_with_the_study_is_named():
    graphs = {"kind": "graph"}
    sampler = {"kind": "random", "n_trials": 3}
    data = {"space": graphs, "sampler": sampler, "evaluation__rates": RATES}
    said = refusal({**data, "promote": 4, "stages": [{**ONE, "steps": 3}]})
    assert "stages.0.rates: a trial of epochs × epoch_steps = 4 steps is longer than the run" in said


def test_a_file_of_stages_is_checked_as_a_study_file_is(tmp_path: Path):
    file = tmp_path / "stages.toml"
    file.write_text('promote = 4\n[[stages]]\nname = "one"\nkeep = 5\n')
    with pytest.raises(UserError, match=re.escape(f"{file}: stages.0.keep = 5: no more than 4")):
        load_stages(file, config())
    file.write_text("promote = 4\nseed = 1\n")
    with pytest.raises(UserError, match="unknown key 'seed'") as caught:
        load_stages(file, config())
    assert "key 'stages' is missing" in str(caught.value)
    with pytest.raises(
        UserError, match=re.escape(f"no file of stages {tmp_path / 'stage.toml'}; did you mean")
    ):
        load_stages(tmp_path / "stage.toml", config())


def test_the_example_of_the_docs_is_right():
    (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "stages.md").read_text("utf-8"), re.DOTALL)
    pipeline = parse_stages(tomllib.loads(block), "docs/stages.md", config())
    assert [pipeline.entering(stage) for stage in range(4)] == [20, 8, 4, 0]
