"""A user's own table: what is learned, what is missing, and what is said of a wrong file, row or column."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from small_tasks import seeded

from optevo.errors import UserError
from optevo.tasks import Split, own_data

ROWS = 60


def table(**changes: Any) -> pd.DataFrame:
    noise = np.random.default_rng(0)
    columns: dict[str, Any] = {
        "size": noise.normal(5, 2, ROWS).round(3),
        "flag": noise.random(ROWS) < 0.5,
        "Farbe": np.array(["rot", "grün", "tiefes Blau"])[np.arange(ROWS) % 3],
        "label": np.array(["nein", "ja"])[np.arange(ROWS) % 2],
        "price": noise.normal(100, 20, ROWS),
    }
    return pd.DataFrame({**columns, **changes})


def load(folder: Path, data: Any = None, file: str = "t.csv", **options: Any) -> tuple[Any, dict[str, Split]]:
    if isinstance(data, str):
        (folder / file).write_text(data, encoding="utf-8")
    elif data is not None:
        data.to_csv(folder / file, index=False)
    task: Any = own_data("table", "mine", file, {"target": "label", "sizes": [8], **options})
    return task, task.load(folder)


def every(splits: dict[str, Split]) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.cat([getattr(s, key) for s in splits.values()]) for key in ("inputs", "targets"))


def test_text_is_classified_with_splits_in_proportion_and_without_overlap(tmp_path: Path):
    task, splits = load(tmp_path, table())
    assert task.classes == ["ja", "nein"]
    assert [len(split) for split in splits.values()] == [42, 9, 9]
    assert torch.bincount(splits["train"].targets).tolist() == [21, 21]
    inputs, _ = every(splits)
    assert inputs.shape == (ROWS, 1 + 1 + 3 + 1)
    assert len({tuple(row) for row in inputs.tolist()}) == ROWS
    assert splits["train"].inputs[:, 0].mean().abs() < 1e-6
    _, others = load(tmp_path, seed=1)
    assert not torch.equal(others["test"].inputs, splits["test"].inputs)
    model = task.model(seeded(0))
    batch = next(task.batches(splits["train"], 16, seeded(1)))
    task.loss(model, batch).backward()
    assert (task.metric, task.has_bonus) == ("accuracy", True)
    assert 0 <= task.score(model, splits["validation"]) <= 1


def test_a_quantity_is_a_regression_in_units_of_its_deviation(tmp_path: Path):
    task, splits = load(tmp_path, table(), target="price")
    targets = splits["train"].targets
    assert (targets.dtype, targets.shape) == (torch.float32, (42, 1))
    assert targets.mean().abs() < 1e-6
    assert targets.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert (task.metric, task.has_bonus, task.other_loss) == ("r2", False, True)
    model = task.model(seeded(0))
    task.loss(model, next(task.batches(splits["train"], 16, seeded(1)))).backward()
    assert task.score(model, splits["validation"]) < 1


@pytest.mark.parametrize(
    ("target", "problem", "classes"),
    [
        (np.arange(ROWS) % 20 + 3, None, 20),
        (np.arange(ROWS) % 21, None, 0),
        (np.arange(ROWS) % 3 / 2, None, 0),
        (np.arange(ROWS) % 2 == 0, None, 2),
        (np.arange(ROWS) % 20, "regression", 0),
        (np.arange(ROWS) % 21, "classification", 21),
        (np.arange(ROWS) % 3 / 2, "classification", 3),
        (np.arange(ROWS) % 2 == 0, "regression", 0),
    ],
)
def test_a_rule_or_the_file_says_what_numbers_are(
    tmp_path: Path, target: Any, problem: str | None, classes: int
):
    options = {} if problem is None else {"problem": problem}
    task, splits = load(tmp_path, table(label=target), **options)
    assert len(task.classes) == classes
    if classes:  # in the order of numbers
        assert task.classes == [str(one) for one in sorted({*target.tolist()})]
    assert splits["train"].targets.dtype == (torch.int64 if classes else torch.float32)


def test_nothing_but_training_rows_decides_what_inputs_are(tmp_path: Path):
    _, splits = load(tmp_path, table(), target="price")
    changed = table()
    test_rows = [
        i
        for i, price in enumerate(changed["price"])
        if any(
            abs(float(t) - v) < 1e-6
            for t in splits["test"].targets
            for v in [(price - _mean(changed, splits)) / _std(changed, splits)]
        )
    ]
    assert len(test_rows) == 9
    changed.loc[test_rows, "size"] = 1e6
    changed.loc[test_rows, "Farbe"] = "nie gesehen"
    _, others = load(tmp_path, changed, target="price")
    kept = [name for name in ("train", "validation") if torch.equal(others[name].inputs, splits[name].inputs)]
    assert kept == ["train", "validation"]


def _mean(frame: pd.DataFrame, splits: dict[str, Split]) -> float:
    return _line(frame, splits)[0]


def _std(frame: pd.DataFrame, splits: dict[str, Split]) -> float:
    return _line(frame, splits)[1]


def _line(frame: pd.DataFrame, splits: dict[str, Split]) -> tuple[float, float]:
    order = np.sort(frame["price"]), np.sort(every(splits)[1].flatten().numpy())
    slope = (order[0][-1] - order[0][0]) / (order[1][-1] - order[1][0])
    return float(order[0][0] - slope * order[1][0]), float(slope)


def test_missing_cells_are_told_and_filled(tmp_path: Path):
    frame = table()
    frame["size"] = frame["size"].where(frame.index % 4 > 0)
    frame["Farbe"] = frame["Farbe"].where(frame.index % 5 > 0)
    frame["empty"] = np.nan
    _, splits = load(tmp_path, frame)
    inputs, _ = every(splits)
    assert torch.isfinite(inputs).all()
    assert inputs.shape[1] == 2 + 1 + 4 + 1  # size and its lack, flag, three colours and none, price
    assert (inputs[:, 1] == 1).sum() == 15
    filled = inputs[inputs[:, 1] == 1, 0]
    assert (filled == filled[0]).all()
    assert abs(float(filled[0])) < 1


def test_rows_without_a_target_are_left_out_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    frame = table()
    frame.loc[[6, 8], "label"] = None
    with caplog.at_level(logging.WARNING):
        _, splits = load(tmp_path, frame)
    assert sum(map(len, splits.values())) == ROWS - 2
    assert "rows without a target, which are left out: 2, first row 7, column 'label'" in caplog.text


def test_equal_rows_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        load(tmp_path, pd.concat([table(), table()[:5]]))
    assert "rows that equal earlier ones: 5, first row 61;" in caplog.text


def test_only_frequent_levels_have_a_feature(tmp_path: Path):
    names = [f"person {i}" for i in range(ROWS)]
    _, splits = load(tmp_path, table(Farbe=names))
    assert splits["train"].inputs.shape[1] == 3  # size, flag, price
    postcode = np.arange(ROWS) % 3 * 1111
    _, splits = load(tmp_path, table(Farbe=postcode), categorical=["Farbe"], drop=["price"])
    assert splits["train"].inputs.shape[1] == 2 + 3


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        (
            {"size": [*range(16), "zwölf", *range(43)]},
            {},
            "row 17, column 'size': 'zwölf' stands among numbers",
        ),
        ({"size": [f"{i},5" for i in range(ROWS)]}, {}, r"row 1, column 'size': '0,5' .* decimal = \",\""),
        ({"size": [np.inf] * ROWS}, {}, "row 1, column 'size': the number is infinite"),
        ({}, {"target": "lable"}, "option target: .*no column 'lable'.*'label'"),
        ({"price": [*range(59), "n.k."]}, {"target": "price"}, "row 60, column 'price'.*\"classification\""),
        ({}, {"drop": ["x"]}, "option drop: .*no column 'x'"),
        ({}, {"problem": "regression"}, "'label' of .* is text, so it has no regression"),
        ({}, {"problem": "classification", "target": "price"}, "has 60 classes in 60 rows"),
        ({"label": ["a"] * ROWS}, {}, "has 1 classes"),
        ({}, {"drop": ["size", "flag", "Farbe", "price"]}, "no column differs"),
        ({}, {"sizes": [0]}, "sizes must be a whole number from 1"),
        ({}, {"sizes": "64"}, "sizes must be a whole number from 1"),
        ({}, {"dropout": 1.5}, "dropout must be at least 0 and below 1"),
        ({}, {"separator": "--"}, "separator must be one character"),
        ({}, {"drop": ["label"]}, "drop must be columns other than the target 'label'"),
        ({}, {"drop": [1]}, "drop must be a list of names"),
        ({}, {"problem": "ranking"}, "problem = 'ranking'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], options: dict[str, Any], said: str):
    with pytest.raises(UserError, match=said):
        load(tmp_path, table(**changes), **options)


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("a;label\n1;x\n2;y\n", {}, "separator = ';'"),
        ("a,label\n1,x\n2,y,3\n", {}, "line 3"),
        ("a,label,label\n1,x,x\n2,y,y\n", {}, "two of its columns are called 'label': rename one"),
        ("a, label,label\n1,x,x\n2,y,y\n", {}, "two of its columns are called 'label': rename one"),
        ("a,label\n1,x,3\n2,y,3\n", {}, "can't be read as a table"),
        ("a, label\n1, x\n2, y\n1, x\n2, y\n", {"test": 0.1}, "none is left for test"),
        ("", {}, "t.csv can't be read as a table"),
        ("a,label\n1,x\n2,y\n1,x\n2,y\n", {"test": 0.1}, "none is left for test"),
    ],
)
def test_another_file_is_told(tmp_path: Path, text: str, options: dict[str, Any], said: str):
    with pytest.raises(UserError, match=said):
        load(tmp_path, text, **options)


def test_a_file_in_another_encoding_is_told(tmp_path: Path):
    (tmp_path / "t.csv").write_bytes("a,label\n1,grün\n2,rot\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"t\.csv is no UTF-8 text.*save it as UTF-8"):
        load(tmp_path)


def test_marks_blanks_tabs_commas_and_gzip_are_read(tmp_path: Path):
    frame = table()
    frame["size"] = frame["size"].astype(object)
    frame.loc[3, "size"] = "  "
    frame.to_csv(tmp_path / "t.csv", index=False, encoding="utf-8-sig")
    plain = load(tmp_path)[1]
    assert plain["train"].inputs.shape[1] == 7  # one more, for the lack of a size
    frame.to_csv(tmp_path / "t.tsv.gz", index=False, sep="\t")
    frame.assign(size=pd.to_numeric(frame["size"], errors="coerce")).to_csv(
        tmp_path / "de.csv", index=False, sep=";", decimal=","
    )
    for splits in (
        load(tmp_path, file="t.tsv.gz")[1],
        load(tmp_path, file="de.csv", separator=";", decimal=",")[1],
    ):
        assert all(torch.equal(splits[name].inputs, plain[name].inputs) for name in plain)


def test_parquet_is_read_or_what_it_needs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    frame = table(when=pd.date_range("2026-01-01", periods=ROWS))
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)
        patch.setitem(sys.modules, "fastparquet", None)
        with pytest.raises(UserError, match=r"needs pyarrow: `pip install pyarrow`"):
            load(tmp_path, file="t.parquet")
    pytest.importorskip("pyarrow")
    with pytest.raises(UserError, match=r"t\.parquet can't be read as a table"):
        load(tmp_path, file="t.parquet")
    frame.to_parquet(tmp_path / "t.parquet")
    plain, splits = load(tmp_path, table())[1], load(tmp_path, file="t.parquet")[1]
    assert all(splits[name].inputs.shape == plain[name].inputs.shape for name in plain)


def test_a_changed_cell_changes_the_identity(tmp_path: Path):
    first = load(tmp_path, table())[0].identity
    changed = table()
    changed.loc[0, "size"] = 1
    assert first != load(tmp_path, changed)[0].identity
    assert first == load(tmp_path, table())[0].identity
