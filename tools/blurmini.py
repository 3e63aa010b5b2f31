"""Cut the sharp pictures of the `blurmini` benchmark out of freely licensed photos.

    python tools/blurmini.py FOLDER_OF_PHOTOS

Centre crops of 384x288; photos that are large enough are halved first: sharper than their JPEG.
The photos and their licences: restore_cli/datasets/blurmini/README.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

TARGET = Path(__file__).parent.parent / "restore_cli" / "datasets" / "blurmini"
WIDTH, HEIGHT = 384, 288
PHOTOS = (
    "astronaut.png",
    "casa-mila.jpg",
    "chelsea.png",
    "coffee.png",
    "motorcycle_left.png",
    "pondering-heron.jpg",
    "rocket.jpg",
    "snowy-mountains.jpg",
)


def main() -> None:
    """Cut and write."""
    for name in PHOTOS:
        with Image.open(Path(sys.argv[1], name)) as photo:
            image = photo.convert("RGB")
        if image.width * image.height > 500_000 and image.height >= 2 * HEIGHT:
            image = image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)
        left, top = (image.width - WIDTH) // 2, (image.height - HEIGHT) // 2
        crop = image.crop((left, top, left + WIDTH, top + HEIGHT))
        crop.save(TARGET / f"{Path(name).stem}.png", optimize=True)


if __name__ == "__main__":
    main()
