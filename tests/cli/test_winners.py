"""Training for `compare` and `ablate`: how it is stopped, and whose the signals are afterwards."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import typer

from optevo.api import winners
from optevo.api.winners import Machine, trained_winner
from optevo.cli.options import told_when_interrupted
from optevo.errors import UserError
from optevo.spaces import GraphSpace
from optevo.training.run import Run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def test_sigterm_stops_training_and_the_callers_handler_is_back():
    def measure(progress: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda signum, frame: received.append(signum))
    try:
        with pytest.raises(typer.Exit) as ended, told_when_interrupted():
            Machine(1, "cpu", Path()).train(measure, "nothing", 1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert Machine(1, "cpu", Path()).train(lambda progress: "trained", "nothing", 1) == "trained"
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.exit_code == 130
    assert received == [signal.SIGTERM] * 2


def test_a_winner_that_found_no_rate_on_fresh_seeds_is_a_message(monkeypatch: pytest.MonkeyPatch):
    space, study = GraphSpace(presets=["nesterov g"], viable=False), optuna.create_study()
    study.enqueue_trial(space.presets()["nesterov g"])
    trial = study.ask()
    space.suggest(trial)
    study.tell(trial, 0.5)
    config: Any = SimpleNamespace(name="graphs", make_space=lambda: space)

    def winner(lr: float | None) -> Any:
        run = Run("digits", 0, 0.5, 0.5, 1.0, (), 10, 0.1, None, lr=lr)
        result = SimpleNamespace(winner=0, rows=[SimpleNamespace(runs=(run,))])
        monkeypatch.setattr(winners, "result_of", lambda *args: result)
        return trained_winner(study, config, Machine(1, "cpu", Path()))

    assert winner(0.1).lr == 0.1
    with pytest.raises(UserError, match=r"'graphs': no run of its winner, trial 0, .* found a learning rate"):
        winner(None)
