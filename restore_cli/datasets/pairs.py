"""Reads the pictures of a pair for scoring: values as they are in the files."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from restore_cli.datasets.layouts import Pair
from restore_cli.datasets.trajectory import read_references
from restore_cli.errors import PictureError
from restore_cli.image import Picture, read_image
from restore_cli.image.colour import is_srgb


def read_pair(pair: Pair) -> tuple[Tensor, list[Tensor]]:
    """Return the degraded picture and all references, (1, 3, H, W) in [0, 1].

    Raises:
        PictureError: a picture cannot be read or has transparency, or their profiles differ, so
            that equal values would not be equal colours.
        UsageError: references in a `.mat` file without scipy.
    """
    degraded = read_opaque(pair.degraded)
    references: list[Tensor] = []
    for path in pair.references:
        if path.suffix.lower() == ".mat":
            references += read_references(path)
            continue
        sharp = read_opaque(path)
        if profile_of(sharp) != profile_of(degraded):
            raise PictureError(
                f"'{pair.degraded}' and '{path}' have different colour profiles",
                hint="convert both to sRGB",
            )
        references.append(sharp.pixels)
    return degraded.pixels, references


def read_opaque(path: Path) -> Picture:
    """Read a picture as it is in the file.

    Raises:
        PictureError: it cannot be read, or has transparency.
    """
    picture = read_image(path, icc="keep")
    if picture.is_transparent:
        raise PictureError(f"'{path}' has transparency", hint="flatten it first")
    return picture


def profile_of(picture: Picture) -> bytes | None:
    """Return the colour profile; None for sRGB."""
    profile = picture.metadata.icc_profile
    bands = 1 if picture.grey else 3
    return None if profile is None or is_srgb(profile, bands) else profile
