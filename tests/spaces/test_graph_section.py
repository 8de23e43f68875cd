"""What a study file may say of the space of graphs."""

from __future__ import annotations

import math
from typing import Any

import pytest

from optevo.errors import UserError
from optevo.spaces import SPACES, GraphSpace
from optevo.study.config import parse_config

GENETIC = {"kind": "genetic", "population_size": 6, "n_generations": 3, "n_elites": 1}


def parsed(sampler: dict[str, Any], **space: Any) -> dict[str, Any]:
    study = {"name": "x", "space": {"kind": "graph", **space}, "sampler": sampler}
    evaluation = {"tasks": ["digits"], "steps": 1000, "rates": {}}
    return parse_config({**study, "evaluation": evaluation}, "this test").to_dict()


def test_a_study_file_makes_the_space_that_it_says():
    told = {"presets": ["opt10", "none g"], "as_published": True, "viable": False, "warmup": 0.2}
    space = parsed(GENETIC, **told)["space"]
    assert space == {"kind": "graph", "hold": 0.0, "edge_decay": 0.15, **told}
    assert parsed(GENETIC)["space"]["viable"] is True
    assert parsed({"kind": "tpe", "n_trials": 5}, viable=False)["space"]["presets"] == []
    made = SPACES["graph"].make(**{key: value for key, value in space.items() if key != "kind"})
    assert made.presets().keys() == {"opt10", "none g"}
    assert made.candidate(made.presets()["none g"]).warmup == 0.2


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"presets": ["opt10", "opt5"]}, ["space.presets.1", "opt5", "'over' is no operation"]),
        ({"presets": ["optt10"]}, ["space.presets.0", "did you mean 'opt10'"]),
        ({"presets": ["nesterov tanhh(g)"]}, ["space.presets.0", "at character", "did you mean 'tanh'"]),
        ({"presets": ["none tanh([sub(a1,a2)]*g)"]}, ["space.presets.0", "sub(a1,a2)", "expected 0 to 1"]),
        ({"presets": ["lookahead g"]}, ["space.presets.0", "'lookahead'", "nesterov"]),
        ({"presets": [3]}, ["space.presets.0", "nesterov g"]),
        ({"presets": "opt10"}, ["space.presets", "expected a list"]),
        ({"presets": ["opt10", "opt10"]}, ["space.presets", "'opt10' is named twice"]),
        ({"warmup": 0.6, "hold": 0.5}, ["space.hold", "0 to 0.4"]),
        ({"warmup": 1.5}, ["space.warmup = 1.5", "a share of the run or a number of steps"]),
        ({"warmup": math.inf}, ["space.warmup", "a share of the run or a number of steps"]),
        ({"edge_decay": 1.5}, ["space.edge_decay", "1.5"]),
        ({"viabel": True}, ["space.viabel", "did you mean 'space.viable'"]),
    ],
)
def test_what_is_wrong_in_a_study_file_is_named(space: dict[str, Any], said: list[str]):
    with pytest.raises(UserError) as error:
        parsed(GENETIC, **space)
    assert all(part in str(error.value) for part in said), error.value


@pytest.mark.parametrize("evaluation", [{}, {"screening": {"rates": {}, "steps": 1000}}])
def test_graphs_without_learning_rate_trials_are_refused(evaluation: dict[str, Any]):
    sampler = {"kind": "particle", "initial_size": 4, "n_particles": 2}
    study = {"name": "x", "space": {"kind": "graph"}, "sampler": sampler}
    with pytest.raises(UserError, match=r"'evaluation.rates' is missing: of the space 'graph'"):
        parse_config({**study, "evaluation": {"tasks": ["digits"], **evaluation}}, "this test")


def test_a_grid_of_graphs_is_refused():
    with pytest.raises(UserError, match="a grid is for a baseline's space"):
        parsed({"kind": "grid"})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"presets": ("opt6",)}, "'opt6' is no graph of the space"),
        ({"edge_decay": -0.1}, "Invalid edge_decay"),
        ({"warmup": 0.5, "hold": 0.6}, "Invalid hold"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        GraphSpace(**arguments)
