"""What one waits for: an import, the command's help, and a worker's first training step on the digits.

    python -m analysis.benchmarks.startup [--quick]

The worker's process is the one that `optevo run` starts. Its task is the digits with a clock: it notes when
its data is asked for, when the first step begins, and when the second does, which is when the first has
ended.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import optuna

from analysis.benchmarks.common import console, middle, parser, print_header, table
from optevo.storage.opening import open_storage
from optevo.study.config import parse_config
from optevo.study.studies import create_or_resume

# The monotonic clock is one for all processes of a machine.
TASK = """
import time
from optevo.tasks.vision import Digits

class Clock(Digits):
    def load(self, root):
        self.note("load")
        return super().load(root)

    def loss(self, model, batch):
        self.note("step")
        return super().loss(model, batch)

    def note(self, what):
        with open("notes", "a") as notes:
            print(what, time.monotonic(), file=notes)
"""
PHASES = ("spawn to data asked for", "data to first step", "spawn to first step", "first step")
SHOWN = 12  # packages
SHORT = {
    "python": ("-c", "pass"),
    "import optevo": ("-c", "import optevo"),
    "optevo --help": ("-m", "optevo", "--help"),
}


def spawn(folder: Path, *options: str) -> tuple[list[float], str]:
    """One worker on a new study; seconds of each phase, and what it wrote to stderr."""
    name, url = f"study {time.monotonic_ns()}", f"sqlite:///{folder}/optevo.db"
    config = {
        "name": name,
        "sampler": {"kind": "genetic", "population_size": 4, "n_generations": 1, "n_elites": 0},
        "evaluation": {"tasks": ["clock:Clock"], "steps": 2, "seeds": [0]},
    }
    create_or_resume(parse_config(config, "benchmark"), open_storage(url, create=True), "cpu")
    notes = folder / "notes"
    notes.unlink(missing_ok=True)
    command = [sys.executable, *options, "-P", "-m", "optevo", "worker", "--device", "auto"]
    command += ["--data-dir", str(folder), "--parent", str(os.getpid()), "--limit", "1", "--", name]
    env = {**os.environ, "OPTEVO_STORAGE": url, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    start = time.monotonic()
    ran = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(ran.stdout + ran.stderr)
    loaded, first, second = (float(line.split()[1]) for line in notes.read_text().splitlines()[:3])
    return [loaded - start, first - loaded, first - start, second - first], ran.stderr


def waited(*options: str) -> float:
    """Seconds of a Python process."""
    start = time.monotonic()
    subprocess.run([sys.executable, *options], capture_output=True, check=True)
    return time.monotonic() - start


def imports(stderr: str) -> dict[str, float]:
    """Milliseconds by top-level package, of what `-X importtime` wrote; a module's own time only."""
    packages: dict[str, float] = defaultdict(float)
    for line in stderr.splitlines():
        if line.startswith("import time:") and "self [us]" not in line:
            own, _, module = line.removeprefix("import time:").split("|")
            packages[module.strip().partition(".")[0]] += int(own) / 1e3
    return dict(sorted(packages.items(), key=lambda item: -item[1]))


def main() -> None:
    """Measure and print."""
    unmeasured, repeats = (0, 1) if parser(__doc__).parse_args().quick else (2, 10)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print_header(
        f"{repeats} processes of a kind one after another, {unmeasured} before them to fill the file cache; "
        "median [min, max] in seconds"
    )
    short = table("from start to end of a process", "process", "s")
    for name, options in SHORT.items():
        values = [waited(*options) for _ in range(unmeasured + repeats)][unmeasured:]
        short.add_row(name, middle(values))
    console.print(short)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "clock.py").write_text(TASK, encoding="utf-8")
        for _ in range(unmeasured):
            spawn(folder)
        runs = [spawn(folder)[0] for _ in range(repeats)]
        packages = imports(spawn(folder, "-X", "importtime")[1])
    phases = table("from the spawn of a worker", "phase", "s")
    for phase, values in zip(PHASES, zip(*runs, strict=True), strict=True):
        phases.add_row(phase, middle(values))
    console.print(phases)
    whole = sum(packages.values())
    made = table(f"imports by package, {whole / 1e3:.2f} s under `-X importtime`", "package", "ms", "share")
    for package, ms in list(packages.items())[:SHOWN]:
        made.add_row(package, f"{ms:.0f}", f"{ms / whole:.0%}")
    console.print(made)


if __name__ == "__main__":
    main()
