"""Malformed study files, data, databases and arguments, thousands of them: a result or a message.

`python -m tests.chaos.fuzz [--scale 1.0] [--seed 0] [--only KIND[:INDEX]]` prints what was tried and every
fault with the command that repeats it; exit status 1 if there was one.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import optuna
from hypothesis import given, settings

from optevo.spaces import TermSpace
from optevo.study.config import StudyConfig, load_config, parse_config

from . import damage
from .databases import databases
from .drawn import config_tables, term_params
from .exports import exports
from .files import idx_files, image_folders, text_files
from .outcomes import Fault, Hang, command, limited, refused

STUDIES = Path(__file__).parents[2] / "studies"


def studies(rng: random.Random, folder: Path) -> str:
    """A study file with a few faults; every tenth that is refused also goes through `optevo run`."""
    original = rng.choice(sorted(STUDIES.glob("*.toml")))
    file = folder / "study.toml"
    file.write_bytes(damage.toml(original.read_text("utf-8"), rng))
    if not refused(lambda: check_config(load_config(file))):
        return "accepted"
    if rng.random() < 0.1 and command("run", str(file), "--storage", f"sqlite:///{folder}/a.db")[0] != 2:
        raise Fault("load_config refuses what optevo run takes")
    return "refused"


def check_config(config: StudyConfig) -> None:
    """What every accepted configuration can do."""
    if parse_config(json.loads(json.dumps(config.to_dict())), "itself") != config:
        raise Fault(f"a study stored as {config.to_dict()} could not be resumed")
    config.fingerprint()


def tables(n: int) -> int:
    """Configurations out of hypothesis, which seeds itself; returns how many."""
    tried = [0]

    @settings(max_examples=n, derandomize=True, deadline=None, database=None)
    @given(config_tables())
    def check(table: dict[str, object]) -> None:
        tried[0] += 1
        refused(lambda: check_config(parse_config(table, "a file")))

    check()
    return tried[0]


def genomes(n: int) -> int:
    """A space's parameters with anything in them: a genome that works, or ValueError; returns how many."""
    tried, space = [0], TermSpace()
    valid = space.presets()["evolved"]

    @settings(max_examples=n, derandomize=True, deadline=None, database=None)
    @given(term_params(valid))
    def check(params: dict[str, object]) -> None:
        tried[0] += 1
        try:
            genome = space.candidate(params)
        except ValueError as error:
            assert str(error)  # noqa: PT017  either outcome is right
            return
        compile(genome.source("Evolved", {}), "evolved.py", "exec")

    check()
    return tried[0]


KINDS: dict[str, tuple[int, Callable[[random.Random, Path], str]]] = {
    "studies": (2400, studies),
    "idx_files": (300, idx_files),
    "image_folders": (200, image_folders),
    "text_files": (60, text_files),
    "databases": (400, databases),
    "exports": (500, exports),
}
DRAWN: dict[str, tuple[int, Callable[[int], int]]] = {"tables": (600, tables), "genomes": (600, genomes)}


@dataclass
class Report:
    """What one kind came to."""

    tried: int
    outcomes: dict[str, int]
    faults: list[str]


def try_kind(kind: str, numbers: range, seed: int = 0) -> Report:
    """The inputs of `numbers`; each depends on kind, seed and its number only."""
    report = Report(0, {}, [])
    for number in numbers:
        report.tried += 1
        folder = Path(tempfile.mkdtemp(prefix="optevo-fuzz-"))
        try:
            with limited():
                outcome = KINDS[kind][1](random.Random(f"{kind} {seed} {number}"), folder)
            report.outcomes[outcome] = report.outcomes.get(outcome, 0) + 1
        except (Exception, Hang) as error:
            again = f"python -m tests.chaos.fuzz --seed {seed} --only {kind}:{number}"
            last = "".join(traceback.format_exception(error, limit=-4))
            report.faults.append(f"{again}\n{last}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return report


def main() -> int:
    """Try everything and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="Times the default number of inputs.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="KIND[:INDEX]")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    only, _, index = args.only.partition(":")
    faults = 0
    for kind, (n, _) in KINDS.items():
        if only in ("", kind):
            numbers = range(int(index), int(index) + 1) if index else range(round(n * args.scale))
            start = time.monotonic()
            report = try_kind(kind, numbers, args.seed)
            faults += len(report.faults)
            print(*report.faults, sep="\n")
            print(
                f"{kind}: {report.tried} tried, {report.outcomes}, {len(report.faults)} faults, "
                f"{time.monotonic() - start:.0f} s",
                flush=True,
            )
    for kind, (n, check) in DRAWN.items():
        if only in ("", kind):
            try:
                print(f"{kind}: {check(round(n * args.scale))} tried, 0 faults", flush=True)
            except Exception:
                faults += 1
                traceback.print_exc()
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
