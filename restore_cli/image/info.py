"""Facts about a file that its header tells, without decoding it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import ImageCms

from restore_cli.errors import PictureError
from restore_cli.image.picture import Metadata
from restore_cli.image.provenance import read_provenance
from restore_cli.image.reading import open_header, read_bytes


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What a file is.

    Attributes:
        format: name.
        width: pixels, upright.
        height: pixels, upright.
        depth: bits a channel.
        colours: "grey", "rgb", "cmyk", or what else libvips calls it.
        alpha: whether it has transparency.
        profile: what the colour profile calls itself; None without one.
        dpi: horizontal; None where the file does not say.
        metadata: which of EXIF, XMP, IPTC, text and comment there are.
        provenance: how `restore` made it; empty where it did not.
    """

    format: str
    width: int
    height: int
    depth: int
    colours: str
    alpha: bool
    profile: str | None
    dpi: float | None
    metadata: tuple[str, ...]
    provenance: dict[str, str]


def describe(path: Path, *, max_pixels: int) -> PictureFacts:
    """Read the header of a picture.

    Raises:
        PictureError: not a picture, or none that would be restored.
    """
    header = open_header(read_bytes(path), str(path), max_pixels=max_pixels)
    metadata = header.metadata
    names = {name.split("-")[0].upper() for name, _, _ in metadata.fields}
    kinds = sorted(names & {"EXIF", "XMP", "IPTC"})
    kinds += ["text"] * bool(metadata.text) + ["comment"] * bool(metadata.comment)
    return PictureFacts(
        format=header.format,
        width=header.width,
        height=header.height,
        depth=header.bits,
        colours=header.kind,
        alpha=header.alpha,
        profile=_profile_name(metadata),
        dpi=round(metadata.dpi[0], 1) if metadata.dpi else None,
        metadata=tuple(kinds),
        provenance=read_provenance(metadata),
    )


def provenance_of(path: Path) -> dict[str, str]:
    """How `restore` made a file; empty where it did not, or where it is no picture."""
    try:
        header = open_header(read_bytes(path), str(path), max_pixels=2**62)  # of the header only
        return read_provenance(header.metadata)
    except PictureError:
        return {}


def _profile_name(metadata: Metadata) -> str | None:
    if metadata.icc_profile is None:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(metadata.icc_profile))
        return ImageCms.getProfileDescription(profile).strip()
    except (ImageCms.PyCMSError, OSError, ValueError):
        return "broken"
