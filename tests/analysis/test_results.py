"""What lies in studies/results is what its commands make of the runs that lie beside it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from PIL import Image

from analysis import picture, recompress, search_seeds, table1, transfer
from optevo import keys
from optevo.measurement.fresh_seeds import stored_result
from optevo.measurement.test_split import stored_evaluation
from optevo.optim.baselines.registry import TunedBaseline
from optevo.reporting.comparison import OVERALL, Entry
from optevo.reporting.statistics import BETTER, UNDECIDED, WORSE, paired, verdict
from optevo.reporting.tables import write_tables
from optevo.samplers.base import populations
from optevo.storage.study_file import read_study
from optevo.study.check import check_study
from optevo.study.config import load_config
from optevo.study.studies import counted, is_complete, load_study
from optevo.tasks.base import Split
from optevo.tasks.vision import CIFAR10, FashionMNIST
from optevo.training.operations import operations_a_step

ROOT = Path(__file__).parents[2]
STUDIES = ROOT / "studies"
RESULTS = STUDIES / "results"
SAVED = sorted(RESULTS.rglob("*.json*"))
saved = functools.cache(read_study)


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
    study, config = load_study(saved(path), None)
    check_study(study)
    assert is_complete(study)
    assert counted(study) == config.n_trials
    (file,) = [
        f for f in STUDIES.rglob("*.toml") if f"name = {config.name!r}".replace("'", '"') in f.read_text()
    ]
    found = {start.study: start for start in config.warm_starts}
    assert load_config(file).with_warm_starts(found) == config
    assert config.fingerprint() == study.user_attrs[keys.FINGERPRINT]


def saved_entries(names: Iterable[str]) -> list[Entry]:
    """Saved studies as a comparison takes them."""
    entries = []
    for name in names:
        (path,) = [path for path in SAVED if path.stem == name]
        study, config = load_study(saved(path), name)
        final, result = stored_evaluation(study, config), stored_result(study, config)
        assert final is not None
        assert result is not None
        entries.append(Entry(study, config, result, final))
    return entries


def test_the_fair_comparison_is_that_of_its_saved_studies(tmp_path: Path, quiet_optuna: None):
    entries = saved_entries(pd.read_csv(RESULTS / "fair" / "studies.csv")["study"])
    write_tables(tmp_path, entries, entries[0].test.study, "metric")
    for name in ("runs.csv", "summary.csv", "differences.csv", "studies.csv"):
        made, kept = (pd.read_csv(folder / name) for folder in (tmp_path, RESULTS / "fair"))
        pd.testing.assert_frame_equal(made, kept, check_exact=False, rtol=1e-9)
    assert (tmp_path / "comparison.md").read_text() == (RESULTS / "fair" / "comparison.md").read_text()


def rows(page: str) -> list[str]:
    return [line for line in (ROOT / page).read_text("utf-8").splitlines() if line.startswith("| ")]


def plain(page: str) -> str:
    """A page's text in one line, with the hyphen for minus."""
    return " ".join((ROOT / page).read_text("utf-8").split()).replace("−", "-")


def test_the_results_page_says_what_the_tables_say():
    lines = rows("docs/results.md")
    for study, means in pd.read_csv(RESULTS / "fair" / "summary.csv").groupby("study"):
        cells = [f"{row['mean']:.4f} ± {row['sd']:.4f}" for _, row in means.iterrows()]
        assert any(all(cell in line for cell in cells) for line in lines), (study, cells)
    for optimizer, means in pd.read_csv(RESULTS / "table1" / "table.csv").groupby("optimizer"):
        cells = [
            f"{row['mean']:.3f} ± {row['std']:.3f} [{row['published']:.3f}]" for _, row in means.iterrows()
        ]
        assert any(all(cell in line for cell in cells) for line in lines), (optimizer, cells)


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_the_fair_comparison_is_told_as_it_came_out(page: str):
    """A row a study: the mean over tasks, its difference to the first, and the interval.

    The README has the first two.
    """
    lines = [line.replace("−", "-") for line in rows(page)]
    summary = pd.read_csv(RESULTS / "fair" / "summary.csv").query("task == @OVERALL").set_index("study")
    differences = pd.read_csv(RESULTS / "fair" / "differences.csv").query("task == @OVERALL")
    found = differences.set_index("study")
    told = ["fair_adamw_warmup_cosine", "fair_evolved"] if page == "README.md" else list(summary.index)
    for study, row in summary.loc[told].iterrows():
        cells = [f"{row['mean']:.4f} ± {row['sd']:.4f}"]
        if study in found.index:
            d = found.loc[study]
            cells.append(f"{d['mean']:+.4f} ({d['low']:+.4f} to {d['high']:+.4f})")
        assert any(all(cell in line for cell in cells) for line in lines), (study, cells)


def test_what_jpeg_costs_is_what_the_results_page_says(quiet_optuna: None):
    """The same seeds and optimizer on images compressed once more, minus those of the fair comparison."""
    study, _ = load_study(saved(RESULTS / "table1" / "jpeg50.json"), "jpeg50")
    (trial,) = study.trials
    again = {run["seed"]: run["metric"] for run in keys.ours(trial)[keys.RUNS]}
    runs = pd.read_csv(RESULTS / "fair" / "runs.csv")
    once = runs[(runs["study"] == "fair_evolved") & (runs["task"] == "cifar10")].set_index("seed")["metric"]
    estimate = paired(
        {"cifar10": [again[seed] - once[seed] for seed in sorted(again)]}, rng=np.random.default_rng(0)
    )
    said = f"{estimate.mean:+.4f} ({estimate.low:+.3f} to {estimate.high:+.3f}, n = {estimate.n}"
    assert said in plain("docs/results.md")


def test_the_quickstarts_searches_are_those_of_their_runs():
    searches = pd.read_csv(RESULTS / "quickstart" / "searches.csv")
    runs = pd.read_csv(RESULTS / "quickstart" / "test.csv")
    assert list(searches["search_seed"]) == list(range(10))
    assert runs.groupby(["search_seed", "study"]).size().eq(search_seeds.TEST_SEEDS).all()
    means = runs.groupby(["study", "search_seed"])["metric"].mean()
    for column, study in (("test", search_seeds.SEARCH), ("adamw_test", search_seeds.SWEEP)):
        np.testing.assert_allclose(searches[column], means[study], rtol=0, atol=1e-12)
    np.testing.assert_allclose(searches["difference"], searches["test"] - searches["adamw_test"], atol=1e-12)
    fresh = pd.read_csv(RESULTS / "quickstart" / "fresh.csv")
    assert fresh.groupby(["search_seed", "optimizer"]).size().eq(5).all()
    means = fresh.groupby(["search_seed", "optimizer"])["fitness"].mean().unstack()
    for index, row in searches.iterrows():
        presets = means.loc[index, ["sgd", "adam", "adamw", "rmsprop"]]
        assert row["fresh_fitness"] == pytest.approx(means.loc[index, row["winner"]], abs=1e-12)
        assert row["best_preset"] == presets.idxmax()
        assert row["best_preset_fresh_fitness"] == pytest.approx(presets.max(), abs=1e-12)


def test_what_the_quickstart_is_worth_is_what_its_searches_say():
    searches = pd.read_csv(RESULTS / "quickstart" / "searches.csv")
    readme, results = plain("README.md"), plain("docs/results.md")
    for ours, theirs in (("test", "adamw_test"), ("fresh_fitness", "best_preset_fresh_fitness")):
        estimate = search_seeds.gain(searches, ours, theirs)
        ahead = f"ahead in {(searches[ours] > searches[theirs]).sum()} of {len(searches)}"
        means = [f"{searches[one].mean():.4f} ± {searches[one].std():.4f}" for one in (theirs, ours)]
        difference = (
            f"{estimate.mean:+.4f} (95 % interval {estimate.low:+.4f} to {estimate.high:+.4f}, "
            f"p = {estimate.p:.2g})"
        )
        assert " | ".join([*means, difference]) in results
        assert ahead in results
        if ours == "test":
            assert all(said in readme for said in (*means, difference, ahead))
    better = (searches["fresh_fitness"] - searches["best_preset_fresh_fitness"]).loc[lambda each: each > 0]
    assert (len(better), len(searches)) == (9, 10)  # "nine" of "ten" in the README
    assert f"by {better.min():.3f} to {better.max():.3f}" in readme
    assert f"by {better.min():.4f} to {better.max():.4f}" in results


def test_what_was_seen_in_the_searches_is_there():
    """The schedules of the winners, and the one run that failed."""
    searches = pd.read_csv(RESULTS / "quickstart" / "searches.csv")
    difference, results = searches["difference"], plain("docs/results.md")
    cosine = searches["hyperparameters"].str.contains("cosine decay")
    assert cosine.sum() == 3  # "three" there
    assert searches["adamw_hyperparameters"].str.contains("warmup .* cosine decay").all()
    a, b, c = difference[cosine].sort_values(ascending=False)
    assert f"ahead by {a:.4f} and {b:.4f} or behind by {-c:.4f}" in results
    behind = -difference[~cosine]
    assert f"behind by {behind.min():.4f} to {behind.max():.4f}" in results
    assert searches["best_preset"].eq("rmsprop").all()
    fresh = pd.read_csv(RESULTS / "quickstart" / "fresh.csv").set_index(["search_seed", "optimizer"])
    least, *others = sorted(fresh["fitness"].loc[8].loc[searches.loc[8, "winner"]])
    assert f"its fitness is {least:.3f}, that of the others at least {min(others):.3f}" in results
    test = pd.read_csv(RESULTS / "quickstart" / "test.csv").pivot_table(
        index=["search_seed", "seed"], columns="study", values="metric"
    )
    said = []
    for _, runs in (test[search_seeds.SEARCH] - test[search_seeds.SWEEP]).groupby("search_seed"):
        estimate = paired({"digits": runs.tolist()}, rng=np.random.default_rng(0))
        said.append(verdict(estimate, estimate.p))
    assert (said.count(BETTER), said.count(WORSE), said.count(UNDECIDED)) == (1, 5, 4)  # in words there


@pytest.mark.parametrize("name", [search_seeds.SEARCH, search_seeds.SWEEP])
def test_a_repeated_search_is_the_study_file_with_other_seeds(name: str, tmp_path: Path):
    ours = load_config(STUDIES / f"{name}.toml")
    files = [search_seeds.study_file(name, seed, tmp_path) for seed in (0, 9)]
    first, last = (load_config(file) for file in files)
    assert first.model_copy(update={"name": name}) == ours
    evaluation = ours.evaluation.model_copy(update={"seeds": (180, 181)})
    assert last == ours.model_copy(update={"name": f"{name}_s9", "seed": 9, "evaluation": evaluation})


def test_the_first_search_is_the_saved_quickstart(quiet_optuna: None):
    """Same study file, same seeds: what stands in the README is the first of the ten."""
    first = pd.read_csv(RESULTS / "quickstart" / "searches.csv").iloc[0]
    study, config = load_study(saved(RESULTS / "quickstart" / "quickstart.json"), "quickstart")
    result, final = stored_result(study, config), stored_evaluation(study, config)
    assert result is not None
    assert final is not None
    assert first["winner"] == f"trial {result.winner}"
    assert first["fresh_fitness"] == pytest.approx(result.rows[-1].mean, abs=1e-12)
    assert first["test"] == pytest.approx(np.mean([run.metric for run in final.runs]), abs=1e-12)


def test_one_comparison_of_the_quickstart_is_that_of_its_saved_studies(tmp_path: Path, quiet_optuna: None):
    entries = saved_entries((search_seeds.SWEEP, search_seeds.SEARCH))
    summary, differences, _ = write_tables(tmp_path, entries, search_seeds.SWEEP, "metric")
    text = plain("docs/results.md")
    for study, row in summary.query("task == @OVERALL").set_index("study").iterrows():
        assert f"{study} {row['mean']:.4f} ± {row['sd']:.4f}" in text
    (row,) = differences.to_dict("records")
    assert (
        f"{row['mean']:+.4f} 95 % interval {row['low']:+.4f} to {row['high']:+.4f} p = {row['p']:.3f} "
        f"{row['verdict']}"
    ) in text


def test_the_readme_shows_the_saved_quickstart(quiet_optuna: None):
    study, config = load_study(saved(RESULTS / "quickstart" / "quickstart.json"), "quickstart")
    result = stored_result(study, config)
    assert result is not None
    shown = (ROOT / "README.md").read_text("utf-8")
    for row in result.rows:
        mean, sd = result_metric = row.metric("digits")
        assert result_metric is not None
        cells = (f"{row.search:.4f}", f"{row.mean:.4f} ± {row.sd:.4f}", f"{mean:.4f} ± {sd:.4f}")
        assert any(
            line.startswith(f"│ {row.name} ") and all(cell in line for cell in cells)
            for line in shown.splitlines()
        ), (row.name, cells)
    assert keys.ours(study.trials[result.winner])[keys.FORMULA] in shown


def test_the_picture_is_drawn_from_the_saved_quickstart(tmp_path: Path, quiet_optuna: None):
    drawn = tmp_path / "search.svg"
    picture.main(["--output", str(drawn)])
    assert drawn.read_bytes() == picture.PICTURE.read_bytes()


def test_our_own_search_has_at_least_150_trials_and_a_winner(quiet_optuna: None):
    study, config = load_study(saved(RESULTS / "own_search" / "own_search.json"), "own_search")
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


@pytest.mark.parametrize(
    ("folder", "winner"),
    [("modern", "rates"), *((folder, "evolved") for folder in ("modern", "modern/unseen", "modern/divided"))],
)
def test_the_page_says_what_the_modern_winner_s_runs_say(folder: str, winner: str):
    runs = pd.concat(pd.read_csv(RESULTS / folder / f"modern_{name}.csv") for name in ("adamw", winner))
    found = transfer.differences(runs, "modern_adamw")
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    for name, part in found[found["difference"].notna()].groupby("set"):
        (row,) = part.to_dict("records")
        said = f"{row['difference']:+.4f} | {row['low']:+.4f} to {row['high']:+.4f} | {row['p']:.1g}"
        assert f"{said} |".replace("-", "−") in page, name
    for row in found[found["mean"].notna()].to_dict("records"):
        assert f"{row['mean']:.4f} ± {row['sd']:.4f}" in page


@pytest.mark.parametrize("baseline", ["muon_conv", "ortho_conv", "cautious_ortho_conv"])
def test_the_page_says_what_the_best_baselines_runs_say(baseline: str):
    runs = pd.concat(pd.read_csv(RESULTS / "modern" / f"modern_{name}.csv") for name in (baseline, "evolved"))
    runs = runs[runs.groupby(["set", "seed"])["study"].transform("nunique") == 2]
    found = transfer.differences(runs, f"modern_{baseline}")
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    for row in found[found["difference"].notna()].to_dict("records"):
        said = f"{row['difference']:+.4f} | {row['low']:+.4f} to {row['high']:+.4f} | {row['p']:.1g}"
        assert f"{said} |".replace("-", "−") in page, row["set"]
    for row in found[found["mean"].notna()].to_dict("records"):
        assert f"{row['mean']:.4f} ± {row['sd']:.4f}" in page


def test_the_page_says_what_of_the_modern_winner_did_it():
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    runs = pd.read_csv(RESULTS / "modern" / "ablation" / "ablation.csv").set_index("variant")
    least = runs.loc["tuned AdamW"]
    gain = f"{-least['difference']:+.4f} | {-least['high']:+.4f} to {-least['low']:+.4f} | better |"
    assert f"| the winner − tuned AdamW | {gain}" in page
    steps = ["tuned AdamW", "tuned AdamW, the winner's schedule"]
    steps += ["AdamW's rule, the winner's hyperparameters, lr × its weights", "the winner"]
    for what, (one, other) in zip(
        ("schedule", "hyperparameters", "rule"), itertools.pairwise(steps), strict=True
    ):
        part = runs.loc[other, "mean"] - runs.loc[one, "mean"]
        assert f"| of it the {what} | {part:+.4f} |" in page


def test_the_pages_count_the_operations_of_a_step():
    """Over AdamW's, on the three tasks; MNIST's network is Fashion-MNIST's."""
    rows = (ROOT / "docs" / "optimizers.md").read_text("utf-8")
    names, totals = ("adamw", "evolved_modern", "cautious_ortho_conv", "muon_conv"), []
    for task, shape in ((CIFAR10(), (3, 32, 32)), (FashionMNIST(), (1, 28, 28))):
        images = torch.zeros(128, *shape, dtype=torch.uint8)
        split = Split(images, torch.zeros(128, dtype=torch.int64))
        totals.append(
            [operations_a_step(task, TunedBaseline(name, 1e-3, 1e-2), 128, split).total for name in names]
        )
    ratios = np.array(totals) / np.array(totals)[:, :1]
    for (least, most), digits in zip(zip(*ratios, strict=True), (3, 3, 3, 2), strict=True):
        assert most == 1 or f"| {least:.{digits}f} to {most:.{digits}f} |" in rows


def test_the_page_says_what_the_winner_has_after_half_the_steps():
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    halves = pd.read_csv(RESULTS / "modern" / "half" / "modern_evolved.csv").groupby("set")["metric"]
    whole = pd.read_csv(RESULTS / "modern" / "modern_adamw.csv").groupby("set")["metric"].mean()
    for name, half in halves:
        assert half.mean() > whole[name]
        assert f"{half.mean():.4f} ± {half.std():.4f}" in page


def test_the_page_counts_the_members_with_an_orthogonal_update(quiet_optuna: None):
    study, config = load_study(
        saved(RESULTS / "modern" / "modern_from_published.json.gz"), "modern_from_published"
    )
    space, trials = config.make_space(), study.get_trials(deepcopy=False)

    def orthogonal(number: int) -> bool:
        return "ortho" in space.candidate(trials[number].params).rule_of("convolution").coefficients

    counts = {
        generation: sum(orthogonal(member.number) for member in members)
        for generation, members in populations(study).items()
    }
    assert [counts[generation] for generation in (0, 5, 9)] == [6, 17, 17]
    assert orthogonal(stored_result(study, config).winner)


def test_the_page_says_what_the_known_optimizers_and_the_stages_came_to():
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    for name in ("fashion_mnist", "cifar10", "fine_tuning"):
        found = pd.read_csv(RESULTS / "joint" / "compare" / f"compare_{name}.csv")
        for rank, row in enumerate(found.to_dict("records"), 1):
            if row["optimizer"] in ("opt6", "opt10", "a1", "adam", "muon_conv"):
                assert f"{row['mean']:.4f} ± {row['sd']:.4f} ({rank})" in page
    scores = pd.read_csv(RESULTS / "stages" / "quickstart.csv")
    assert len(scores[scores["stage"] > 0]) == 24
    for stage, said in ((2, "leads the second stage with"), (3, "the third\nwith")):
        best = scores.loc[scores[scores["stage"] == stage]["fitness"].idxmax()]
        assert f"rial {best['candidate']} " in page
        assert f"{said} {best['fitness']:.4f}" in page
