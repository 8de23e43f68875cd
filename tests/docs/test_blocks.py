"""Every block of code of README and docs: run, or held against what would run it.

Budgets are cut for the test, see `small`. Blocks of the pages in `FOLLOWED` are run to the letter by
`test_followed.py`. What is only checked in form stands in `FORM` with its reason.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import pytest
import torch
import typer.main
from command_line import stored
from documents import PAGES, README, ROOT, Block, calls, fenced, mentions, typed

from optevo.cli.main import app
from optevo.study.config import StudyConfig, parse_config, parse_stages

FOLLOWED = {"quickstart.md", "tutorial.md"}
#: A page and how a block of it begins, to why that block is only checked in form.
FORM = {
    ("README.md", "┏━"): "what the quickstart printed; tests/analysis/test_results.py holds its numbers",
    ("architecture.md", "study file ─►"): "a drawing",
    ("architecture.md", "optevo/"): "a tree; test_pages.py compares it with the folders",
    ("clusters.md", "db.example.org:5432"): "a line of another program's file",
    ("clusters.md", "cluster = SLURM"): "wants a Slurm cluster",
    ("joint_search.md", "generation 4/4"): "what a search printed",
    ("joint_search.md", "operations ≤"): "a formula",
    ("names.md", "Δ ="): "a formula",
}
#: Languages of which blocks are only checked in form, to the reason.
FOREIGN = {
    "sql": "wants a database server",
    "bash": "job scripts want a cluster; their syntax is checked",
    "dockerfile": "wants a container engine",
    "yaml": "wants a cluster",
}
#: Commands that look and change nothing: run on a small database where all their arguments are in it.
CHEAP = ("status", "show", "export", "repair", "storage save", "data check")
STUDIES = ("quickstart", "quickstart_adamw")

BLOCKS = [block for page in PAGES for block in fenced(page)]
PYTHON = list(dict.fromkeys(block.page for block in BLOCKS if block.language == "python"))
PARSER = typer.main.get_command(app)


def of(*languages: str) -> pytest.MarkDecorator:
    chosen = [block for block in BLOCKS if block.language in languages]
    return pytest.mark.parametrize("block", chosen, ids=str)


def reason(block: Block) -> str | None:
    """Why a block is only checked in form, None where it is run."""
    if block.page.name in FOLLOWED and block.page != README:
        return "test_followed.py runs the page to the letter"
    for (page, beginning), why in FORM.items():
        if block.page.name == page and block.text.startswith(beginning):
            return why
    return FOREIGN.get(block.language)


def test_every_block_is_run_or_has_a_reason():
    """A language that nobody runs, output and drawings need one; and no reason is left over."""
    run = {"python", "console", "toml"}
    without = [str(block) for block in BLOCKS if block.language not in run and reason(block) is None]
    assert not without, f"run them, or say in FORM why not: {without}"
    used = {key for key in FORM for b in BLOCKS if b.page.name == key[0] and b.text.startswith(key[1])}
    assert used == set(FORM)


# ---- python


@pytest.fixture
def small(here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies of ten trials, one after another, whatever a block says."""
    optimize = optuna.Study.optimize

    def few(study: optuna.Study, objective: Any, n_trials: int | None = None, **options: Any) -> None:
        optimize(study, objective, n_trials=min(n_trials or 10, 10), **{**options, "n_jobs": 1})

    monkeypatch.setattr(optuna.Study, "optimize", few)


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, schedule: Any) -> float:
    """The training loop that the README leaves to its reader."""
    inputs = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        optimizer.zero_grad()
        loss = model(inputs).square().mean()
        loss.backward()
        optimizer.step()
        schedule.step()
    return -loss.item() if torch.isfinite(loss) else -1.0


def given() -> dict[str, Any]:
    """What pages leave to their readers: a model, batches, a loop, and a study."""
    batches = [(torch.randn(8, 4), torch.randint(0, 3, (8,)))] * 2
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 3))
    model.embedding, model.layers = torch.nn.Embedding(5, 4), torch.nn.Linear(4, 4)
    study = optuna.create_study()
    study.add_trial(optuna.trial.create_trial(value=0.5, user_attrs={"optevo:stage": 1}))
    study.add_trial(optuna.trial.create_trial(value=0.4))
    return {
        "train": train,
        "model": model,
        "loader": batches,
        "total_steps": len(batches),
        "study": study,
        "__name__": "page",
    }


def exported(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exported file, importable as `evolved`."""
    evolved = ModuleType("evolved")
    source = (ROOT / "studies" / "results" / "own_search" / "evolved.py").read_text("utf-8")
    exec(compile(source, "evolved.py", "exec"), evolved.__dict__)
    monkeypatch.setitem(sys.modules, "evolved", evolved)


def run(page: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the blocks of a page leave behind, executed in order in one namespace."""
    exported(monkeypatch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        names = given()
        for block in fenced(page):
            if block.language == "python" and reason(block) is None:
                lines = "\n" * block.line + block.text  # so that a traceback names the page's line
                exec(compile(lines, str(page), "exec"), names)
    return names


CHECKS: dict[str, Callable[[dict[str, Any]], object]] = {
    "stages.md": lambda names: len(names["search"]) == 1,
    "sampler.md": lambda names: len(names["study"].trials) == 10,
}


@pytest.mark.parametrize("page", PYTHON, ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page: Path, small: None, monkeypatch: pytest.MonkeyPatch):
    Path("optunahub").symlink_to(ROOT / "optunahub")  # which a page names from the repository's root
    names = run(page, monkeypatch)
    assert CHECKS.get(page.name, bool)(names)
    for name in ("Rings", "Diabetes"):
        if name in names:
            task = names[name]()
            data = task.load(Path())["train"]
            model = task.model(torch.Generator().manual_seed(0))
            assert torch.isfinite(task.loss(model, (data.inputs[:8], data.targets[:8])))


@of("python")
def test_python_is_python(block: Block):
    compile(block.text, str(block), "exec")


# ---- console


def parsed(words: list[str], arguments: bool) -> None:
    """By the command line's own parser; nothing is executed."""
    found, name, rest = PARSER, "optevo", list(words)
    while hasattr(found, "commands"):
        while rest and rest[0].startswith("-"):  # options of all commands, such as --verbose
            option = rest.pop(0)
            assert option in {"--help", *(o for p in found.params for o in p.opts)}, f"{name}: no {option}"
        if not rest:
            return
        name = rest.pop(0)
        assert name in found.commands, f"optevo {' '.join(words)}: there is no {name}"
        found = found.commands[name]
    options = {
        option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    for word in rest:
        option = word.split("=")[0]
        assert not option.startswith("--") or option in {*options, "--help"}, f"optevo {' '.join(words)}"
    if arguments and "--help" not in rest:
        found.make_context(name, rest).close()


@of("console")
def test_what_is_typed_is_a_command(block: Block, here: None):
    lines = typed(block)
    assert lines, "a console block has prompts: `$ optevo …`"
    for words in calls(block):
        parsed(words, arguments=True)
    for line in lines:
        for target in re.findall(r"^make (\w+)", line):
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE), target
        for extra in re.findall(r"pip install .*\[([\w,]+)\]", line):
            assert set(extra.split(",")) <= set(EXTRAS), extra
        for module in re.findall(r"python -m ([\w.]+)", line):
            assert importlib.util.find_spec(module) is not None, module


EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_command_that_is_named_exists(page: Path):
    for words in mentions(page):
        parsed([word.split("\\|")[0] for word in words], arguments=False)


@pytest.mark.parametrize(
    "call", ["rum", "run study.toml --worker 2", "run", "--verbos run a", "data fetch x"]
)
def test_a_wrong_command_would_be_found(call: str):
    with pytest.raises(Exception, match=r"there is no|: no --|run study.toml --worker|Missing"):
        parsed(call.split(), arguments=True)


def test_a_block_knows_its_file_and_its_line(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A\n\nSave this as\n`a.toml`:\n\n```toml\nx = 1\n```\n\n```console\n$ b \\\n>   --c 1  # d\n```\n"
    )
    one, two = fenced(page)
    assert one == (page, 6, "toml", "x = 1\n", "a.toml")
    assert (two.line, two.file, [line.split() for line in typed(two)]) == (10, "", [["b", "--c", "1"]])


def cheap(words: list[str]) -> bool:
    call = " ".join(words)
    if "--help" in words or "--version" in words:
        return True
    elsewhere = re.search(r"://|\d|\.toml", call)  # another database, a trial's number
    return call.startswith(CHEAP) and not elsewhere


def test_commands_that_only_look_do(optevo: Callable[..., Any]):
    """Each that the pages type, once, in a folder with the studies that they speak of."""
    for name in STUDIES:
        stored(name, trials=1)
    here = [block for block in BLOCKS if block.language == "console" and reason(block) is None]
    looking = {shlex.join(words): words for block in here for words in calls(block) if cheap(words)}
    assert {"status", "show best --study quickstart"} <= set(looking)
    for call, words in looking.items():
        which = ["--study", STUDIES[0]] if "best" in words and "--study" not in words else []
        answer = optevo(*words, *which)
        assert answer.status == 0, (call, answer)
        assert (answer.out + answer.err).strip(), call


# ---- toml and the others

RATES: dict[str, Any] = {"steps": 8000, "rates": {}}
#: A page and how a block begins, to what of a study file it leaves out.
AROUND: dict[tuple[str, str], dict[str, Any]] = {
    ("study_files.md", '[space]\nkind = "adamw"'): {"sampler": {"kind": "grid"}},
    ("study_files.md", '[space]\nkind = "graph"'): {"evaluation": RATES},
    ("study_files.md", "[evaluation.rates]"): {"space": {"kind": "graph"}, "evaluation": RATES},
    ("study_files.md", "[evaluation.screening]"): {
        "space": {"kind": "graph"},
        "sampler": {"kind": "particle"},
        "evaluation": RATES,
    },
    ("joint_search.md", '[space]\nkind = "known"'): {
        "sampler": {"kind": "random", "n_trials": 8},
        "evaluation": RATES,
    },
}
SHORTEST = {"name": "page", "sampler": {"kind": "genetic"}, "evaluation": {"tasks": ["digits"]}}


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two nested tables as one; the other wins."""
    both = dict(one)
    for key, value in other.items():
        both[key] = merged(both[key], value) if isinstance(value, dict) and key in both else value
    return both


def study(data: dict[str, Any], block: Block) -> StudyConfig:
    """The study that a block describes, with what it leaves out."""
    around: dict[str, Any] = {}
    for (page, beginning), more in AROUND.items():
        if block.page.name == page and block.text.startswith(beginning):
            around = more
    return parse_config(merged(merged(SHORTEST, around), data), str(block))


@of("toml")
def test_a_study_file_loads(block: Block):
    data = tomllib.loads(block.text)
    if "stages" in data and "name" not in data:
        assert parse_stages(data, str(block), study({}, block)).stages
    elif not {"project", "build-system"} & set(data):  # those are another program's
        assert study(data, block).make_space() is not None


@of("bash")
def test_a_script_is_bash(block: Block):
    done = subprocess.run(["bash", "-n"], input=block.text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
