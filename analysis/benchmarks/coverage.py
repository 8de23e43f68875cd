"""How often confidence intervals of paired differences hold the truth, by simulation; nominal: 95 %.

    python -m analysis.benchmarks.coverage [--quick] [--markdown] [--simulations N]

Each cell draws so many comparisons of two optimizers whose true mean difference is known, and counts. The
percentile bootstrap and the t interval are there to compare with; `paired` is what optevo reports. Three
tasks spread as 1 : 3 : 0.3. Width is the median of the bootstrap-t interval's in units of the t interval's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from rich import box

from analysis.benchmarks.common import console, parser, print_header, table
from optevo.reporting.statistics import Strata, bootstrap_half_width, paired, t_half_width

Law = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

SPREADS = {1: (1.0,), 3: (1.0, 3.0, 0.3)}
PAIRS = (3, 5, 8, 10, 30)
RESAMPLES = 999
SEED = 0


def accuracies(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Differences of two accuracies, each skewed towards its ceiling: of means 4/5 and 2/3."""
    return (rng.beta(8, 2, shape) - 8 / 10) - (rng.beta(2, 1, shape) - 2 / 3)


# Each of mean 0.
LAWS: dict[str, Law] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "heavy tails (t, 5 df)": lambda rng, shape: rng.standard_t(5, shape),
    "skewed accuracies (beta)": accuracies,
    "strong skew (exponential)": lambda rng, shape: rng.exponential(size=shape) - 1,
    "few wrong examples (Poisson)": lambda rng, shape: rng.poisson(2, shape) - rng.poisson(1, shape) - 1.0,
}


def cell(law: Law, tasks: int, pairs: int, simulations: int, rng: np.random.Generator) -> list[float]:
    """Coverage of percentile bootstrap, t, bootstrap-t and `paired`, and the ratio of widths.

    The truth is 1, so that differences that are all zero do not hold it by chance.
    """
    drawn = 1 + law(rng, (simulations, tasks, pairs)) * np.array(SPREADS[tasks])[:, None]
    held, ratios = np.zeros(4), []
    for one in drawn:
        means = [task[rng.integers(0, pairs, (RESAMPLES, pairs))].mean(1) for task in one]
        low, high = np.quantile(np.mean(means, axis=0), (0.025, 0.975))
        named = {str(i): task for i, task in enumerate(one)}
        estimate = paired(named, rng=rng, resamples=RESAMPLES)
        held += (low <= 1 <= high, 0, 0, estimate.low <= 1 <= estimate.high)
        if all(np.ptp(task) == 0 for task in one):
            continue  # such a comparison has no t
        strata = Strata.of(list(one))
        t, studentized = t_half_width(strata, 0.95), bootstrap_half_width(strata, 0.95, rng, RESAMPLES)
        held[1:3] += (abs(strata.mean - 1) <= t, abs(strata.mean - 1) <= studentized)
        ratios.append(studentized / t)
    return [*(held / simulations), float(np.median(ratios))]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--markdown", action="store_true", help="print a Markdown table")
    arguments.add_argument("--simulations", type=int, default=4000, help="comparisons a cell (default 4000)")
    given = arguments.parse_args()
    simulations = 20 if given.quick else given.simulations
    error = (0.95 * 0.05 / simulations) ** 0.5
    print_header(
        f"{simulations} comparisons a cell, {RESAMPLES} resamples, seed {SEED}; "
        f"the standard error of a coverage of 95 % is {100 * error:.2f} points"
    )
    columns = ("tasks", "pairs a task", "percentile", "t", "bootstrap-t", "paired", "width")
    found = table("coverage in %", "differences", *columns)
    if given.markdown:
        found.box, found.title = box.MARKDOWN, None
    rng = np.random.default_rng(SEED)
    for name, law in LAWS.items():
        for tasks in SPREADS:
            for pairs in PAIRS:
                *held, width = cell(law, tasks, pairs, simulations, rng)
                found.add_row(name, str(tasks), str(pairs), *(f"{100 * h:.1f}" for h in held), f"{width:.2f}")
    console.print(found)


if __name__ == "__main__":
    main()
