"""A whole `optevo run`: what it prints, leaves, and survives."""

from __future__ import annotations

import contextlib
import io
import runpy
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY, Answer, run, said, write
from optuna.trial import TrialState

from optevo import keys
from optevo.cli import main as cli
from optevo.measurement.fresh_seeds import stored_result
from optevo.storage.opening import open_storage
from optevo.study.studies import COUNTED, load_study, search_trials

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer, list[str]]:
    """What `optevo run` leaves and prints, and the command lines of the processes that it started."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "study.toml").write_text(TINY)
    options = [
        "--storage",
        f"sqlite:///{folder / 'a.db'}",
        "--workers",
        "1",
        "--export",
        str(folder / "best.py"),
    ]
    started: list[str] = []
    popen = subprocess.Popen.__init__

    def noted(process: Any, command: Any, *rest: Any, **named: Any) -> None:
        started.append(" ".join(map(str, command)))
        popen(process, command, *rest, **named)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", noted)
        patch.setenv("COLUMNS", "200")
        patch.setattr(sys, "argv", ["optevo", "run", str(folder / "study.toml"), *options])
        out, status = io.StringIO(), 0
        with contextlib.redirect_stdout(out):
            try:
                cli.main()
            except SystemExit as error:
                status = error.code or 0
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert status == 0, out.getvalue()
    return folder, Answer(status, out.getvalue(), ""), started


@pytest.fixture
def finished(whole_run: tuple[Path, Answer, list[str]]) -> tuple[Path, Answer]:
    """A study that `optevo run` has completed, measured and exported; and what it printed."""
    return whole_run[:2]


def test_a_storage_reaches_the_workers_by_their_environment_alone(whole_run):
    folder, _, started = whole_run
    workers = [line for line in started if " worker " in line]
    assert workers
    assert not any("a.db" in line or str(folder) in line for line in workers)


def test_a_run_ends_with_a_table_of_presets_and_winner_and_writes_the_file(finished: tuple[Path, Answer]):
    folder, answer = finished
    for words in ("sgd", "adam", "±", "2 fresh seeds", "Δ =", "best.py"):
        assert words in answer.out
    assert runpy.run_path(str(folder / "best.py"), run_name="best")["Evolved"]


def test_a_complete_study_says_so_and_is_not_trained_again(optevo, finished: tuple[Path, Answer]):
    folder, first = finished
    url = f"sqlite:///{folder / 'a.db'}"
    before = (
        open_storage(url).get_all_studies()[0].user_attrs,
        len(load_study(open_storage(url), None)[0].trials),
    )
    answer = optevo("run", str(folder / "study.toml"), "--storage", url)
    assert answer.status == 0
    assert "is complete" in answer.out
    assert "±" in answer.out
    assert before == (
        open_storage(url).get_all_studies()[0].user_attrs,
        len(load_study(open_storage(url), None)[0].trials),
    )
    assert first.out.count("trial") > 0


@pytest.mark.slow
def test_a_file_with_a_larger_number_goes_on_and_a_smaller_one_is_refused(
    optevo, finished: tuple[Path, Answer]
):
    folder, _ = finished
    with (
        contextlib.closing(sqlite3.connect(folder / "a.db")) as source,
        contextlib.closing(sqlite3.connect("b.db")) as copy,
    ):
        source.backup(copy)
    shorter = write(TINY)
    longer = write(TINY.replace("n_generations = 1", "n_generations = 3"), "longer.toml")
    options = ["--storage", "sqlite:///b.db", "--workers", "2", "--export", "best.py"]
    answer = optevo("run", longer, *options)
    assert answer.status == 0
    for words in ("2 workers", "n_generations: 1 → 3", "±", "best.py"):
        assert words in answer.out
    study, one = load_study(open_storage("sqlite:///b.db"), None)
    assert len(search_trials(study, *COUNTED)) == one.n_trials == 6
    assert stored_result(study, one) is not None
    assert Path("best.py").is_file()
    assert "is complete" in optevo("run", longer, *options[:2]).out
    said(optevo("run", shorter, *options[:2]), "n_generations: 3 → 1", "gets no shorter", "another name")


def test_a_complete_study_shows_its_result_where_its_data_is_gone(
    optevo, finished: tuple[Path, Answer], monkeypatch: pytest.MonkeyPatch
):
    from optevo.errors import UserError  # noqa: PLC0415
    from optevo.tasks.vision import Digits  # noqa: PLC0415

    def gone(self: Digits, root: Path) -> None:
        raise UserError("no data")

    folder, _ = finished
    monkeypatch.setattr(Digits, "load", gone)
    answer = optevo("run", str(folder / "study.toml"), "--storage", f"sqlite:///{folder / 'a.db'}")
    assert answer.status == 0, answer.err


def test_show_and_export_best_are_the_winner_on_fresh_seeds(optevo, finished: tuple[Path, Answer]):
    folder, _ = finished
    url = f"sqlite:///{folder / 'a.db'}"
    winner = load_study(open_storage(url), None)[0].user_attrs[keys.RERUN]["winner"]
    assert f"trial {winner} of study" in optevo("show", "--storage", url).out
    assert optevo("export", "--storage", url, "--output", "again.py").status == 0
    assert Path("again.py").read_text() == (folder / "best.py").read_text()


def test_a_note_for_the_dashboard_holds_the_result(finished: tuple[Path, Answer]):
    folder, _ = finished
    study, _ = load_study(open_storage(f"sqlite:///{folder / 'a.db'}"), None)
    assert "±" in str(study._storage.get_study_system_attrs(study._study_id))


BROKEN = """
import sys
from optevo.tasks import TASKS, get_task
from optevo.tasks.vision import Digits

class Broken(Digits):
    name = "broken"
    def loss(self, model, batch):
        if "worker" in sys.argv:  # not in the rehearsal before the study
            raise {error}
        return super().loss(model, batch)
"""


@pytest.mark.parametrize(
    ("error", "workers"),
    [
        pytest.param("RuntimeError('a bug of the user')", "1", marks=pytest.mark.slow),
        pytest.param("RuntimeError('a bug of the user')", "2", marks=pytest.mark.slow),
        pytest.param("MemoryError('a bug of the user')", "1", marks=pytest.mark.slow),
        pytest.param("SystemExit('a bug of the user')", "1", marks=pytest.mark.slow),
    ],
)
def test_a_task_that_always_fails_ends_the_run_with_its_traceback(error: str, workers: str):
    Path("mine.py").write_text(BROKEN.format(error=error))
    text = TINY.replace('["digits"]', '["mine:Broken"]\ngate = false')
    text = text.replace("population_size = 2", "population_size = 8")
    answer = run("run", write(text), "--workers", workers, "--device", "cpu")
    assert answer.status not in (0, 130), answer
    assert "a bug of the user" in answer.out + answer.err
    assert "mine.py" in answer.out + answer.err
    study, _ = load_study(open_storage("sqlite:///optevo.db"), None)
    assert 3 <= len(study.trials) <= 3 * int(workers) + 2
    assert {trial.state for trial in study.trials} == {TrialState.FAIL}


@pytest.mark.slow
def test_trials_stops_after_so_many_and_the_next_run_goes_on():
    text, before = TINY.replace("population_size = 2", "population_size = 12"), 0
    for _ in range(2):
        answer = run("run", write(text), "--workers", "2", "--trials", "3", "--device", "cpu")
        assert "Traceback" not in answer.out + answer.err
        assert "the same command goes on" in answer.out
        study, _ = load_study(open_storage("sqlite:///optevo.db"), None)
        assert {trial.state for trial in study.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
        assert 3 <= len(study.trials) - before <= 4  # two workers may begin the last at the same moment
        before = len(study.trials)
    assert answer.status == 0  # what was asked for is done


@pytest.mark.slow
@pytest.mark.parametrize("name", ["--help", "-x"])
def test_a_study_whose_name_looks_like_an_option_runs(name: str):
    answer = run(
        "run", write(TINY.replace("tiny", name)), "--workers", "1", "--trials", "1", "--device", "cpu"
    )
    study, _ = load_study(open_storage("sqlite:///optevo.db"), name)
    assert len(study.trials) == 1, answer


@pytest.mark.slow
def test_a_tpe_study_with_two_workers_has_exactly_as_many_trials_as_it_says():
    text = TINY.replace('kind = "genetic"', 'kind = "tpe"\nn_trials = 9')
    text = "\n".join(
        line for line in text.splitlines() if not line.startswith(("population", "n_gen", "n_elites"))
    )
    answer = run("run", write(text), "--workers", "2", "--device", "cpu")
    assert answer.status == 0, answer
    study, _ = load_study(open_storage("sqlite:///optevo.db"), None)
    assert sum(keys.SURPLUS not in keys.ours(trial) for trial in study.trials) == 9


@pytest.mark.slow
def test_a_study_whose_every_trial_diverges_says_so():
    Path("mine.py").write_text(BROKEN.format(error="FloatingPointError"))
    answer = run("run", write(TINY.replace('["digits"]', '["mine:Broken"]')), "--workers", "1")
    said(answer, "no complete trial", "were pruned")
