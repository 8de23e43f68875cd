"""Genomes an hour on two cores: the plain way beside ours, on MNIST, Fashion-MNIST and CIFAR-10.

    python -m analysis.benchmarks.genomes [--quick] [--rounds N] [--accuracy] [--steps N] [--seeds N]

The plain way (`plain.py`) is one process of two threads with two loader processes. Ours are two processes of
one thread each at the same time, as `optevo run --workers 2` has them. All train the published winner on the
same 15,000 examples and score the same 5,000 for validation. `--accuracy` compares what they learn instead.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from analysis.benchmarks import plain
from analysis.benchmarks.common import console, middle, parser, print_header, table
from optevo.optim.terms.presets import PRESETS
from optevo.tasks import get_task
from optevo.tasks.roots import data_root
from optevo.training.single import train

TASKS = ("mnist", "fashion_mnist", "cifar10")
STEPS, SEEDS = 500, 2  # of a published evaluation: steps a run, runs a task
PLAIN, OURS = "plain", ("float32", "bfloat16")


Job = tuple[str, str, int, int]  # way, task, seed, steps


@dataclass(frozen=True)
class Answer:
    """What one short run took and reached."""

    steps: int
    seconds: float  # of the whole run, from its model to its score
    step: float  # seconds a step, mean over the run: loaders deliver in bursts, a median would miss them
    accuracy: float

    @property
    def rest(self) -> float:
        """Seconds before the first step and after the last."""
        return self.seconds - self.steps * self.step

    @property
    def full(self) -> float:
        """Seconds of a run of the published length: the steps that it did not take at its mean step."""
        return self.seconds + (STEPS - self.steps) * self.step


class Runner:
    """A process that trains what it is asked to, one run at a time."""

    def __init__(self, threads: int, examples: tuple[int, int]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, threads, examples))
        self.process.start()
        theirs.close()  # so that each side sees when the other has gone

    def start(self, way: str, task: str, seed: int, steps: int) -> None:
        """Begin a run."""
        self.pipe.send((way, task, seed, steps))

    def answer(self) -> Answer:
        """Wait for its end."""
        return self.pipe.recv()

    def stop(self) -> None:
        """End the process."""
        self.pipe.close()
        self.process.join()


def _serve(pipe: Connection, threads: int, examples: tuple[int, int]) -> None:
    torch.set_num_threads(threads)
    loaded: dict[tuple[bool, str], Any] = {}
    with contextlib.suppress(EOFError, ConnectionError):  # the other side has gone
        while True:
            job: Job = pipe.recv()
            way, task, _, steps = job
            key = way == PLAIN, task
            if key not in loaded:
                loaded[key] = _load(way, task, *examples)
            marks: list[float] = []
            start = time.perf_counter()
            accuracy = _train(loaded[key], job, lambda marks=marks: marks.append(time.perf_counter()))
            seconds = time.perf_counter() - start
            pipe.send(Answer(steps, seconds, (marks[-1] - marks[0]) / (steps - 1), accuracy))


def _load(way: str, name: str, training: int, validation: int) -> Any:
    if way == PLAIN:
        return plain.load(name, data_root(), training, validation)
    task = get_task(name, train_examples=training, validation_examples=validation)
    return task, task.load(data_root())


def _train(data: Any, job: Job, check: Callable[[], None]) -> float:
    way, task, seed, steps = job
    genome = PRESETS["evolved"]
    if way == PLAIN:
        return plain.train(task, data, genome, seed=seed, steps=steps, check=check)
    run = train(*data, genome, seed=seed, steps=steps, check=check, precision=way)
    return run.metric if run.metric is not None else float("nan")


def speed(
    single: Runner, pair: Sequence[Runner], tasks: Sequence[str], rounds: int, steps: dict[str, int]
) -> None:
    """Take the ways in turn, task by task, and print what a genome costs with each."""
    ways = (PLAIN, *OURS)
    answers: dict[tuple[str, str], list[list[Answer]]] = {(way, task): [] for way in ways for task in tasks}
    for number in range(-1, rounds):  # the first loads data and compiles kernels
        for task in tasks:
            for way in ways:
                runners = [single] if way == PLAIN else pair
                for seed, runner in enumerate(runners):
                    runner.start(way, task, seed, 2 if number < 0 else steps[way])
                taken = [runner.answer() for runner in runners]
                if number >= 0:
                    answers[way, task].append(taken)
    runs = table("one run, medians", "task", "way", "ms a step", "s before and after the steps")
    for task in tasks:
        for way in ways:
            flat = [answer for taken in answers[way, task] for answer in taken]
            runs.add_row(task, way, middle([1e3 * a.step for a in flat], 1), middle([a.rest for a in flat]))
    console.print(runs)
    rates = {way: [_rate([answers[way, task][i] for task in tasks]) for i in range(rounds)] for way in ways}
    genomes = table(
        f"{len(tasks)} tasks × {SEEDS} seeds × {STEPS} steps",
        "way",
        "processes",
        "genomes an hour",
        "of plain",
    )
    for way in ways:
        ratios = [ours / theirs for ours, theirs in zip(rates[way], rates[PLAIN], strict=True)]
        processes = "1 × 2 threads" if way == PLAIN else "2 × 1 thread"
        genomes.add_row(way, processes, middle(rates[way], 1), middle(ratios))
    console.print(genomes)


def _rate(tasks: Sequence[Sequence[Answer]]) -> float:
    """Genomes an hour of all processes together, from one run of each task in each process."""
    seconds = sum(SEEDS * statistics.fmean(answer.full for answer in taken) for taken in tasks)
    return len(tasks[0]) * 3600 / seconds


def accuracy(single: Runner, pair: Sequence[Runner], tasks: Sequence[str], steps: int, seeds: int) -> None:
    """Print the validation accuracy that each way reaches."""
    compared = table(
        f"validation accuracy after {steps} steps, mean ± sd of {seeds} seeds", "task", PLAIN, *OURS
    )
    for task in tasks:
        reached: dict[str, list[float]] = {way: [] for way in (PLAIN, *OURS)}
        for seed in range(seeds):
            single.start(PLAIN, task, seed, steps)
            reached[PLAIN].append(single.answer().accuracy)
            for way, runner in zip(OURS, pair, strict=False):
                runner.start(way, task, seed, steps)
            for way, runner in zip(OURS, pair, strict=False):
                reached[way].append(runner.answer().accuracy)
        compared.add_row(
            task, *(f"{statistics.fmean(v):.4f} ± {statistics.stdev(v):.4f}" for v in reached.values())
        )
    console.print(compared)


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=5, help="of plain and ours in turn. Default: 5")
    arguments.add_argument("--accuracy", action="store_true", help="compare accuracies, not times")
    arguments.add_argument("--steps", type=int, default=200, help="of a run for --accuracy. Default: 200")
    arguments.add_argument("--seeds", type=int, default=3, help="runs a task for --accuracy. Default: 3")
    options = arguments.parse_args()
    tasks = ("mnist", "cifar10") if options.quick else TASKS
    examples = (500, 250) if options.quick else (plain.TRAIN, plain.VALIDATION)
    single, pair = Runner(plain.THREADS, examples), [Runner(1, examples), Runner(1, examples)]
    try:
        if options.quick or not options.accuracy:
            rounds, of_plain, of_ours = (1, 3, 3) if options.quick else (options.rounds, 40, 60)
            print_header(
                f"{rounds} rounds, in each a short run with its scoring for every task and way in turn, "
                f"{of_plain} steps the plain way and {of_ours} ours; those missing to {STEPS} are added at "
                "the run's mean step. CIFAR-10 lies as image files, which the plain way decodes each time. "
                "Medians [min, max], [5 %, 95 %] from 20 values on"
            )
            speed(single, pair, tasks, rounds, {PLAIN: of_plain, **dict.fromkeys(OURS, of_ours)})
        if options.quick or options.accuracy:
            steps, seeds = (3, 2) if options.quick else (options.steps, options.seeds)
            print_header("the same examples and genome; random numbers differ between plain and ours")
            accuracy(single, pair, tasks, steps, seeds)
    finally:
        for runner in (single, *pair):
            runner.stop()


if __name__ == "__main__":
    main()
