"""Training for `compare` and `ablate`: how it is stopped, and whose the signals are afterwards."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import typer

from optevo.cli.winners import Machine

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def test_sigterm_stops_training_and_the_callers_handler_is_back():
    def measure(progress: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda signum, frame: received.append(signum))
    try:
        with pytest.raises(typer.Exit) as ended:
            Machine(1, "cpu", Path()).train(measure, "nothing", 1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert Machine(1, "cpu", Path()).train(lambda progress: "trained", "nothing", 1) == "trained"
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.exit_code == 130
    assert received == [signal.SIGTERM] * 2
