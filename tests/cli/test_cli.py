"""The commands: what they print, what they refuse, and that no refusal changes a storage."""

from __future__ import annotations

import io
import runpy
import sys
from pathlib import Path

import optuna
import pytest
from command_line import HOSTILE, TINY, dump, run, said, stored, told, write
from optuna.trial import TrialState
from rich.console import Console

from optevo import keys
from optevo.reporting.progress import SearchProgress
from optevo.storage.opening import open_storage
from optevo.study.studies import create_or_resume, load_study
from optevo.tasks.roots import NOWHERE

pytestmark = pytest.mark.usefixtures("here")


# Bad input


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "tiny"', 'name = "tiny', ["not valid TOML"]),
        ("steps = 3", "stepz = 3", ["unknown key", "evaluation.stepz"]),
        ("steps = 3", 'steps = "three"', ["evaluation.steps", "three", "integer"]),
        ("steps = 3", "steps = 0", ["evaluation.steps = 0", "greater than"]),
        ('["digits"]', '["speech"]', ["speech", "digits"]),
        ('["digits"]', '["nowhere:Task"]', ["nowhere:Task", "module"]),
        ('["digits"]', '["os:nothing"]', ["os:nothing"]),
        ('["digits"]', '["os:getcwd"]', ["os:getcwd", "Task"]),
        ('["digits"]', '["os:sep"]', ["os:sep", "function"]),
        ('["digits"]', '[":"]', ["module:function"]),
        ('["digits"]', '[".here:Task"]', [".here:Task"]),
        ('["digits"]', '["a..b:Task"]', ["a..b:Task"]),
        ('["digits"]', '["../x:Task"]', ["../x:Task"]),
        ('["digits"]', '[{ name = "digits", options = { size = 3 } }]', ["options", "size"]),
        ('["digits"]', '[{ name = "mnist", options = { train_examples = 0 } }]', ["train_examples"]),
        ('["digits"]', '[{ name = "mnist", options = { train_examples = "all" } }]', ["train_examples"]),
        ("steps = 3", "steps = 3\nbatch_size = 5000", ["batch_size", "5000"]),
        ('kind = "genetic"', 'kind = "annealing"', ["annealing", "genetic"]),
        ("[space]", '[space]\nkind = "trees"', ["trees", "terms"]),
        ('["sgd", "adam"]', '["lion"]', ["lion", "adamw"]),
        ('["digits"]', '["fashion_mnist"]', ["fashion_mnist", "optevo data get"]),
    ],
)
def test_a_bad_study_file_is_refused_before_anything_is_written(optevo, old: str, new: str, words: list[str]):
    assert old in TINY
    said(optevo("run", write(TINY.replace(old, new)), "--data-dir", "nodata"), *words)
    assert [path.name for path in Path().iterdir()] == ["study.toml"]


def test_a_bad_study_file_is_refused_in_a_process_of_its_own():
    said(run("run", write(TINY.replace("steps = 3", "steps = -3"))), "study.toml", "evaluation.steps = -3")
    assert [path.name for path in Path().iterdir()] == ["study.toml"]


@pytest.mark.parametrize("file", ["nothing.toml", ".", "nowhere/x.toml"])
def test_a_study_file_that_is_not_there_is_refused(optevo, file: str):
    said(optevo("run", file), file)


@pytest.mark.parametrize("device", ["cuda", "cuda:3", "gpu", "cuda:x", ""])
def test_a_device_that_is_not_there_is_refused(optevo, device: str):
    torch = pytest.importorskip("torch")
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    said(optevo("run", write(TINY), "--device", device), "cpu")
    assert not Path("optevo.db").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--workers", "0"],
        ["--workers", "two"],
        ["--trials", "0"],
        ["--trials", "-1"],
        ["--export", "."],
        ["--export", "nowhere/x.py"],
        ["--storage", "optevo.db"],
        ["--storage", "sqlite:///nowhere/a.db"],
        ["--storage", "sqlite://"],
        ["--storage", "sqlite:///study.toml"],
        ["--storage", "postgresql+psycopg://u:topsecret@127.0.0.1:1/d"],
    ],
    ids=" ".join,
)
def test_a_bad_option_of_run_is_refused_before_anything_is_written(optevo, options: list[str]):
    answer = optevo("run", write(TINY), *options)
    said(answer)
    assert "topsecret" not in answer.err
    assert [path.name for path in Path().iterdir()] == ["study.toml"]
    assert Path("study.toml").read_text() == TINY


@pytest.mark.parametrize(
    "command", [["status"], ["show"], ["export"], ["show", "3"], ["dashboard"]], ids=" ".join
)
@pytest.mark.parametrize(
    "url", ["sqlite:///no.db", "x", "sqlite://", "sqlite:///text.db", "sqlite:///empty.db"]
)
def test_a_bad_storage_is_refused_by_every_command(optevo, command: list[str], url: str):
    Path("text.db").write_text("nothing of the kind")
    Path("empty.db").touch()
    said(optevo(*command, "--storage", url))
    assert not Path("no.db").exists()
    assert Path("text.db").read_text() == "nothing of the kind"
    assert Path("empty.db").read_bytes() == b""


def test_a_changed_study_file_is_refused_with_the_keys_that_differ(optevo):
    file = write(TINY)
    from optevo.study.config import load_config  # noqa: PLC0415

    create_or_resume(load_config(Path(file)), open_storage("sqlite:///optevo.db", create=True), "cpu")
    before = dump()
    said(
        optevo("run", write(TINY.replace("steps = 3", "steps = 4"))),
        "evaluation.steps: 3 → 4",
        "another name",
    )
    assert dump() == before


def test_no_such_trial_is_refused(optevo):
    stored(trials=1)
    for which in ("3", "99", "worst", "-1", "1.5", "", "²", "9" * 5000):
        for command in ("show", "export"):
            said(optevo(command, "--", which))
    assert not Path("evolved.py").exists()


def test_no_such_study_is_refused_with_those_that_are(optevo):
    stored()
    for command in ("show", "export"):
        said(optevo(command, "--study", "other"), "other", "tiny")


def test_several_studies_need_a_name(optevo):
    stored("first", 1)
    stored("second", 1)
    for command in ("show", "export"):
        said(optevo(command), "first, second", "--study")
        assert optevo(command, "--study", "second").status == 0


def test_an_empty_study_cannot_be_exported_or_shown(optevo):
    stored()
    said(optevo("export"), "no complete trial")
    said(optevo("show"), "no complete trial")
    assert not Path("evolved.py").exists()


def test_a_class_name_that_python_does_not_take_is_refused(optevo):
    stored(trials=1)
    for name in ("not a name", "class", "1st", "", "Größe!"):
        said(optevo("export", "0", "--class-name", name))
    assert not Path("evolved.py").exists()


def test_an_output_that_cannot_be_written_is_refused(optevo):
    stored(trials=1)
    for output in (".", "nowhere/x.py"):
        said(optevo("export", "0", "--output", output), output)


def test_data_that_is_unknown_is_refused(optevo):
    said(optevo("data", "check", "speech"), "speech")
    said(optevo("data", "get", "speech"), "speech")


def test_the_hidden_worker_command_without_a_storage_is_refused(optevo):
    said(optevo("worker", "tiny"))


@pytest.mark.usefixtures("homeless")
def test_a_worker_without_a_home_has_no_data_root_until_it_needs_one(optevo, monkeypatch: pytest.MonkeyPatch):
    roots: list[Path] = []
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # which the command replaces, as stderr
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr("optevo.liveness.processes.die_with_parent", lambda: None)
    monkeypatch.setattr(
        "optevo.workers.worker.work", lambda *study, data_root, **options: roots.append(data_root)
    )
    monkeypatch.setenv("OPTEVO_STORAGE", "sqlite:///optevo.db")
    assert optevo("worker", "tiny", "--parent", "1").status == 0
    assert roots == [NOWHERE]


# Reading


def test_status_shows_every_study_and_those_of_other_programs(optevo, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    stored("first", 2)
    stored("second")
    optuna.create_study(study_name="theirs", storage=open_storage("sqlite:///optevo.db"))
    answer = optevo("status")
    assert answer.status == 0
    for words in (("first", "2/3"), ("second", "0/3"), ("theirs", "not made by optevo")):
        assert any(all(word in line for word in words) for line in answer.out.splitlines()), answer.out


def test_status_shows_the_others_beside_a_study_of_another_version(optevo):
    stored("first", 1)
    stored("future").set_user_attr(keys.SCHEMA, 99)
    answer = optevo("status")
    assert answer.status == 0
    assert "first" in answer.out


def test_status_of_an_empty_database_says_so(optevo):
    open_storage("sqlite:///optevo.db", create=True)
    assert "no study" in optevo("status").out


def test_show_tells_a_trials_rule_lineage_and_runs(optevo):
    stored(trials=3)
    answer = optevo("show", "1")
    assert answer.status == 0
    for words in ("trial 1 of study 'tiny': COMPLETE", "Δ =", "preset adam", "digits, seed 0: metric"):
        assert words in answer.out


def test_show_best_before_the_end_is_the_fittest_so_far(optevo):
    study = stored(trials=2)
    assert f"trial {study.best_trial.number} of" in optevo("show").out


def test_a_trial_that_was_killed_at_any_moment_can_be_looked_at(optevo):
    values = {keys.FORMULA: "Δ = g", keys.HYPERPARAMETERS: "lr 1", keys.GENERATION: 0, keys.SLOT: 0}
    moments = ([], [keys.FORMULA], [keys.FORMULA, keys.HYPERPARAMETERS], [keys.GENERATION, keys.SLOT])
    for i, kept in enumerate(moments):
        stored(str(i)).add_trial(
            optuna.trial.create_trial(state=TrialState.FAIL, user_attrs={key: values[key] for key in kept})
        )
    assert optevo("status").status == 0
    for i in range(len(moments)):
        for command in (["show", "0"], ["export", "0"], ["show"]):
            assert optevo(*command, "--study", str(i)).status in (0, 2)


def test_a_study_without_generations_can_be_looked_at(optevo):
    stored(trials=3, sampler={"kind": "tpe", "n_trials": 4})
    assert "tpe" in optevo("status").out
    assert optevo("show", "2").status == 0
    assert optevo("export", "2").status == 0


# Exported files


def test_an_exported_file_checks_itself(optevo):
    stored(trials=3)
    for which in ("best", "0", "2"):
        answer = optevo("export", which, "--output", "winner.py", "--class-name", "Winner")
        assert answer.status == 0
        assert "from winner import Winner" in answer.out
        try:
            runpy.run_path("winner.py", run_name="__main__")
        except SystemExit as error:
            assert not error.code  # noqa: PT017
        text = Path("winner.py").read_text(encoding="utf-8")
        for words in ("tiny", "digits", "steps", "fitness", "validation"):
            assert words in text


@pytest.mark.slow
def test_a_study_of_any_name_can_be_looked_at_exported_and_watched(optevo, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    names = [*HOSTILE, "[link=x]y"]
    for name in names:
        told(name)
    shown = optevo("status")
    assert shown.status == 0
    for name in names:
        assert name.split("\n", maxsplit=1)[0].strip()[:40] in shown.out
        assert name.split("\n", maxsplit=1)[0].strip() in on_a_terminal(name)
        assert optevo("show", "0", f"--study={name}").status == 0
        if not set(name) & set("'\"\\{%-\n"):
            continue  # harmless in Python, and to the command line
        answer = optevo("export", "0", f"--study={name}", "--output", "winner.py")
        assert answer.status == 0, answer
        compile(Path("winner.py").read_text(encoding="utf-8"), "winner.py", "exec")
        assert runpy.run_path("winner.py", run_name="winner")["Evolved"]
    assert {path.name for path in Path().iterdir()} <= {
        "winner.py",
        "optevo.db",
        "optevo.db-wal",
        "optevo.db-shm",
    }


def on_a_terminal(name: str) -> str:
    loaded, one = load_study(open_storage("sqlite:///optevo.db"), name)
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=300, color_system=None)
    console.print(SearchProgress(loaded, one).table())
    return file.getvalue()


def test_a_failure_of_any_text_can_be_watched_on_a_terminal():
    stored().add_trial(
        optuna.trial.create_trial(state=TrialState.FAIL, user_attrs={keys.ERROR: "x\nexpected [/3] got [2]"})
    )
    assert "expected [/3] got [2]" in on_a_terminal("tiny")
