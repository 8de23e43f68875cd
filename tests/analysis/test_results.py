"""What lies in studies/results is what its commands make of the runs that lie beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from PIL import Image

from analysis import recompress, table1
from optevo import keys
from optevo.measurement.fresh_seeds import stored_result
from optevo.measurement.test_split import stored_evaluation
from optevo.reporting.comparison import OVERALL, Entry
from optevo.reporting.statistics import paired
from optevo.reporting.tables import write_tables
from optevo.storage.study_file import read_study
from optevo.study.check import check_study
from optevo.study.config import load_config
from optevo.study.studies import counted, is_complete, load_study

STUDIES = Path(__file__).parents[2] / "studies"
RESULTS = STUDIES / "results"
SAVED = sorted(RESULTS.rglob("*.json"))


def test_table_1_is_that_of_its_runs():
    frame = pd.read_csv(RESULTS / "table1" / "runs.csv")
    assert frame.groupby(["optimizer", "task"]).size().eq(3).all()
    stored = pd.read_csv(RESULTS / "table1" / "table.csv")
    pd.testing.assert_frame_equal(table1.table(frame), stored, check_exact=False, rtol=1e-9)


def test_table_1_covers_every_published_number():
    stored = pd.read_csv(RESULTS / "table1" / "table.csv")
    assert set(stored["optimizer"]) == set(table1.PUBLISHED)
    assert stored["published"].notna().all()
    assert set(stored["task"]) == {"fashion_mnist", "cifar10", "mnist", OVERALL}


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
def test_a_saved_study_loads_complete_and_is_that_of_its_file(path: Path, quiet_optuna: None):
    (name,) = [study.study_name for study in read_study(path).get_all_studies()]
    study, config = load_study(read_study(path), name)
    check_study(study)
    assert is_complete(study)
    assert counted(study) == config.n_trials
    (file,) = [
        f for f in STUDIES.rglob("*.toml") if f"name = {config.name!r}".replace("'", '"') in f.read_text()
    ]
    assert load_config(file) == config
    assert config.fingerprint() == study.user_attrs[keys.FINGERPRINT]


def fair_entries() -> list[Entry]:
    """The studies of the comparison, in the order of its table."""
    names = pd.read_csv(RESULTS / "fair" / "studies.csv")["study"]
    entries = []
    for name in names:
        (path,) = [path for path in SAVED if path.stem == name]
        study, config = load_study(read_study(path), name)
        final, result = stored_evaluation(study, config), stored_result(study, config)
        assert final is not None
        assert result is not None
        entries.append(Entry(study, config, result, final))
    return entries


def test_the_fair_comparison_is_that_of_its_saved_studies(tmp_path: Path, quiet_optuna: None):
    entries = fair_entries()
    write_tables(tmp_path, entries, entries[0].test.study, "metric")
    for name in ("runs.csv", "summary.csv", "differences.csv", "studies.csv"):
        made, kept = (pd.read_csv(folder / name) for folder in (tmp_path, RESULTS / "fair"))
        pd.testing.assert_frame_equal(made, kept, check_exact=False, rtol=1e-9)
    assert (tmp_path / "comparison.md").read_text() == (RESULTS / "fair" / "comparison.md").read_text()


def test_the_readme_says_what_the_tables_say():
    readme = (STUDIES.parent / "README.md").read_text()
    rows = [line for line in readme.splitlines() if line.startswith("| ")]
    for study, means in pd.read_csv(RESULTS / "fair" / "summary.csv").groupby("study"):
        cells = [f"{row['mean']:.4f} ± {row['sd']:.4f}" for _, row in means.iterrows()]
        assert any(all(cell in line for cell in cells) for line in rows), (study, cells)
    for optimizer, means in pd.read_csv(RESULTS / "table1" / "table.csv").groupby("optimizer"):
        cells = [
            f"{row['mean']:.3f} ± {row['std']:.3f} [{row['published']:.3f}]" for _, row in means.iterrows()
        ]
        assert any(all(cell in line for cell in cells) for line in rows), (optimizer, cells)


def test_what_jpeg_costs_is_what_the_readme_says(quiet_optuna: None):
    """The same seeds and optimizer on images compressed once more, minus those of the fair comparison."""
    study, _ = load_study(read_study(RESULTS / "table1" / "jpeg50.json"), "jpeg50")
    (trial,) = study.trials
    again = {run["seed"]: run["metric"] for run in trial.user_attrs[keys.RUNS]}
    runs = pd.read_csv(RESULTS / "fair" / "runs.csv")
    once = runs[(runs["study"] == "fair_evolved") & (runs["task"] == "cifar10")].set_index("seed")["metric"]
    estimate = paired(
        {"cifar10": [again[seed] - once[seed] for seed in sorted(again)]}, rng=np.random.default_rng(0)
    )
    said = f"{estimate.mean:+.4f} ({estimate.low:+.3f} to {estimate.high:+.3f}, n = {estimate.n}"
    assert said.replace("-", "−") in (STUDIES.parent / "README.md").read_text()


def test_our_own_search_has_at_least_150_trials_and_a_winner(quiet_optuna: None):
    study, config = load_study(read_study(RESULTS / "own_search" / "own_search.json"), "own_search")
    assert config.n_trials >= 150
    assert study.trials[study.user_attrs[keys.RERUN]["winner"]].state == optuna.trial.TrialState.COMPLETE


def test_no_result_is_large():
    assert all(path.stat().st_size < 1_000_000 for path in RESULTS.rglob("*") if path.is_file())


def test_recompressing_keeps_every_image_and_loses_detail(tmp_path: Path):
    source, target = tmp_path / "a", tmp_path / "b"
    folder = source / "cifar10" / "train" / "cat"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "0.png")
    assert recompress.recompress(source, target, 50) == 1
    with Image.open(target / "cifar10" / "train" / "cat" / "0.jpg") as image:
        assert image.size == (32, 32)
        assert (np.asarray(image) != noise).any()
