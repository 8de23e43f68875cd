"""CIFAR-10's image folders once more through JPEG, to see what compression costs::

python -m analysis.recompress $OPTEVO_DATA /somewhere/else --quality 50
OPTEVO_DATA=/somewhere/else OPTEVO_CACHE=/somewhere/cache optevo run studies/jpeg50.toml
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image


def recompress(source: Path, target: Path, quality: int) -> int:
    """Write every image below `source`/cifar10 to the same place below `target`; how many there were."""
    images = [path for path in sorted((source / "cifar10").rglob("*")) if path.suffix in (".png", ".jpg")]
    for path in images:
        beside = (target / path.relative_to(source)).with_suffix(".jpg")
        beside.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.convert("RGB").save(beside, quality=quality)
    return len(images)


def main(arguments: Sequence[str] | None = None) -> None:
    """Recompress, and say how many images there were."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--quality", type=int, default=50)
    given = parser.parse_args(arguments)
    print(f"{recompress(given.source, given.target, given.quality)} images")


if __name__ == "__main__":
    main()
