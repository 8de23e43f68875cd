"""The README's picture of a search, drawn from a stored study: `python -m analysis.picture`.

Every trial stands at its place in its generation, at the height of its fitness. The axis is logarithmic in
the distance to 1.05, the highest fitness there is, so that the last hundredths can be seen. The text of the
SVG follows from the study alone: the same file from the same study, byte for byte.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import optuna

from optevo.measurement.fresh_seeds import stored_result
from optevo.reporting.frames import trials
from optevo.storage.study_file import read_study
from optevo.study.studies import load_study

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "studies" / "results" / "quickstart" / "quickstart.json"
PICTURE = ROOT / "docs" / "search.svg"

WIDTH, HEIGHT = 880, 430
LEFT, RIGHT, TOP, BOTTOM = 62, 860, 84, 340  # of the axes
STRIP = 372  # where trials stand that count −1
TOPMOST = 1.05  # accuracy 1 and loss 0
TICKS = (0.0, 0.5, 0.8, 0.9, 0.95, 1.0, 1.02, 1.03)

# Light, and dark where the reader's system is; each on a ground of its own, so it can be read on any page.
STYLE = """
svg { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
.ground { fill: #ffffff } .text { fill: #1f2328 } .faint { fill: #59636e }
.grid { stroke: #d1d9e0; fill: none } .trial { fill: #0969da; fill-opacity: .55 }
.pruned { fill: none; stroke: #59636e; stroke-opacity: .8 } .preset { fill: #bc4c00 }
.best { fill: none; stroke: #1a7f37; stroke-width: 2 }
.winner { fill: none; stroke: #1a7f37; stroke-width: 2 }
.rival { stroke: #bc4c00; stroke-dasharray: 4 4 } .small { font-size: 12px } .title { font-size: 15px }
@media (prefers-color-scheme: dark) {
.ground { fill: #0d1117 } .text { fill: #f0f6fc } .faint { fill: #9198a1 }
.grid { stroke: #3d444d } .trial { fill: #4493f8 } .pruned { stroke: #9198a1 } .preset { fill: #f0883e }
.best, .winner { stroke: #3fb950 } .rival { stroke: #f0883e }
}"""


@dataclass(frozen=True)
class Dot:
    """A trial as it is drawn.

    Attributes:
        number: Of the trial.
        x: From 0 to the number of generations.
        fitness: As the search saw it.
        complete: Whether all its runs were made; the others were pruned.
        preset: Its name if it is one.
    """

    number: int
    x: float
    fitness: float
    complete: bool
    preset: str | None


@dataclass(frozen=True)
class Search:
    """What the picture shows.

    Attributes:
        name: Of the study.
        task: Names of its tasks.
        dots: In the order of generation and slot.
        generations: How many.
        winner: The trial that won on fresh seeds.
        formula: Its rule.
        fresh: Its fitness there, as text.
    """

    name: str
    task: str
    dots: tuple[Dot, ...]
    generations: int
    winner: int
    formula: str
    fresh: str


def search(path: Path) -> Search:
    """Read a saved study.

    Raises:
        UserError: See `read_study` and `load_study`.
        ValueError: It was not measured on fresh seeds.
    """
    study, config = load_study(read_study(path), None)
    result = stored_result(study, config)
    if result is None:
        raise ValueError(f"study {study.study_name!r} has no winner yet: it was not measured on fresh seeds")
    space = config.make_space()
    names = {space.candidate(params).canonical(): name for name, params in space.presets().items()}
    frame = trials(study, config)
    frame = frame[frame["counted"] & frame["generation"].notna()].sort_values(["generation", "slot"])
    places = frame.groupby("generation")["slot"].transform("max") + 1
    dots = tuple(
        Dot(
            number=int(row["number"]),
            x=int(row["generation"]) + (int(row["slot"]) + 0.5) / int(place),
            fitness=float(row["fitness"]),
            complete=row["state"] == "COMPLETE",
            preset=names.get(row["canonical"]) if row["generation"] == 0 else None,
        )
        for (_, row), place in zip(frame.iterrows(), places, strict=True)
    )
    won = frame.set_index("number").loc[result.winner]
    last = result.rows[-1]
    return Search(
        name=study.study_name,
        task=", ".join(result.tasks),
        dots=dots,
        generations=int(frame["generation"].max()) + 1,
        winner=result.winner,
        formula=str(won["formula"]),
        fresh=f"{last.mean:.4f} ± {last.sd:.4f} on {len(last.by_seed)} fresh seeds",
    )


def height(fitness: float) -> float:
    """The y of a fitness; all that is not above −0.5, or none, stands in the strip."""
    if not fitness > -0.5:  # none, too
        return STRIP
    low, high = (-math.log10(TOPMOST - value) for value in (0.0, TICKS[-1]))
    part = (-math.log10(TOPMOST - min(fitness, TICKS[-1])) - low) / (high - low)
    return BOTTOM - max(part, 0.0) * (BOTTOM - TOP)


def across(x: float, generations: int) -> float:
    """The x of a place in a generation."""
    return LEFT + (RIGHT - LEFT) * x / generations


def best_so_far(dots: Sequence[Dot]) -> Iterator[Dot]:
    """Those that were better than all before them."""
    best = -math.inf
    for dot in dots:
        if dot.complete and dot.fitness > best:
            best = dot.fitness
            yield dot


def text(x: float, y: float, words: str, style: str = "text", anchor: str = "start") -> str:
    """A line of text."""
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def svg(found: Search) -> str:
    """The picture."""
    n, dots = found.generations, found.dots
    title = f"{len(dots)} trials of study {found.name}: fitness by generation, best so far and winner"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}\n</style>",
        f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
        text(LEFT, 26, f"A search on {found.task}: {len(dots)} trials, each an optimizer", "text title"),
    ]
    legend = (
        (0, '<circle class="trial" cx="{x}" cy="47" r="4"/>', "trained to the end"),
        (150, '<circle class="pruned" cx="{x}" cy="47" r="3.5"/>', "stopped early"),
        (270, '<circle class="preset" cx="{x}" cy="47" r="4"/>', "preset, untuned"),
        (405, '<path class="best" d="M{x} 47h18"/>', "best so far"),
        (520, '<circle class="winner" cx="{x}" cy="47" r="7"/>', "winner on fresh seeds"),
    )
    for at, shape, words in legend:
        wide = 24 if "path" in shape else 12
        lines += [shape.format(x=LEFT + at + 4), text(LEFT + at + 4 + wide, 51.5, words, "faint small")]
    for tick in TICKS:
        y = height(tick)
        lines += [
            f'<path class="grid" d="M{LEFT} {y:.1f}H{RIGHT}"/>',
            text(LEFT - 8, y + 4, f"{tick:g}", "faint small", "end"),
        ]
    lines += [
        text(LEFT - 8, STRIP + 4, "−1", "faint small", "end"),
        text(LEFT, 73, "fitness", "faint small", "end"),
        f'<path class="grid" d="M{LEFT} {STRIP}H{RIGHT}"/>',
    ]
    for generation in range(n):
        middle = across(generation + 0.5, n)
        lines.append(text(middle, 400, f"generation {generation}", "faint small", "middle"))
        if generation:
            lines.append(f'<path class="grid" d="M{across(generation, n):.1f} {TOP}V{STRIP + 12}"/>')
    presets = [dot for dot in dots if dot.preset is not None]
    if presets:
        rival = max(presets, key=lambda dot: dot.fitness)
        y = height(rival.fitness)
        lines += [
            f'<path class="rival" d="M{across(rival.x, n):.1f} {y:.1f}H{RIGHT}"/>',
            text(RIGHT, y + 15, f"{rival.preset}, the best of the presets", "faint small", "end"),
        ]
    steps = list(best_so_far(dots))
    path = f"M{across(steps[0].x, n):.1f} {height(steps[0].fitness):.1f}"
    for dot in steps[1:]:
        path += f"H{across(dot.x, n):.1f}V{height(dot.fitness):.1f}"
    lines.append(f'<path class="best" d="{path}H{RIGHT}"/>')
    for dot in dots:
        style, r = ("trial", 4.0) if dot.complete else ("pruned", 3.5)
        style = "preset" if dot.preset else style
        x, y = across(dot.x, n), height(dot.fitness)
        lines.append(f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{r:g}"/>')
    (won,) = [dot for dot in dots if dot.number == found.winner]
    x, y = across(won.x, n), height(won.fitness)
    said = f"trial {found.winner}: {found.formula}, fitness {found.fresh}"
    lines += [
        f'<circle class="winner" cx="{x:.1f}" cy="{y:.1f}" r="7"/>',
        text(LEFT, 421, f"The winner is {said}.", "text"),
        "</svg>",
    ]
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--study", type=Path, default=STUDY, help="a file of `optevo storage save`")
    parser.add_argument("--output", type=Path, default=PICTURE)
    given = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    given.output.write_text(svg(search(given.study)), encoding="utf-8", newline="\n")
    print(f"wrote {given.output}")


if __name__ == "__main__":
    main()
