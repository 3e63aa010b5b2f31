"""Reads the pictures of a pair for scoring: values as they are in the files."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from restore_cli.datasets.kohler import read_references
from restore_cli.datasets.layouts import Pair
from restore_cli.errors import PictureError
from restore_cli.image import Picture, read_image
from restore_cli.image.colour import is_srgb


def read_pair(pair: Pair) -> tuple[Tensor, list[Tensor]]:
    """Return the degraded picture and all references, (1, 3, H, W) in [0, 1].

    Raises:
        PictureError: a picture cannot be read, is damaged or has transparency; or their profiles
            differ, so that equal values would not be equal colours.
        UsageError: references in a `.mat` file without scipy.
    """
    degraded = read_image(pair.degraded, icc="keep", strict=True)
    references: list[Tensor] = []
    for path in pair.references:
        if path.suffix.lower() == ".mat":
            references += read_references(path)
            continue
        sharp = read_image(path, icc="keep", strict=True)
        if profile_of(sharp) != profile_of(degraded):
            raise other_profile(pair.degraded, path)
        references.append(sharp.pixels)
    return degraded.pixels, references


def profile_of(picture: Picture) -> bytes | None:
    """Return the colour profile; None for sRGB."""
    profile = picture.metadata.icc_profile
    bands = 1 if picture.grey else 3
    return None if profile is None or is_srgb(profile, bands) else profile


def other_profile(first: Path, second: Path) -> PictureError:
    """Return the error for two pictures with different colour profiles."""
    return PictureError(
        f"'{first}' and '{second}' have different colour profiles", hint="convert both to sRGB"
    )
