"""The study files that come with optevo are found by name, wherever it is run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from optevo.errors import UserError
from optevo.study.bundled import find_study, studies
from optevo.study.config import load_config

ROOT = Path(__file__).parents[2]


def test_every_file_of_studies_has_a_name() -> None:
    files = {path.relative_to(ROOT / "studies") for path in (ROOT / "studies").rglob("*.toml")}
    assert {Path(f"{name}.toml") for name in studies()} == files
    assert {"quickstart", "baselines/adamw", "fair/evolved"} <= studies().keys()


def test_a_name_is_a_study_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(Path("quickstart")) == load_config(ROOT / "studies" / "quickstart.toml")
    assert load_config(Path("fair/evolved")).name == "fair_evolved"


def test_a_file_of_ones_own_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "studies" / "random.toml").read_text("utf-8")
    Path("quickstart").write_text(text, "utf-8")
    assert find_study(Path("quickstart")) == Path("quickstart")
    assert load_config(Path("quickstart")) == load_config(Path("random"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("studies/quickstart.toml", "did you mean 'quickstart', a study that comes with optevo?"),
        ("../studies/fair/evolved.toml", "did you mean 'fair/evolved', a study"),
        ("quickstrat", "did you mean 'quickstart', a study"),
        ("zzz.toml", r"studies that come with optevo are fashion, .*\bquickstart, "),
        ("x" * 5000, "cannot read study file"),
        ("nothing/..", "studies that come with optevo are"),
    ],
    ids=["a path", "a path of folders", "misspelt", "unlike any", "too long", "no name"],
)
def test_a_study_that_there_is_not_is_told_with_those_that_there_are(
    given: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        load_config(Path(given))
    assert re.search(said, str(caught.value)), caught.value
