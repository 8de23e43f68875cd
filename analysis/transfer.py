"""Winners of studies on what they were not tuned on, paired by seed: `python -m analysis.transfer`.

Each study's winner, as measured on fresh seeds, trains on each of `SETS`: other data, another network, a
longer run. The test split is read once a run; nothing here chooses anything. A rule whose schedule is in
shares of a run has it for these runs too.

python -m analysis.transfer modern_adamw modern_search --storage sqlite:///modern.db --seeds 5 --output FOLDER

The first study is the reference. Runs are kept in FOLDER, a file a study, as they finish; the same command
goes on with those that are missing, and studies may be measured by commands of their own at the same time.
`--sets` and `--steps` make other readings, such as the steps that a winner needs for what the reference has
after 1,000.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor, nn

from optevo.errors import UserError
from optevo.measurement.fresh_seeds import stored_result
from optevo.optim.candidate import Candidate
from optevo.reporting.statistics import paired
from optevo.storage.opening import open_storage
from optevo.study.studies import load_study
from optevo.tasks.base import Split, Splits, Task
from optevo.tasks.layers import build
from optevo.tasks.orders import stratified_order
from optevo.tasks.roots import data_root
from optevo.tasks.text import CharLM
from optevo.tasks.vision import CIFAR10, MNIST, FashionMNIST
from optevo.training.single import train

FIRST_SEED = 2000  # those of searches, sweeps and test evaluations lie below


class _Residual(nn.Module):
    """x ← relu(x + norm(conv(relu(norm(conv(x))))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            *(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.inner(x))


class ResidualFashion(FashionMNIST):
    """Fashion-MNIST with a residual network of 46,970 parameters."""

    name = "fashion_mnist_residual"

    def model(self, generator: torch.Generator) -> nn.Module:
        def down(inputs: int, outputs: int) -> list[nn.Module]:
            return [
                *(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs)),
                nn.ReLU(),
            ]

        return build(
            lambda: nn.Sequential(
                *(*down(1, 16), _Residual(16), *down(16, 32), _Residual(32), _Residual(32)),
                *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
            ),
            generator,
        )

    def load(self, root: Path) -> Splits:
        return FashionMNIST().load(root)


class BreastCancer(Task):
    """The 569 tumours of scikit-learn's table, 30 numbers each, standardised; a network 30-64-32-2.

    Args:
        split: Which division into training, validation and test. Default: 0.
    """

    name = "breast_cancer"

    def __init__(self, split: int = 0) -> None:
        self.split = split

    def load(self, root: Path) -> Splits:
        table, labels = load_breast_cancer(return_X_y=True)
        key = f"{self.name} {self.split}" if self.split else self.name
        order = torch.tensor(stratified_order(labels.tolist(), key))
        parts = {"train": order[:300], "validation": order[300:400], "test": order[400:]}
        numbers, targets = torch.tensor(table), torch.tensor(labels)
        seen = numbers[parts["train"]]
        numbers = ((numbers - seen.mean(0)) / seen.std(0)).float()
        return {key: Split(numbers[part], targets[part]) for key, part in parts.items()}

    def model(self, generator: torch.Generator) -> nn.Module:
        return build(
            lambda: nn.Sequential(
                *(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))
            ),
            generator,
        )


#: Task, steps, batch size. The first three are what nobody tuned on, the fourth a horizon of three times.
SETS: dict[str, tuple[Callable[[], Task], int, int]] = {
    "char_lm": (CharLM, 300, 128),
    "breast_cancer": (BreastCancer, 200, 64),
    "residual": (ResidualFashion, 1_000, 128),
    "residual_long": (ResidualFashion, 3_000, 128),
    "fashion_mnist": (FashionMNIST, 1_000, 128),
    "cifar10": (CIFAR10, 1_000, 128),
    "mnist": (MNIST, 1_000, 128),
}
UNSEEN = ("char_lm", "breast_cancer", "residual", "residual_long")
#: Sets of which every seed has its own division into training and test.
DIVIDED: dict[str, tuple[Callable[[int], Task], int, int]] = {"breast_cancer_splits": (BreastCancer, 200, 64)}


def _divided(name: str, seed: int) -> tuple[Callable[[], Task], int, int]:
    make, steps, batch_size = DIVIDED[name]
    return functools.partial(make, seed), steps, batch_size


def winner_of(name: str, url: str) -> Candidate:
    """The candidate that a finished study came to.

    Raises:
        UserError: There is none, or its best are not measured on fresh seeds yet.
    """
    study, config = load_study(open_storage(url), name)
    result = stored_result(study, config)
    if result is None:
        raise UserError(f"study {name!r} is not finished: optevo run goes on with it")
    return config.make_space().candidate(study.get_trials(deepcopy=False)[result.winner].params)


def measured(
    study: str,
    candidate: Candidate,
    sets: Sequence[str],
    *,
    seeds: Sequence[int],
    folder: Path,
    steps: int | None = None,
) -> pd.DataFrame:
    """A row a run; those in the study's file already are not repeated."""
    path = folder / f"{study}.csv"
    rows: list[dict[str, Any]] = pd.read_csv(path).to_dict("records") if path.exists() else []
    done = {(row["set"], row["steps"], row["seed"]) for row in rows}
    loaded: dict[str, tuple[Task, Splits]] = {}
    for seed in seeds:
        for name in sets:
            make, usual, batch_size = SETS.get(name) or _divided(name, seed)
            if (name, steps or usual, seed) in done:
                continue
            if name not in loaded or name in DIVIDED:
                task = make()
                loaded[name] = task, task.load(data_root())
            run = train(
                *(*loaded[name], candidate),
                seed=seed,
                steps=steps or usual,
                batch_size=batch_size,
                split="test",
                precision="bfloat16",
            )
            row = {"study": study, "set": name, "steps": steps or usual, "seed": seed}
            rows.append({**row, "metric": run.metric, "seconds": round(run.seconds, 2)})
            pd.DataFrame(rows).to_csv(path, index=False)
    return pd.DataFrame(rows)


def differences(runs: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Each study's mean and sd a set, and its paired difference to the reference; a diverged run has 0.

    A last row a number of steps is the mean over its sets, where there are several.
    """
    runs = runs.assign(metric=runs["metric"].fillna(0.0))
    rows = []
    for steps, of_steps in runs.groupby("steps", sort=False):
        pairs: dict[str, dict[str, list[float]]] = {}
        for name, part in of_steps.groupby("set", sort=False):
            wide = part.pivot(index="seed", columns="study", values="metric").dropna()
            for study in wide:
                row = {"set": name, "steps": steps, "study": study, "n": len(wide)}
                rows.append({**row, "mean": wide[study].mean(), "sd": wide[study].std()})
                if study != reference and reference in wide and len(wide) > 1:
                    found = (wide[study] - wide[reference]).tolist()
                    pairs.setdefault(str(study), {})[str(name)] = found
                    rows[-1] |= _estimated({str(name): found})
        for study, strata in pairs.items():
            if len(strata) > 1:
                n = sum(map(len, strata.values()))
                row = {"set": "overall", "steps": steps, "study": study, "n": n}
                rows.append({**row, **_estimated(strata)})
    return pd.DataFrame(rows)


def _estimated(strata: dict[str, list[float]]) -> dict[str, float]:
    estimate = paired(strata, rng=np.random.default_rng(0))
    return {"difference": estimate.mean, "low": estimate.low, "high": estimate.high, "p": estimate.p}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("studies", nargs="+", help="names, the reference first")
    parser.add_argument("--storage", default="sqlite:///optevo.db")
    parser.add_argument("--seeds", type=int, default=5, help="runs a set and study")
    parser.add_argument("--sets", nargs="+", choices=[*SETS, *DIVIDED], default=UNSEEN)
    parser.add_argument("--steps", type=int, default=None, help="of a run, instead of the set's own")
    parser.add_argument("--output", type=Path, required=True, help="folder for the tables")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    seeds = range(FIRST_SEED, FIRST_SEED + args.seeds)
    try:
        winners = {name: winner_of(name, args.storage) for name in args.studies}
    except UserError as error:
        parser.error(str(error))
    runs = pd.concat(
        measured(name, candidate, args.sets, seeds=seeds, folder=args.output, steps=args.steps)
        for name, candidate in winners.items()
    )
    table = differences(runs, args.studies[0])
    table.to_csv(args.output / "differences.csv", index=False)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4f}"))


if __name__ == "__main__":
    main()
