"""The tutorial in a notebook: its Python files as cells, run by a fresh kernel, and what the cells show."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
from documents import ROOT, fenced

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

pytestmark = pytest.mark.slow
TUTORIAL = ROOT / "docs" / "tutorial.md"
SMALL = {"generations": 2, "population": 6, "steps": 20}
LOOKED_AT = {"shown": "result", "figure": 'result.figure("fitness")', "table": "result.frame().head()"}
USED = """
model = make_model()
optimizer = result.optimizer(model.parameters())
schedule = result.scheduler(optimizer, 20)
cross_entropy(model(train.tensors[0]), train.tensors[1]).backward()
optimizer.step()
schedule.step()
f"{result.best.number} {result.formula}"
"""


def cells() -> dict[str, str]:
    """By the file's name, as the tutorial has them, without imports from one another; of the search less."""
    files = {block.file: block.text for block in fenced(TUTORIAL) if block.language == "python"}
    names = ("arms.py", "training.py", "search.py", "better.py")
    text = {name: re.sub(r"^from (arms|training) import .*\n", "", files[name], flags=re.M) for name in names}
    for name, number in SMALL.items():
        text["search.py"], n = re.subn(rf"\b{name}=\d+", f"{name}={number}", text["search.py"])
        assert n == 1, name
    text["training.py"] = text["training.py"].replace("steps=200", "steps=20")
    return {**text, **LOOKED_AT, "used": USED.strip()}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What each cell shows, by its name."""
    folder = tmp_path_factory.mktemp("notebook")
    sources = cells()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in sources.values()])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.delenv("OPTEVO_STORAGE", raising=False)
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
        client.execute()
    if where := os.environ.get("OPTEVO_NOTEBOOK"):
        nbformat.write(notebook, where)
    assert (folder / "evolved.py").stat().st_size > 0
    return {name: cell.outputs for name, cell in zip(sources, notebook.cells, strict=True)}


def shown(output: list[Any], kind: str) -> list[str]:
    """All that a cell shows in one form."""
    return [one.data[kind] for one in output if kind in one.get("data", {})]


def printed(output: list[Any]) -> str:
    return "".join(one.text for one in output if one.output_type == "stream")


def test_nothing_warns(outputs: dict[str, list[Any]]):
    said = [one for output in outputs.values() for one in output]
    assert [one for one in said if one.get("name") == "stderr" or one.output_type == "error"] == []


def test_the_search_shows_how_far_it_is_in_one_place(outputs: dict[str, list[Any]]):
    tables = [text for text in shown(outputs["search.py"], "text/html") if "generation" in text]
    assert len(tables) == 1
    assert re.search(r"generation.* 1 of 1 .*trials.* (\d+) of \1, .*best rule", tables[0], re.DOTALL)
    assert not re.search(r"color: #", str(shown(outputs["search.py"], "text/html"))), "lost on a black page"
    assert "trials, complete\nbest: trial " in printed(outputs["search.py"])


def test_a_result_is_a_table_and_text(outputs: dict[str, list[Any]]):
    (text,), (table,) = (shown(outputs["shown"], f"text/{kind}") for kind in ("plain", "html"))
    assert text in printed(outputs["search.py"])
    assert table.startswith("<table")
    assert table.count("fresh seeds") == 1  # a column of the table, no line beside
    number, _, formula = outputs["used"][0].data["text/plain"].strip("'\"").partition(" ")
    for form in (text, table):
        assert f"trial {number}, fitness " in form
        assert formula in form
    (frame,) = shown(outputs["table"], "text/html")
    assert "<th>fitness</th>" in frame


def test_a_figure_needs_no_network(outputs: dict[str, list[Any]]):
    (figure,) = shown(outputs["figure"], "application/vnd.plotly.v1+json")
    assert {trace["name"] for trace in figure["data"]} >= {"mean", "best so far"}
    for text in shown(outputs["figure"], "text/html"):
        assert not re.search(r"""\bsrc=["']?(https?:)?//""", text)


def test_the_optimizer_is_compared_with_adam(outputs: dict[str, list[Any]]):
    assert re.fullmatch(r"Adam: +0\.\d{3}\nEvolved: 0\.\d{3}\n", printed(outputs["better.py"]))
