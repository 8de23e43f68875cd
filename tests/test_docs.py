"""README and docs: links lead somewhere, files and commands exist, the tree is the tree, lines are short."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
import typer.main
from test_imports import WALLS

from optevo.cli.main import app

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ("optevo", "analysis", "studies", "tests", "docs")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def parts(page: Path) -> Iterator[tuple[str, str]]:
    """Every line with the language of the block of code that it stands in, "" outside of one."""
    language = ""
    for line in page.read_text("utf-8").splitlines():
        if line.startswith("```"):
            assert not (language and line != "```"), f"{page.name}: a block in a block: {line}"
            language = "" if language else line[3:] or "text"
        else:
            yield language, line
    assert not language, f"{page.name}: a block of code is not closed"


def prose(page: Path) -> list[str]:
    return [line for language, line in parts(page) if not language]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    titles = [line.lstrip("#").strip() for line in prose(page) if re.match(r"#+ ", line)]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_is_short():
    assert len(README.read_text("utf-8").splitlines()) <= 150


@pages
def test_no_line_is_long(page: Path):
    """Tables may be wider, and what a command prints; a line that is one long address can't be broken."""
    long = []
    for language, line in parts(page):
        printed = language in ("text", "console") and not re.match(r"(\w+)?\$ |> ", line)
        if len(line) > 100 and not printed and not line.startswith("|") and " " in line.strip():
            long.append(f"{len(line)}: {line}")
    assert not long, "\n".join(long)


@pages
def test_a_relative_link_leads_somewhere(page: Path):
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", "\n".join(prose(page))):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            dead.append(target)
    assert not dead, f"{page.name}: {dead}"


@pages
def test_a_file_that_is_named_exists(page: Path):
    text = page.read_text("utf-8")
    named = re.findall(r"`([^`\s]+)`", "\n".join(prose(page)))
    named += re.findall(rf"(?<![\w/.])(?:{'|'.join(FOLDERS)})/[\w./*-]+", text)
    missing = []
    for path in dict.fromkeys(named):
        if path.split("/")[0] in FOLDERS and "/" in path and not list(ROOT.glob(path.rstrip("/."))):
            missing.append(path)
    assert not missing, f"{page.name}: {missing}"


@pages
def test_a_module_that_is_run_exists(page: Path):
    for module in re.findall(r"python -m ([\w.]+)", page.read_text("utf-8")):
        assert importlib.util.find_spec(module) is not None, module


def commands(page: Path) -> Iterator[list[str]]:
    """What is typed: each call of optevo, in words."""
    for block in blocks(page, "console"):
        whole = block.replace("\\\n>", " ")
        for line in re.findall(r"^(?:\w*\$|>) +(.*)$", whole, flags=re.MULTILINE):
            typed = re.search(r"(?:^|[ /])optevo +([a-z].*)", line.split(" #")[0])
            if typed and "'" not in typed[1]:
                yield shlex.split(typed[1])
    for typed in re.findall(r"`optevo ([a-z][^`]*)`", "\n".join(prose(page))):
        yield typed.split()


@pages
def test_a_command_and_its_options_exist(page: Path):
    for words in commands(page):
        found = typer.main.get_command(app)
        rest = list(words)
        while rest and hasattr(found, "commands"):
            name = rest.pop(0)
            assert name in found.commands, f"optevo {' '.join(words)}: there is no {name}"
            found = found.commands[name]
        options = {option for parameter in found.params for option in parameter.opts}
        for word in rest:
            option = word.split("=")[0]
            assert not option.startswith("--") or option in {*options, "--help"}, f"optevo {' '.join(words)}"


def test_every_page_is_in_the_index():
    index = ROOT / "docs" / "README.md"
    linked = set(re.findall(r"\]\(([\w.]+)\)", index.read_text("utf-8")))
    assert linked == {page.name for page in PAGES if page not in (README, index)}


def tree() -> dict[str, str]:
    """The tree of the architecture page: paths below `optevo/`, folders with a slash, and what they are."""
    (block,) = [b for b in blocks(ROOT / "docs" / "architecture.md", "text") if b.startswith("optevo/\n")]
    found, folders = dict[str, str](), list[str]()
    for line in block.splitlines()[1:]:
        indent, name, words = re.match(r"( *)(\S+) +(\S.*)", line).groups()
        depth = len(indent) // 2 - 1
        path = "".join([*folders[:depth], name])
        assert path not in found, f"{path} stands in the tree twice"
        found[path] = words
        if name.endswith("/"):
            folders = [*folders[:depth], name]
    return found


def test_the_tree_is_the_folders():
    package = ROOT / "optevo"
    modules = {p for p in package.rglob("*.py") if not p.name.startswith("__")}
    rooms = {p.parent for p in package.rglob("__init__.py")} - {package}
    there = {str(p.relative_to(package)) for p in modules} | {f"{p.relative_to(package)}/" for p in rooms}
    drawn = set(tree())
    wrong = [f"delete {path}" for path in sorted(drawn - there)]
    for path in sorted(there - drawn):
        folder, name = re.fullmatch(r"(.*/|)([^/]+/?)", path).groups()
        wrong.append(f"add in optevo/{folder}:\n{'  ' * (folder.count('/') + 1)}{name:<15}  {said(path)}")
    assert not wrong, "the tree in docs/architecture.md is not that of optevo/:\n" + "\n".join(wrong)


def said(path: str) -> str:
    """The first line of a module's or package's docstring."""
    file = ROOT / "optevo" / (f"{path}__init__.py" if path.endswith("/") else path)
    return file.read_text("utf-8").splitlines()[0].strip('"')


def test_the_walls_are_those_of_the_imports():
    rooms = {name for name in WALLS if (ROOT / "optevo" / name).is_dir()} | {"run"}
    told = {}
    for line in prose(ROOT / "docs" / "architecture.md"):
        row = re.match(r"\| `(\w+)` \| (.*) \|$", line)
        if row and row[1] in rooms:
            told[row[1]] = set(re.findall(r"`(\w+)`", row[2]))
    assert told == {name: WALLS[name] & rooms for name in rooms}


def test_the_readmes_python_runs(monkeypatch: pytest.MonkeyPatch):
    """With a training loop, a model and data for those that it leaves to its reader."""

    def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, schedule: object) -> float:
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(16, 64, generator=generator)
        for _ in range(3):
            optimizer.zero_grad()
            loss = model(inputs).square().mean()
            loss.backward()
            optimizer.step()
            schedule.step()
        return -loss.item() if torch.isfinite(loss) else -1.0

    evolved = ModuleType("evolved")
    source = (ROOT / "studies" / "results" / "own_search" / "evolved.py").read_text("utf-8")
    exec(compile(source, "evolved.py", "exec"), evolved.__dict__)
    monkeypatch.setitem(sys.modules, "evolved", evolved)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        batches = [(torch.randn(8, 4), torch.randint(0, 3, (8,)))] * 2
        names = {
            "train": train,
            "model": torch.nn.Linear(4, 3),
            "loader": batches,
            "total_steps": len(batches),
            "__name__": "readme",
        }
        written = blocks(README, "python")
        assert written
        for block in written:
            exec(compile(block, "README.md", "exec"), names)
    assert len(names["study"].trials) == 100
    task = names["Rings"]()
    splits = task.load(Path())
    scores = task.model(torch.Generator().manual_seed(0))(splits["train"].inputs)
    assert scores.shape == (len(splits["train"]), len(splits["train"].targets.unique()))
