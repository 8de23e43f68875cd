"""What the gate refuses, what that costs, and what it loses: `python -m analysis.gate_account`.

Of each space, individuals are drawn as those of a first generation are, without asking the gate, and every
one is then asked its gate. The first so many that are refused and the first so many that pass are trained all
the same, on the digits: term genomes with 100 steps, as in `studies/quickstart.toml`, equations with 200
steps and learning-rate trials, as in `studies/joint/quick.toml`. Draws are independent of one another, so the
first are a fair sample. Individual i trains with the seed i.

A refused individual would have been of use where it does at least as well as the best quarter of those that
passed: two parents in three come from there.

python -m analysis.gate_account --output studies/results/gate_account

Interrupted, the same command goes on; with --seconds it stops by itself.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from optevo.evaluation.racing import USEFUL
from optevo.files import write_text
from optevo.reporting.statistics import wilson
from optevo.spaces import Params
from optevo.study.config import StudyConfig, load_config
from optevo.tasks.roots import data_root
from optevo.training.bench import Bench

STUDIES = Path(__file__).parents[1] / "studies"
SPACES: dict[str, tuple[str, dict[str, Any]]] = {
    "terms, published": ("quickstart.toml", {"presets": ()}),
    "terms, modern": ("quickstart.toml", {"presets": (), "catalogue": "modern"}),
    "graphs": ("joint/quick.toml", {"viable": False}),
}
INDIVIDUALS, TRAINED = 2_000, 250
LEARNED = 0.5  # validation accuracy; chance is 0.1
_KEPT = 20  # runs, or a hundred times as many gates, after which what there is is written
COLUMNS = ("space", "number", "refused", "gate_ms", "accuracy", "fitness", "steps", "seconds")


def study_of(space: str) -> StudyConfig:
    """What individuals of a space are drawn from and trained with."""
    file, changes = SPACES[space]
    config = load_config(STUDIES / file)
    return config.model_copy(update={"space": config.space.model_copy(update=changes)})


class Account:
    """The individuals of a space, as far as they have been looked at; a row each, by their number.

    Args:
        space: Of `SPACES`.
        rows: Those of earlier calls.
    """

    def __init__(self, space: str, rows: Sequence[dict[str, Any]]) -> None:
        self.space, self.rows = space, {int(row["number"]): row for row in rows}
        self.config = study_of(space)
        self._space = self.config.make_space()
        self._bench: Bench | None = None

    def params(self, number: int) -> Params:
        """Individual `number`."""
        return self._space.sample(np.random.default_rng([list(SPACES).index(self.space), number]))

    def ask(self, number: int) -> None:
        """Ask the gate, and how long it takes; of an equation the sphere is descended to find its sign."""
        params = self.params(number)
        since = time.perf_counter()
        reason = self._space.candidate(params).gate()
        ms = 1e3 * (time.perf_counter() - since)
        row = {"space": self.space, "number": number, "refused": reason is not None, "gate_ms": round(ms, 3)}
        self.rows[number] = row

    def train(self, number: int) -> None:
        """Train it, whatever the gate said."""
        if self._bench is None:
            self._bench = Bench(self.config, "cpu", data_root())
        run = self._bench.run(self._space.candidate(self.params(number)), 0, number)
        fitness = run.fitness if math.isfinite(run.earned) else -math.inf
        found = {"accuracy": run.metric, "fitness": fitness, "steps": run.steps, "seconds": run.seconds}
        self.rows[number] |= {**found, "seconds": round(run.seconds, 3)}

    def work(self, individuals: int, trained: int) -> Iterator[None]:
        """What is left to do, piece by piece."""
        asked = [number for number in range(individuals) if number not in self.rows]
        for some in _pieces(asked, 100 * _KEPT):
            for number in some:
                self.ask(number)
            yield
        for refused in (True, False):
            drawn = [n for n in sorted(self.rows) if self.rows[n]["refused"] is refused][:trained]
            for some in _pieces([n for n in drawn if "steps" not in self.rows[n]], _KEPT):
                for number in some:
                    self.train(number)
                yield


def _pieces(numbers: Sequence[int], size: int) -> list[Sequence[int]]:
    return [numbers[i : i + size] for i in range(0, len(numbers), size)]


def account(frame: pd.DataFrame) -> list[str]:
    """The table, a line of Markdown each; intervals are Wilson's."""
    header = ("space", "refused", "ms a gate", "refused that would be of use", "refused that learn")
    lines = [f"| {' | '.join(header)} | passed that learn | of those that learn, refused | s a run |"]
    lines.append("| --- " * (len(header) + 3) + "|")
    for space, rows in frame.groupby("space", sort=False):
        runs = rows[rows["steps"].notna()]
        refused, passed = (runs[runs["refused"] == is_refused] for is_refused in (True, False))
        learned = [(part["accuracy"] >= LEARNED) for part in (refused, passed)]
        lost = rows["refused"].mean() * learned[0].mean()
        kept = (1 - rows["refused"].mean()) * learned[1].mean()
        cells = [
            str(space),
            share(int(rows["refused"].sum()), len(rows)),
            f"{rows['gate_ms'].median():.1f}",
            share(int((refused["fitness"] >= useful(passed)).sum()), len(refused)),
            *(share(int(part.sum()), len(part)) for part in learned),
            f"{100 * lost / ((lost + kept) or 1):.0f} %",
            f"{runs['seconds'].mean():.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def useful(passed: pd.DataFrame) -> float:
    """The least fitness of the best quarter of those that passed, or of as many as did not diverge."""
    best = passed["fitness"].nlargest(max(1, math.ceil(USEFUL * len(passed))))
    return float(best[best > -math.inf].min())  # NaN of nobody: then nothing is of use


def share(found: int, n: int) -> str:
    """A share with its interval, in percent."""
    low, high = wilson(found, n)
    return f"{found} of {n:,}, {100 * found / max(1, n):.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw, ask and train as far as is left; write `individuals.csv` and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--individuals", type=int, default=INDIVIDUALS, help="of each space")
    parser.add_argument("--trained", type=int, default=TRAINED, help="of those refused, and of those passed")
    parser.add_argument("--seconds", type=float, default=math.inf, help="after which to stop")
    parser.add_argument("--output", type=Path, required=True, help="folder for individuals.csv")
    given = parser.parse_args(arguments)
    given.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    file, since = given.output / "individuals.csv", time.monotonic()
    known = pd.read_csv(file) if file.exists() else pd.DataFrame(columns=COLUMNS)
    stored = [{k: v for k, v in row.items() if not pd.isna(v)} for row in known.to_dict("records")]
    accounts = [Account(space, [row for row in stored if row["space"] == space]) for space in SPACES]

    def frame() -> pd.DataFrame:
        rows = [one.rows[number] for one in accounts for number in sorted(one.rows)]
        return pd.DataFrame(rows, columns=COLUMNS)

    for one in accounts:
        for _ in one.work(given.individuals, given.trained):
            write_text(file, frame().to_csv(index=False))
            if time.monotonic() - since > given.seconds:
                print(f"stopped after {given.seconds:g} s: the same command goes on")
                return
    print("\n".join(account(pd.read_csv(file))))


if __name__ == "__main__":
    main()
