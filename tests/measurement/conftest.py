"""A finished search of two tasks, and the digits by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from measured_studies import config, create

from optevo.tasks.vision import Digits


@pytest.fixture(scope="module")
def searched() -> optuna.Study:
    """A finished search that is not to be written to."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return create(config())


@pytest.fixture
def study(searched: optuna.Study) -> optuna.Study:
    made = create(config(), trials=0)
    made.add_trials(searched.trials)
    return made


@pytest.fixture
def digits() -> tuple[Digits, dict[str, Any]]:
    task = Digits()
    return task, task.load(Path())
