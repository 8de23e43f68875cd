"""README and docs: links lead somewhere, files and commands exist, the tree is the tree, lines are short."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from documents import PAGES, README, ROOT, anchors, blocks, parts, prose
from test_imports import WALLS

FOLDERS = ("optevo", "analysis", "studies", "tests", "docs")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


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


def test_every_page_is_in_the_index():
    index = ROOT / "docs" / "README.md"
    linked = set(re.findall(r"\]\((\w+\.md)\)", index.read_text("utf-8")))
    assert linked == {page.name for page in PAGES if page.parent == index.parent and page != index}


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
