"""What the quickstart is worth over several searches: `python -m analysis.search_seeds`.

One search is one draw: another seed, or another processor's rounding, ends with another winner. So the search
and the sweep that it is compared with are repeated, and the searches are what is counted. Repetition s takes
the search seed s and trains with the seeds 20·s and 20·s + 1, so s = 0 is the study file as it stands, and no
two searches share a draw. Each winner is then read once on the test split, by `optevo compare`, all of them
with the same ten seeds.

python -m analysis.search_seeds --seeds 10 --output studies/results/quickstart --keep search_seeds.db

Interrupted, the same command goes on: everything is in the database.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from optevo.measurement.fresh_seeds import stored_result
from optevo.reporting.statistics import Estimate, paired
from optevo.storage.opening import open_storage
from optevo.study.config import load_config
from optevo.study.studies import load_study

STUDIES = Path(__file__).parents[1] / "studies"
SEARCH, SWEEP = "quickstart", "quickstart_adamw"
STEPS, TEST_SEEDS = 100, 10
APART = 20  # training seeds of a repetition: two of the search, and ten fresh ones


def study_file(name: str, seed: int, folder: Path) -> Path:
    """Write a study file of ours for one repetition, with a name of its own.

    Args:
        name: Of the study; its file is `studies/NAME.toml`.
        seed: Of the repetition.
        folder: Where to.
    """
    text = (STUDIES / f"{name}.toml").read_text(encoding="utf-8")
    first = APART * seed
    for old, new in (
        ("\nseed = 0\n", "\n"),
        (f'name = "{name}"\n', f'name = "{name}_s{seed}"\nseed = {seed}\n'),
        ("\nseeds = [0, 1]\n", f"\nseeds = [{first}, {first + 1}]\n"),
    ):
        text = text.replace(old, new)
    path = folder / f"{name}_s{seed}.toml"
    path.write_text(text, encoding="utf-8")
    config = load_config(path)
    assert (config.seed, config.evaluation.seeds) == (seed, (first, first + 1)), path
    return path


def optevo(*arguments: str) -> None:
    """Run the command.

    Raises:
        SystemExit: It failed; it has said why.
    """
    done = subprocess.run([sys.executable, "-m", "optevo", *arguments], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def repetition(seed: int, url: str, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Search, sweep and compare.

    Args:
        seed: Of the repetition.
        url: The database.
        folder: For what is written on the way.

    Returns:
        A row of what was found, the runs on fresh seeds of the validation split, and those on the test split.
    """
    for name in (SEARCH, SWEEP):
        optevo("run", str(study_file(name, seed, folder)), "--storage", url, "--workers", "1")
    names, output = [f"{name}_s{seed}" for name in (SWEEP, SEARCH)], folder / f"comparison_s{seed}"
    budget = ["--steps", str(STEPS), "--seeds", str(TEST_SEEDS)]
    optevo("compare", *names, *budget, "--storage", url, "--workers", "1", "--output", str(output))
    found = pd.read_csv(output / "studies.csv").set_index("study")
    runs = pd.read_csv(output / "runs.csv").assign(metric=lambda frame: frame["metric"].fillna(0.0))
    test = runs.groupby("study")["metric"].mean()
    study, config = load_study(open_storage(url), names[1])
    result = stored_result(study, config)
    assert result is not None
    preset = max(result.rows[:-1], key=lambda row: row.mean)
    sweep, search = found.loc[names[0]], found.loc[names[1]]
    row = {
        "search_seed": seed,
        "winner": search["winner"],
        "rule": search["rule"],
        "hyperparameters": search["hyperparameters"],
        "search_fitness": search["search_fitness"],
        "fresh_fitness": search["fresh_fitness"],
        "best_preset": preset.name,
        "best_preset_fresh_fitness": preset.mean,
        "adamw_hyperparameters": sweep["hyperparameters"],
        "adamw_fresh_fitness": sweep["fresh_fitness"],
        "adamw_test": test[names[0]],
        "test": test[names[1]],
        "difference": test[names[1]] - test[names[0]],
    }
    fresh = [
        {
            "search_seed": seed,
            "optimizer": one.name,
            "seed": run.seed,
            "fitness": run.fitness,
            "metric": run.metric,
        }
        for one in result.rows
        for run in one.runs
    ]
    runs["study"] = runs["study"].str.removesuffix(f"_s{seed}")
    runs.insert(0, "search_seed", seed)
    columns = ["search_seed", "study", "trial", "seed", "metric", "loss"]
    return pd.DataFrame([row]), pd.DataFrame(fresh), runs[columns]


def gain(frame: pd.DataFrame, of: str, over: str) -> Estimate:
    """A column minus another, paired by search."""
    return paired({"digits": (frame[of] - frame[over]).tolist()}, rng=np.random.default_rng(0))


def said(frame: pd.DataFrame) -> list[str]:
    """What the searches come to, a line each: means ± sd over searches, and paired differences."""
    lines = []
    for title, ours, theirs, other in (
        ("accuracy on the test split", "test", "adamw_test", "AdamW, swept"),
        ("fitness on fresh seeds", "fresh_fitness", "best_preset_fresh_fitness", "its best preset"),
    ):
        estimate, each = gain(frame, ours, theirs), frame[ours] - frame[theirs]
        lines += [
            f"{title}: mean ± sd over {len(frame)} searches",
            f"  {other:<17} {frame[theirs].mean():.4f} ± {frame[theirs].std():.4f}",
            f"  {'the quickstart':<17} {frame[ours].mean():.4f} ± {frame[ours].std():.4f}",
            f"  {'the difference':<17} {estimate.mean:+.4f} ± {each.std():.4f}, 95 % interval "
            f"{estimate.low:+.4f} to {estimate.high:+.4f}, p = {estimate.p:.2g}",
            f"  ahead in {(each > 0).sum()} of {len(frame)}, from {each.min():+.4f} to {each.max():+.4f}",
        ]
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Write `searches.csv`, a row a search, and `fresh.csv` and `test.csv`, a row a run; print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="search seeds 0 to N − 1")
    parser.add_argument("--output", type=Path, default=STUDIES / "results" / "quickstart")
    parser.add_argument("--keep", type=Path, default=Path("search_seeds.db"), help="the database")
    given = parser.parse_args(arguments)
    url = f"sqlite:///{given.keep.resolve()}"
    with tempfile.TemporaryDirectory() as folder:
        made = [repetition(seed, url, Path(folder)) for seed in range(given.seeds)]
    tables = [pd.concat(frames, ignore_index=True) for frames in zip(*made, strict=True)]
    given.output.mkdir(parents=True, exist_ok=True)
    for name, table in zip(("searches", "fresh", "test"), tables, strict=True):
        table.to_csv(given.output / f"{name}.csv", index=False)
    print("\n".join(said(tables[0])))


if __name__ == "__main__":
    main()
