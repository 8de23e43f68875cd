"""What `optevo init` writes: a commented study file, and a task or data to begin with.

Data are drawn from a fixed seed, small enough to search in a minute and to be replaced by one's own.
"""

from __future__ import annotations

# ruff: noqa: PLC0415
import io
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

STUDY = """\
# A search for an optimizer. Run it in this folder; the same command resumes it:
#     optevo run search.toml
# What else a study file may say: docs/study_files.md.
name = "{name}"  # of the study in the database
seed = 0                      # another seed is another search

[space]
kind = "terms"                # update rules made of terms, with hyperparameters and a schedule
presets = ["sgd", "adam", "adamw", "rmsprop"]   # known optimizers to begin with

[sampler]
kind = "genetic"
population_size = 12          # candidates a generation
n_generations = 5             # more find more, and take longer

[evaluation]
steps = {steps}                   # batches that a candidate is trained for
seeds = [0, 1]                # each candidate is trained once with each
batch_size = {batch_size}
{task}
[rerun]                       # the best, trained again with seeds that the search never saw
candidates = 3
seeds = 5
"""
CLASS = """\
tasks = ["my_task:MyTask"]    # the class MyTask in my_task.py
"""
OWN = """
[[evaluation.tasks]]          # your own data, no code needed: docs/tasks.md
kind = "{kind}"
name = "{name}"               # under which results are shown
path = "{path}"{padding}# put your own in its place, or write where they lie
{options}
"""
MY_TASK = '''\
"""A task of your own: data, a network, and how good it is."""

import torch
from torch import nn

from optevo.tasks import Split, Task, build


class MyTask(Task):
    name = "my_task"  # under which results are shown
    # The loss is cross-entropy and the score accuracy. A regression says: loss = "mse", metric = "r2"

    def load(self, root):
        """The examples, the same ones every time; root is the folder of --data-dir or OPTEVO_DATA."""
        generator = torch.Generator().manual_seed(0)
        angle = 9 * torch.rand(1_500, generator=generator).sqrt()  # two spirals: put your data here
        labels = torch.arange(1_500) % 2
        turn = angle + torch.pi * labels
        points = torch.stack([angle * turn.cos(), angle * turn.sin()], dim=1) / 5
        points += 0.05 * torch.randn(1_500, 2, generator=generator)
        parts = {"train": slice(0, 1_000), "validation": slice(1_000, 1_250), "test": slice(1_250, None)}
        return {name: Split(points[part], labels[part]) for name, part in parts.items()}

    def model(self, generator):
        """A new network; everything random is drawn from the generator, which `build` sees to."""
        hidden = lambda width: nn.Sequential(nn.Linear(width, 32), nn.Tanh())
        return build(lambda: nn.Sequential(hidden(2), hidden(32), nn.Linear(32, 2)), generator)
'''


@dataclass(frozen=True)
class Start:
    """One kind of beginning.

    Attributes:
        task: Its lines in the study file.
        files: What lies beside that, by path; made when it is written.
        steps: Training steps.
        batch_size: Examples a batch.
    """

    task: str
    files: Callable[[], Mapping[str, bytes]]
    steps: int = 100
    batch_size: int = 64


def _own(kind: str, name: str, path: str, options: str) -> str:
    padding = " " * max(2, 21 - len(path))
    return OWN.format(kind=kind, name=name, path=path, padding=padding, options=options)


def _table() -> Mapping[str, bytes]:
    draw = random.Random(0)
    lines = ["size,rooms,district,price"]
    for _ in range(600):
        size, district = draw.uniform(20, 150), draw.choice(["north", "south", "harbour"])
        rooms = max(1, round(size / 25 + draw.gauss(0, 0.7)))
        price = size * {"north": 2.0, "south": 2.6, "harbour": 4.1}[district] + 15 * rooms + draw.gauss(0, 12)
        lines.append(f"{size:.1f},{rooms},{district},{price:.1f}")
    return {"prices.csv": ("\n".join(lines) + "\n").encode()}


def _text() -> Mapping[str, bytes]:
    small = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    small += " fifteen sixteen seventeen eighteen nineteen"
    below = small.split()
    tens = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]

    def word(n: int) -> str:
        if n < 20:
            return below[n]
        return tens[n // 10 - 2] + (f" {below[n % 10]}" if n % 10 else "")

    draw, lines = random.Random(0), []
    for _ in range(1_200):
        a, b = draw.randrange(50), draw.randrange(50)
        lines.append(f"{word(a)} and {word(b)} make {word(a + b)}\n")
    return {"sums.txt": "".join(lines).encode()}


def _images() -> Mapping[str, bytes]:
    from PIL import Image, ImageDraw

    draw, files = random.Random(0), {}
    for shape in ("circles", "squares"):
        for i in range(60):
            image = Image.new("RGB", (24, 24), tuple(draw.randrange(100) for _ in range(3)))
            x, y, side = draw.randrange(10), draw.randrange(10), draw.randrange(8, 14)
            pen, colour = ImageDraw.Draw(image), tuple(draw.randrange(140, 256) for _ in range(3))
            (pen.ellipse if shape == "circles" else pen.rectangle)((x, y, x + side, y + side), fill=colour)
            image.save(made := io.BytesIO(), "PNG")
            files[f"shapes/{shape}/{i}.png"] = made.getvalue()
    return files


#: By the name of `--task`.
STARTS = {
    "class": Start(CLASS, lambda: {"my_task.py": MY_TASK.encode()}),
    "images": Start(
        _own("images", "shapes", "shapes", "options = { resolution = 24, width = 8 }"),
        _images,
        steps=60,
        batch_size=16,
    ),
    "table": Start(
        _own("table", "prices", "prices.csv", 'options = { target = "price" }   # the column to predict'),
        _table,
    ),
    "text": Start(
        _own(
            "text", "sums", "sums.txt", 'options = { tokens = "words", width = 32, layers = 1, window = 16 }'
        ),
        _text,
        steps=60,
        batch_size=32,
    ),
}
