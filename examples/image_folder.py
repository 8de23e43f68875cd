"""A folder of images, a folder a class: it needs no code, only a table in the study file.

``python image_folder.py`` draws some into ``shapes/``, as ``shapes/circle/0.png``. With a folder of yours,
change `path` alone. The study::

    name = "image_folder"
    sampler = { kind = "genetic", population_size = 6, n_generations = 2, n_elites = 1 }
    rerun = { candidates = 1, seeds = 2 }

    [evaluation]
    steps = 60
    batch_size = 32
    seeds = [0]

    [[evaluation.tasks]]
    kind = "images"
    name = "shapes"
    path = "shapes"
    options = { resolution = 16, network = "mlp" }
"""

import random
from pathlib import Path

from PIL import Image, ImageDraw


def draw(folder: Path, each: int = 60) -> None:
    """So many pictures a class, none twice."""
    rng = random.Random(0)
    for kind in ("circle", "square"):
        place = folder / kind
        place.mkdir(parents=True, exist_ok=True)
        for number in range(each):
            image = Image.new("RGB", (16, 16), tuple(rng.randrange(60) for _ in range(3)))
            x, y, size = rng.randrange(6), rng.randrange(6), rng.randrange(6, 10)
            pen = ImageDraw.Draw(image)
            shape = pen.ellipse if kind == "circle" else pen.rectangle
            shape((x, y, x + size, y + size), fill=tuple(rng.randrange(120, 256) for _ in range(3)))
            image.save(place / f"{number}.png")


if __name__ == "__main__":
    draw(Path("shapes"))
